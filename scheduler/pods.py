"""The parts of pods that placement reads, straight from the wire.

The watch keeps one object for each pod of the cluster, so pods that hold no GPU shed
everything but their names as they are decoded.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from gpu_fraction.domain import keys
from gpu_fraction.domain.asks import Named, amounts_of
from gpu_fraction.kube.objects import Meta

_PREFIX: Final = keys.PREFIX


class PodMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """Names, annotations and whether the pod is being deleted."""

    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class Resources(msgspec.Struct, frozen=True):
    """Requests and limits, quantities as written."""

    limits: dict[str, str] | None = None
    requests: dict[str, str] | None = None

    def all(self) -> dict[str, str]:
        """What is requested; a limit without a request requests as much."""
        return {**(self.limits or {}), **(self.requests or {})}


class Port(msgspec.Struct, frozen=True, rename="camel"):
    """A container's port, looked at for the node's port only."""

    host_port: int | None = None


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container or init container."""

    name: str = ""
    resources: Resources | None = None
    ports: list[Port] | None = None
    restart_policy: str | None = None

    def named(self) -> Named:
        """What it names of our resources."""
        return amounts_of(self.resources.limits, self.resources.requests) if self.resources else {}


class Volume(msgspec.Struct, frozen=True, rename="camel"):
    """A volume, looked at for claims only."""

    persistent_volume_claim: dict[str, Any] | None = None
    ephemeral: dict[str, Any] | None = None


class Affinity(msgspec.Struct, frozen=True, rename="camel"):
    """Ties to other pods, looked at for presence only."""

    pod_affinity: dict[str, Any] | None = None
    pod_anti_affinity: dict[str, Any] | None = None


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """What the pod asks for and where it runs."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    node_name: str | None = None
    priority: int | None = None
    priority_class_name: str | None = None
    scheduler_name: str | None = None
    affinity: Affinity | None = None
    topology_spread_constraints: list[Any] | None = None
    volumes: list[Volume] | None = None
    resources: Resources | None = None
    overhead: dict[str, str] | None = None


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """How far the pod is."""

    phase: str | None = None
    nominated_node_name: str | None = None


_NO_SPEC: Final = Spec()
_NO_STATUS: Final = Status()


class Pod(msgspec.Struct, frozen=True):
    """A pod.

    Attributes:
        holds_gpu: False where the pod neither asks for our resources nor was given cards.
    """

    metadata: PodMeta = PodMeta()
    spec: Spec = _NO_SPEC
    status: Status = _NO_STATUS
    holds_gpu: bool = False

    def __post_init__(self) -> None:
        ours = _is_ours(self)
        kept = {k: v for k, v in self.annotations().items() if ours and keys.is_ours(k)}
        bare = msgspec.structs.replace(self.metadata, annotations=kept or None)
        msgspec.structs.force_setattr(self, "metadata", bare)
        msgspec.structs.force_setattr(self, "holds_gpu", ours)
        if not ours:
            msgspec.structs.force_setattr(self, "spec", _NO_SPEC)
            msgspec.structs.force_setattr(self, "status", _NO_STATUS)
            return
        for name in ("scheduler_name", "priority_class_name"):
            # A few names, of which each pod would keep a copy.
            value = getattr(self.spec, name)
            if value is not None:
                msgspec.structs.force_setattr(self.spec, name, sys.intern(value))

    def annotations(self) -> Mapping[str, str]:
        """The annotations, empty where there are none."""
        return self.metadata.annotations or {}

    def running_containers(self) -> Iterator[Container]:
        """Containers that run side by side: the regular ones and sidecars (KEP-753)."""
        yield from self.spec.containers or ()
        yield from (c for c in self.spec.init_containers or () if c.restart_policy == "Always")

    def init_containers(self) -> Iterator[Container]:
        """Regular init containers, which end before the others start."""
        yield from (c for c in self.spec.init_containers or () if c.restart_policy != "Always")


def _is_ours(pod: Pod) -> bool:
    annotations = pod.metadata.annotations
    if annotations and (keys.REQUEST in annotations or keys.ASSIGNED in annotations):
        return True
    return any(
        name.startswith(_PREFIX)
        for containers in (pod.spec.containers, pod.spec.init_containers)
        for container in containers or ()
        if container.resources is not None
        for amounts in (container.resources.limits, container.resources.requests)
        for name in amounts or ()
    )
