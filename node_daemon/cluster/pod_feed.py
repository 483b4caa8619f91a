"""The pods of this node, from the API server's watch into the cache."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

import msgspec
import structlog

from gpu_fraction.domain import frameworks, keys
from gpu_fraction.domain.asks import amounts_of
from gpu_fraction.domain.pod import EnvFrom, EnvVar, SecurityContext
from gpu_fraction.domain.root_user import root_problem
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import PODS
from gpu_fraction.kube.store import Change
from gpu_fraction.node_daemon.state.allocation import PodUid
from gpu_fraction.node_daemon.state.pods import Container, Kind, Pod, PodCache

OURS: Final = (keys.REQUEST, keys.ASSIGNED, keys.FRAMEWORK_ENV)

_log = structlog.get_logger()


class _Meta(Meta, frozen=True, kw_only=True, rename="camel"):
    annotations: dict[str, str] | None = None


class _Resources(msgspec.Struct, frozen=True):
    limits: dict[str, str] | None = None


class _Container(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    env: tuple[EnvVar, ...] | None = None
    env_from: tuple[EnvFrom, ...] | None = None
    resources: _Resources | None = None
    restart_policy: str | None = None
    security_context: SecurityContext | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    containers: tuple[_Container, ...] = ()
    init_containers: tuple[_Container, ...] | None = None
    ephemeral_containers: tuple[_Container, ...] | None = None
    security_context: SecurityContext | None = None


class _ContainerStatus(msgspec.Struct, frozen=True):
    name: str
    container_id: str | None = msgspec.field(default=None, name="containerID")


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    phase: str | None = None
    container_statuses: tuple[_ContainerStatus, ...] | None = None
    init_container_statuses: tuple[_ContainerStatus, ...] | None = None


class WirePod(msgspec.Struct, frozen=True):
    """A Pod, in the fields that the daemon reads."""

    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status = _Status()


class PodFeed:
    """Keeps a cache of this node's pods current."""

    def __init__(self, client: Client, node_name: str, cache: PodCache) -> None:
        self._cache = cache
        self._reflector = Reflector(
            client,
            PODS.at(),
            WirePod,
            selection=Selection(fields=f"spec.nodeName={node_name}"),
        )
        self._reflector.subscribe(self._take)

    async def run(self) -> NoReturn:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reflector.run(), name="pod watch")
            await self._reflector.synced.wait()
            self._cache.mark_synced()
            _log.info("pods_synced", pods=len(self._reflector.store))
        raise AssertionError("unreachable: the watch runs until cancelled")

    def _take(self, change: Change[WirePod]) -> None:
        if change.new is not None:
            self._cache.put(read(change.new))
        elif change.old is not None:
            self._cache.remove(PodUid(change.old.metadata.uid))


def read(wire: WirePod) -> Pod:
    """The pod in the fields that the daemon uses."""
    annotations = wire.metadata.annotations or {}
    return Pod(
        namespace=wire.metadata.namespace,
        name=wire.metadata.name,
        uid=PodUid(wire.metadata.uid),
        phase=wire.status.phase or "Pending",
        annotations={key: annotations[key] for key in OURS if key in annotations},
        containers=tuple(_containers(wire)),
        root_risk=_root_risk(wire.spec),
    )


def _containers(wire: WirePod) -> Iterator[Container]:
    statuses = (wire.status.container_statuses or ()) + (wire.status.init_container_statuses or ())
    ids = {status.name: _bare(status.container_id or "") for status in statuses}
    for one in wire.spec.init_containers or ():
        kind: Kind = "sidecar" if one.restart_policy == "Always" else "init"
        yield _container(one, kind, ids)
    for one in wire.spec.containers:
        yield _container(one, "app", ids)


def _container(one: _Container, kind: Kind, ids: Mapping[str, str]) -> Container:
    limits = amounts_of(one.resources.limits if one.resources else None)
    own = frameworks.own(one.env, one.env_from)
    return Container(one.name, kind, limits, ids.get(one.name, ""), own)


def _bare(container_id: str) -> str:
    """``containerd://0123`` as the cgroup has it, ``0123``."""
    return container_id.rpartition("/")[2]


def _root_risk(spec: _Spec) -> str:
    """The first field by which any container of the pod could be root.

    Regular init containers too: what one has opened, it can leave to those that stay.
    """
    kinds = {
        "containers": spec.containers,
        "initContainers": spec.init_containers or (),
        "ephemeralContainers": spec.ephemeral_containers or (),
    }
    for kind, members in kinds.items():
        for index, one in enumerate(members):
            path = f"spec.{kind}[{index}]"
            if problem := root_problem(path, one.security_context, spec.security_context):
                return str(problem)
    return ""
