"""One reading of a cluster, as far as the caller may read it.

Rights differ by kind of object and by namespace, so each part stands for itself: a part that is
forbidden, missing or late becomes a ``Gap``, and the others are whole.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from gpu_fraction.dashboard.dra_objects import Claim, DeviceSlice
from gpu_fraction.dashboard.objects import Node, Pod, Quota
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.resources import (
    GPU_QUOTAS,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Resource,
)
from gpu_fraction.kube.timestamps import utc_now

T = TypeVar("T")

TIMEOUT_S: Final = 15.0
"""Seconds for one part. Chosen: a list of 10,000 pods takes a few, and a person waits."""

Why = Literal["forbidden", "absent", "late", "failed", "not asked"]
"""Why something was not read: no right; the server has no such resource; no answer in time;
another failure; the caller did not ask for it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that was not read.

    Attributes:
        what: The resource in plural, such as ``nodes``.
        why: The kind of reason.
        text: One line for people: the server's own words where it gave some.
        namespaces: Where it could be read nevertheless; empty for nowhere.
    """

    what: str
    why: Why
    text: str
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """All objects of one kind, or those of some namespaces, or none and the reason.

    Attributes:
        items: The objects that were read.
        gap: What is missing; None where every object of the cluster was read.
        unreadable: ``namespace/name`` of objects that do not decode, with the fault.
    """

    items: tuple[T, ...] = ()
    gap: Gap | None = None
    unreadable: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """True where nothing of the cluster is missing; an absent resource has no objects."""
        return self.gap is None or self.gap.why == "absent"

    @property
    def read(self) -> bool:
        """True where the items say something: all of the cluster's, or those of namespaces."""
        return self.whole or (self.gap is not None and bool(self.gap.namespaces))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The objects of a cluster at about one time. Parts are read side by side, not atomically.

    Attributes:
        at: The wall clock of this machine after the reading.
        nodes: All nodes.
        pods: All pods; those without GPUs have no specification (``objects.Pod``).
        quotas: All GPUQuotas.
        claims: All ResourceClaims.
        devices: ResourceSlices of every driver.
    """

    at: datetime
    nodes: Part[Node] = field(default_factory=Part)
    pods: Part[Pod] = field(default_factory=Part)
    quotas: Part[Quota] = field(default_factory=Part)
    claims: Part[Claim] = field(default_factory=Part)
    devices: Part[DeviceSlice] = field(default_factory=Part)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Everything that is missing, absent resources and those not asked for left out."""
        parts: tuple[Part[Any], ...] = tuple(getattr(self, name) for name in PARTS)
        found = (part.gap for part in parts)
        return tuple(gap for gap in found if gap and gap.why not in {"absent", "not asked"})


PARTS: Final[dict[str, tuple[Resource, type[Any]]]] = {
    "nodes": (NODES, Node),
    "pods": (PODS, Pod),
    "quotas": (GPU_QUOTAS, Quota),
    "claims": (RESOURCE_CLAIMS, Claim),
    "devices": (RESOURCE_SLICES, DeviceSlice),
}
"""Names of the parts of a ``Snapshot``, with what is listed."""


async def read(
    client: Client,
    *,
    namespaces: Sequence[str] = (),
    parts: Collection[str] = tuple(PARTS),
    timeout_s: float = TIMEOUT_S,
) -> Snapshot:
    """Read the cluster, each part with its own deadline.

    A part that may not be listed for the whole cluster is listed in ``namespaces`` instead.

    Args:
        client: The connection.
        namespaces: Where the caller expects to have rights.
        parts: The wanted ones, from ``PARTS``.
        timeout_s: Seconds for each part.

    Raises:
        KubeError: the server cannot be reached or does not know the caller, so that no part can
            be read; the error of the first.
    """
    work = [
        _part(client, *PARTS[name], namespaces, timeout_s) if name in parts else _not_asked(name)
        for name in PARTS
    ]
    found = dict(zip(PARTS, await asyncio.gather(*work), strict=True))
    broken = [found[name][1] for name in PARTS if name in parts]
    if broken and all(error is not None for error in broken):
        raise next(error for error in broken if error is not None)
    return Snapshot(utc_now(), **{name: part for name, (part, _) in found.items()})


async def _not_asked(name: str) -> tuple[Part[Any], None]:
    return Part(gap=Gap(name, "not asked", "not read")), None


async def _part(
    client: Client,
    resource: Resource,
    into: type[T],
    namespaces: Sequence[str],
    timeout_s: float,
) -> tuple[Part[T], errors.KubeError | None]:
    """A part, and the error that concerns every part: no server, or an unknown caller."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _listed(client, resource, into, namespaces, timeout_s), None
    except (TimeoutError, errors.DeadlineError):
        text = f"list {resource.qualified}: no answer within {timeout_s:g} s"
        return Part(gap=Gap(resource.plural, "late", text)), errors.DeadlineError(text)
    except errors.KubeError as e:
        general = isinstance(e, errors.UnauthorizedError | errors.TransportError)
        gap = Gap(resource.plural, "failed", f"list {resource.qualified}: {e}")
        return Part(gap=gap), e if general else None


async def _listed(
    client: Client,
    resource: Resource,
    into: type[T],
    namespaces: Sequence[str],
    timeout_s: float,
) -> Part[T]:
    try:
        return await _list(client, resource, into, "", timeout_s)
    except errors.NotFoundError:
        return Part(gap=Gap(resource.plural, "absent", f"the server has no {resource.qualified}"))
    except errors.ForbiddenError as e:
        gap = Gap(resource.plural, "forbidden", str(e))
    if not resource.namespaced:
        return Part(gap=gap)
    items: tuple[T, ...] = ()
    unreadable: tuple[str, ...] = ()
    for namespace in namespaces:
        try:
            found = await _list(client, resource, into, namespace, timeout_s)
        except errors.ForbiddenError as e:
            gap = replace(gap, text=str(e))
        else:
            gap = replace(gap, namespaces=(*gap.namespaces, namespace))
            items, unreadable = items + found.items, unreadable + found.unreadable
    return Part(items, gap, unreadable)


async def _list(
    client: Client, resource: Resource, into: type[T], namespace: str, timeout_s: float
) -> Part[T]:
    bad: list[str] = []

    def note(of: Identity, error: errors.MalformedAnswerError) -> None:
        bad.append(f"{of.metadata.namespace}/{of.metadata.name}: {error}".lstrip("/"))

    address = resource.at(namespace=namespace)
    found = await client.list(address, into, on_malformed=note, timeout_s=timeout_s)
    return Part(tuple(found.items), None, tuple(bad))
