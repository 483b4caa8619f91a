"""Pods and nodes, decoded straight from the wire to the parts that the extender reads.

The watch keeps one object for each pod of the cluster, so a pod without GPUs keeps only its names.
A node keeps its cards and not the text of its inventory: over 5,000 nodes the links between cards
alone would be tens of MiB.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import chain
from typing import Any, Final

import msgspec
import structlog

from gpu_fraction.domain import inventory, keys, units
from gpu_fraction.domain.asks import Named, amounts_of
from gpu_fraction.domain.placement import CardState, empty
from gpu_fraction.kube.objects import Meta

_log = structlog.get_logger(__name__)


class ObjectMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """Names, annotations and the time of deletion, if any."""

    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class Resources(msgspec.Struct, frozen=True):
    """Requests and limits, quantities as written."""

    limits: dict[str, str] | None = None
    requests: dict[str, str] | None = None

    def all(self) -> dict[str, str]:
        """The requests; a limit without a request counts as one."""
        return {**(self.limits or {}), **(self.requests or {})}


class Port(msgspec.Struct, frozen=True, rename="camel"):
    """A container's port; only the node's port is read."""

    host_port: int | None = None


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container or init container."""

    name: str = ""
    resources: Resources | None = None
    ports: list[Port] | None = None
    restart_policy: str | None = None

    def named(self) -> Named:
        """Its amounts of our resources."""
        return amounts_of(self.resources.limits, self.resources.requests) if self.resources else {}


class Volume(msgspec.Struct, frozen=True, rename="camel"):
    """A volume; only claims are read."""

    persistent_volume_claim: dict[str, Any] | None = None
    ephemeral: dict[str, Any] | None = None


class Affinity(msgspec.Struct, frozen=True, rename="camel"):
    """Rules about other pods; only their presence is read."""

    pod_affinity: dict[str, Any] | None = None
    pod_anti_affinity: dict[str, Any] | None = None


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """The pod's requests and its node."""

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
    """The pod's phase and nominated node."""

    phase: str | None = None
    nominated_node_name: str | None = None


_NO_SPEC: Final = Spec()
_NO_STATUS: Final = Status()


class Pod(msgspec.Struct, frozen=True):
    """A pod.

    Attributes:
        holds_gpu: True where the pod asks for our resources or was given cards.
    """

    metadata: ObjectMeta = ObjectMeta()
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
            # There are few of these names, and each pod would keep a copy.
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

    def depends_on_others(self) -> bool:
        """True if ports, volumes, affinity or spread constraints decide where it fits."""
        spec = self.spec
        affinity = spec.affinity
        return (
            bool(spec.topology_spread_constraints)
            or (affinity is not None and bool(affinity.pod_affinity or affinity.pod_anti_affinity))
            or any(v.persistent_volume_claim or v.ephemeral for v in spec.volumes or ())
            or any(p.host_port for c in spec.containers or () for p in c.ports or ())
        )

    def requests(self, *, with_init: bool) -> Mapping[str, Decimal]:
        """The amount of each resource that it requests.

        Requests of the pod as a whole (KEP-2837) replace the sum of its containers, and overhead
        is added. Source: PodRequests in k8s.io/component-helpers/resource.

        Args:
            with_init: Add the requests of init containers, so that the sum is never too low.
        """
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        initial = self.spec.init_containers if with_init else None
        for container in chain(self.running_containers(), initial or ()):
            for name, text in (container.resources.all() if container.resources else {}).items():
                sums[name] += units.parse_quantity(text)
        whole = self.spec.resources.requests if self.spec.resources else None
        for name, text in (whole or {}).items():
            sums[name] = units.parse_quantity(text)
        for name, text in (self.spec.overhead or {}).items():
            sums[name] += units.parse_quantity(text)
        return sums


def _is_ours(pod: Pod) -> bool:
    annotations = pod.metadata.annotations
    if annotations and (keys.REQUEST in annotations or keys.ASSIGNED in annotations):
        return True
    return any(
        name.startswith(keys.PREFIX)
        for containers in (pod.spec.containers, pod.spec.init_containers)
        for container in containers or ()
        if container.resources is not None
        for amounts in (container.resources.limits, container.resources.requests)
        for name in amounts or ()
    )


class Node(msgspec.Struct, frozen=True):
    """A node.

    Attributes:
        cards: Its cards, empty ones; none where the inventory is missing or unreadable.
        problem: Why there are none; empty where there are some.
    """

    metadata: ObjectMeta = ObjectMeta()
    cards: tuple[CardState, ...] = ()
    problem: str = ""

    def __post_init__(self) -> None:
        text = (self.metadata.annotations or {}).get(keys.INVENTORY)
        cards, problem = read_cards(text)
        if problem and text is not None:
            _log.warning("scheduler.inventory_unusable", node=self.metadata.name, problem=problem)
        bare = msgspec.structs.replace(self.metadata, annotations=None)
        msgspec.structs.force_setattr(self, "metadata", bare)
        msgspec.structs.force_setattr(self, "cards", cards)
        msgspec.structs.force_setattr(self, "problem", problem)


def read_cards(annotation: str | None) -> tuple[tuple[CardState, ...], str]:
    """The cards of an inventory annotation, or why there are none.

    A node with an unreadable inventory has no cards: a guess could give a card to two pods.
    """
    if annotation is None:
        return (), "no GPU inventory (is the node daemon running?)"
    try:
        cards = empty(inventory.parse(annotation).cards)
    except inventory.InventoryError as e:
        return (), f"{keys.INVENTORY} is unreadable: {e}"
    return cards, "" if cards else "no GPU in the node's inventory"
