"""Reads the evidence: every part once, with a reason where that is not possible."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import msgspec

from gpu_fraction.dashboard import snapshot
from gpu_fraction.dashboard.doctor import objects as o
from gpu_fraction.dashboard.doctor import probes
from gpu_fraction.dashboard.doctor.evidence import Evidence, services_of
from gpu_fraction.dashboard.doctor.parts import attempt, listed, together
from gpu_fraction.dashboard.snapshot import Part
from gpu_fraction.domain import keys
from gpu_fraction.kube import resources
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import decode
from gpu_fraction.kube.requests import EVERYTHING, Selection, ServerPath, get
from gpu_fraction.kube.resources import Resource
from gpu_fraction.kube.timestamps import utc_now

T = TypeVar("T")

CRD: Final = f"gpuquotas.{keys.GROUP}"

_LISTED: Final[tuple[tuple[str, Resource, type[Any], Selection], ...]] = (
    ("mutating", resources.MUTATING_WEBHOOKS, o.Configuration, EVERYTHING),
    ("validating", resources.VALIDATING_WEBHOOKS, o.Configuration, EVERYTHING),
    ("namespaces", resources.NAMESPACES, o.Namespace, EVERYTHING),
    ("daemon_sets", resources.DAEMON_SETS, o.Workload, EVERYTHING),
    ("runtime_classes", resources.RUNTIME_CLASSES, o.RuntimeClass, EVERYTHING),
    ("policies", resources.CLUSTER_POLICIES, o.ClusterPolicy, EVERYTHING),
    ("crds", resources.CRDS, o.Crd, Selection(fields=f"metadata.name={CRD}")),
    ("events", resources.EVENTS, o.Warned, Selection(fields="type=Warning")),
)
"""Parts of the whole cluster."""

_IN_SYSTEM: Final[tuple[tuple[str, Resource, type[Any]], ...]] = (
    ("deployments", resources.DEPLOYMENTS, o.Workload),
    ("leases", resources.LEASES, o.Lease),
    ("budgets", resources.DISRUPTION_BUDGETS, o.Budget),
)
"""Parts of the installation's namespace."""


class _Groups(msgspec.Struct, frozen=True, kw_only=True):
    groups: list[o.Group] | None = None


async def read(
    client: Client, *, namespace: str, timeout_s: float = snapshot.TIMEOUT_S
) -> Evidence:
    """Read a cluster as far as the caller may.

    Nothing is stored: the trial pod is a dry run, and reviews of rights are answers only.

    Args:
        client: The connection.
        namespace: Where the trial pod is created.
        timeout_s: Seconds for each part.

    Raises:
        KubeError: the server cannot be reached or does not know the caller.
    """
    seen = await snapshot.read(client, timeout_s=timeout_s)
    skew_s = _skew_s(client.date)
    found: dict[str, Any] = dict(
        await asyncio.gather(
            _of(client, "version", "/version", lambda b: (decode(o.Version, b),), timeout_s),
            _of(client, "groups", "/apis", lambda b: decode(_Groups, b).groups or (), timeout_s),
            *(
                _part(name, listed(client, resource.at(), into, chosen, timeout_s))
                for name, resource, into, chosen in _LISTED
            ),
        )
    )
    now = utc_now() - timedelta(seconds=skew_s or 0.0)
    first = replace(Evidence(at=now, skew_s=skew_s, snapshot=seen), **found)
    system = _system(first)
    first = replace(first, system=system)
    wanted = services_of(w for _, w in first.pod_webhooks)
    found = dict(
        await asyncio.gather(
            *(
                _part(
                    name, listed(client, resource.at(namespace=system), into, timeout_s=timeout_s)
                )
                for name, resource, into in _IN_SYSTEM
            ),
            _part("services", _services(client, wanted, timeout_s)),
            _part("endpoints", _endpoints(client, wanted, timeout_s)),
            _part("rights", probes.rights(client, first, system, timeout_s)),
            _part("trials", probes.trial(client, namespace, timeout_s)),
            _part("metrics", probes.metrics(client, first, timeout_s)),
        )
    )
    return replace(first, **found)


async def _part(name: str, work: Awaitable[Part[T]]) -> tuple[str, Part[T]]:
    return name, await work


async def _of(
    client: Client,
    name: str,
    path: str,
    read_body: Callable[[bytes], Sequence[Any]],
    timeout_s: float,
) -> tuple[str, Part[Any]]:
    async def ask() -> Sequence[Any]:
        return read_body(await client.send(get(ServerPath(path)), timeout_s=timeout_s))

    return name, await attempt(f"get {path}", path, ask, timeout_s)


async def _services(
    client: Client, wanted: Sequence[o.ServiceReference], timeout_s: float
) -> Part[o.Service]:
    """Those that exist."""

    async def one(of: o.ServiceReference) -> Part[o.Service]:
        address = resources.SERVICES.at(of.name, namespace=of.namespace)

        async def ask() -> Sequence[o.Service]:
            return (await client.get(address, o.Service, timeout_s=timeout_s),)

        right = f"get services in namespace {of.namespace}"
        return await attempt(right, "services", ask, timeout_s)

    return together(await asyncio.gather(*map(one, wanted)))


async def _endpoints(
    client: Client, wanted: Sequence[o.ServiceReference], timeout_s: float
) -> Part[o.Endpoints]:
    async def one(of: o.ServiceReference) -> Part[o.Endpoints]:
        address = resources.ENDPOINT_SLICES.at(namespace=of.namespace)
        chosen = Selection(labels=f"{SERVICE_NAME}={of.name}")
        return await listed(client, address, o.Endpoints, chosen, timeout_s)

    return together(await asyncio.gather(*map(one, wanted)))


SERVICE_NAME: Final = "kubernetes.io/service-name"
"""Label of EndpointSlices. Source: kubernetes.io, EndpointSlices, "Ownership"."""


def _system(evidence: Evidence) -> str:
    """The installation's namespace: that of our webhook's Service, else of our pods."""
    for service in services_of(w for _, w in evidence.ours):
        return service.namespace
    places = [pod.metadata.namespace for pod in evidence.cluster.own_pods]
    usual = keys.SYSTEM_NAMESPACE
    return usual if usual in places or not places else places[0]


def _skew_s(date: str) -> float | None:
    """Seconds that this machine's clock is ahead of an HTTP date, which has whole seconds."""
    try:
        return (utc_now() - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):
        return None
