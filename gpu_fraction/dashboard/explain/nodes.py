"""Which nodes could take a pod's shares, and what stands in the way on each."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gpu_fraction.dashboard.cluster import Cluster, NodeView
from gpu_fraction.dashboard.dra_objects import DeviceSlice
from gpu_fraction.dashboard.explain.selectors import allowed
from gpu_fraction.dashboard.objects import PodSpec, Taint
from gpu_fraction.domain import dra, keys, units
from gpu_fraction.domain.asks import Ask, amounts_of
from gpu_fraction.domain.placement import (
    CardState,
    Placed,
    Refusal,
    choose,
    empty,
    explain,
    refusal,
)
from gpu_fraction.domain.pod import Toleration
from gpu_fraction.domain.units import MILLI

_SUMS: Final = "resource-short"
"""The cause that another amount would remove."""

Barriers = tuple[tuple[str, str], ...]
"""Causes that keep a pod off a node, whatever its cards, each with what was seen."""

_NOT_READY: Final = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
_CORDONED: Final = "node.kubernetes.io/unschedulable"
"""Taints that controllers set. Source: kubernetes.io, Taints and Tolerations."""


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """One node, for one pod.

    Attributes:
        node: The node.
        barriers: What keeps the pod off it, beside its cards.
        placed: The cards that it would get now; None where they do not fit.
        healed: Whether it would fit if sick cards were well.
        alone: Whether it would fit if no other pod held a card.
        nearest: Of the first ask that does not fit, the refusal of the card that came nearest;
            None where it fits, or where only the number of cards is too small.
        text: All cards, one line.
        most_milli: The largest share of each card that the node's sums leave to a pod of one
            container, thousandths.
    """

    node: NodeView
    barriers: Barriers
    placed: Placed | None
    healed: bool
    alone: bool
    nearest: Refusal | None
    text: str
    most_milli: int = MILLI

    @property
    def room(self) -> bool:
        """Whether the pod could start there now."""
        return self.placed is not None and not self.barriers


def verdicts(
    cluster: Cluster,
    spec: PodSpec,
    asks: Sequence[Ask],
    *,
    backend: str,
    devices: Iterable[DeviceSlice] | None = None,
) -> tuple[NodeVerdict, ...]:
    """What each node with cards says.

    Args:
        cluster: Nodes, and what is given of their cards.
        spec: The pod's, for tolerations and the node selector.
        asks: What it asks, at least one.
        backend: ``native`` or ``dra``.
        devices: The ResourceSlices; None where they were not read.
    """
    published = None
    if devices is not None:
        published = {
            one.spec.node_name or one.spec.pool.name
            for one in devices
            if one.spec.driver == dra.DRIVER
        }
    wanted, taken = _booked(spec), _taken(cluster)
    found = []
    for node in cluster.nodes:
        if _of_other(node, backend, published or ()):
            continue
        free = _free(node, wanted, taken.get(node.name, {}))
        barriers = (*_barriers(node, spec, backend, published), *_short(node, wanted, free))
        most_milli = _most(asks[0], wanted, free)
        found.append(replace(_verdict(node, asks, barriers), most_milli=most_milli))
    return tuple(found)


def _booked(spec: PodSpec) -> Counter[str]:
    """What the scheduler and the kubelet count of our resources."""
    found = Counter[str]()
    for one in (*spec.containers, *(spec.init_containers or ())):
        if one.resources is not None:
            found.update(amounts_of(one.resources.limits, one.resources.requests))
    return found


def _taken(cluster: Cluster) -> Mapping[str, Counter[str]]:
    """The same of all pods, by node."""
    found: dict[str, Counter[str]] = {}
    for view in cluster.pods:
        if view.node and view.state != "finished":
            found.setdefault(view.node, Counter()).update(_booked(view.pod.spec))
    return found


def _free(node: NodeView, wanted: Iterable[str], taken: Mapping[str, int]) -> Mapping[str, int]:
    """What the node's sums leave of the resources that it offers.

    A share is booked in MiB of the card that the webhook expected.
    """
    offered = node.node.status.allocatable or {}
    return {
        name: max(0, units.whole_amount(offered[name]) - taken.get(name, 0))
        for name in wanted
        if positive(offered.get(name))
    }


def _short(
    node: NodeView, wanted: Mapping[str, int], free: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Sums of the node that are too small, although a card may have room."""
    offered = node.node.status.allocatable or {}
    for name, left in free.items():
        if wanted[name] > left:
            yield _SUMS, f"{name}: {left} free of {offered[name]}, {wanted[name]} asked"


def _most(ask: Ask, wanted: Mapping[str, int], free: Mapping[str, int]) -> int:
    """The largest share of each card whose amounts the sums have; one in MiB is not scaled."""
    shares = {keys.CORE_MILLI: ask.core_milli, keys.MEMORY_MIB: ask.memory_milli}
    most_milli = MILLI
    for name, left in free.items():
        if share := shares.get(name):
            most_milli = min(most_milli, share * left // max(1, wanted[name]))
        elif wanted[name] > left:
            return 0
    return most_milli


def _of_other(node: NodeView, backend: str, published: Container[str]) -> bool:
    """Whether the node's cards are given out by the other one of our two stacks."""
    slots = (node.node.status.allocatable or {}).get(keys.SLOT)
    if backend == "dra":
        return slots is not None and node.name not in published
    return slots is None and node.name in published


def _verdict(node: NodeView, asks: Sequence[Ask], barriers: Barriers) -> NodeVerdict:
    cards = node.states
    placed = choose(cards, asks) if cards else None
    nearest = None
    if placed is None and cards:
        nearest = _nearest(cards, asks)
    return NodeVerdict(
        node,
        barriers,
        placed,
        healed=placed is not None or choose([_healed(card) for card in cards], asks) is not None,
        alone=choose(empty(one.card for one in node.cards), asks) is not None,
        nearest=nearest,
        text="" if placed is not None else explain(cards, asks),
    )


def _healed(card: CardState) -> CardState:
    return replace(card, kind=replace(card.kind, health=""))


def _nearest(cards: Sequence[CardState], asks: Sequence[Ask]) -> Refusal | None:
    for ask in asks:
        refusals = [refusal(ask, card) for card in cards]
        if refusals.count(None) >= ask.cards:
            continue
        told = [(one, _room(card)) for one, card in zip(refusals, cards, strict=True) if one]
        if len(told) < len(cards):
            return None
        return max(told, key=lambda one: (one[0].why, one[1]), default=(None, ()))[0]
    return None


def _room(card: CardState) -> tuple[int, int]:
    return card.free_memory_mib, card.free_core_milli


def most_room(node: NodeView) -> tuple[int, int]:
    """Free MiB and milli-cores of the healthy card that has most; 0 without one."""
    return max((_room(c) for c in node.states if not c.kind.health), default=(0, 0))


def _barriers(
    node: NodeView, spec: PodSpec, backend: str, published: set[str] | None
) -> Iterator[tuple[str, str]]:
    if node.problem:
        yield "daemon-down", node.problem
    if node.node.metadata.name:
        yield from _closed(node, spec)
        yield from _selector(node, spec)
    offered = node.node.status.allocatable
    well = any(not card.state.kind.health for card in node.cards)  # the sick offer no slots
    silent = offered is not None and well and not positive(offered.get(keys.SLOT))
    if backend == keys.NATIVE and offered is not None and silent:
        yield (
            "daemon-down",
            f"status.allocatable[{keys.SLOT}] is {offered.get(keys.SLOT, 'absent')}",
        )
    if backend == "dra" and published is not None and node.name not in published:
        yield "daemon-down", f"no ResourceSlice of the driver {dra.DRIVER}"


def positive(amount: str | None) -> bool:
    """Whether a node offers anything."""
    return amount not in (None, "", "0")


def _closed(node: NodeView, spec: PodSpec) -> Iterator[tuple[str, str]]:
    taints = node.node.spec.taints or ()
    if node.node.spec.unschedulable:
        yield "node-cordoned", "spec.unschedulable is true"
    if not node.node.ready or any(taint.key in _NOT_READY for taint in taints):
        ready = next((c for c in node.node.status.conditions or () if c.type == "Ready"), None)
        yield "node-not-ready", f"condition Ready: {ready.message if ready else 'absent'}".strip()
    for taint in taints:
        if taint.key in {_CORDONED, *_NOT_READY} or taint.effect == "PreferNoSchedule":
            continue
        if not any(_tolerates(one, taint) for one in spec.tolerations or ()):
            yield (
                "node-tainted",
                f"taint {taint.key}={taint.value}:{taint.effect}".replace("=:", ":"),
            )


def _tolerates(one: Toleration, taint: Taint) -> bool:
    """Source: k8s.io/api core/v1, Toleration.ToleratesTaint."""
    if one.effect not in ("", taint.effect) or one.key not in ("", taint.key):
        return False
    return one.operator == "Exists" or (one.key == taint.key and one.value == taint.value)


def _selector(node: NodeView, spec: PodSpec) -> Iterator[tuple[str, str]]:
    labels = node.node.metadata.labels or {}
    for key, value in (spec.node_selector or {}).items():
        if labels.get(key) != value:
            yield "node-selector", f"label {key} is {labels.get(key, 'absent')}, wanted {value}"
    if not allowed(spec.affinity, node.name, labels):
        yield "node-selector", "no term of the pod's spec.affinity.nodeAffinity matches it"


def not_chosen(verdict: NodeVerdict) -> NodeVerdict:
    """The verdict with nothing but the pod's own choice of nodes."""
    kept = tuple(one for one in verdict.barriers if one[0] == "node-selector")
    return replace(verdict, barriers=kept)


def scaled(ask: Ask, milli: int) -> Ask:
    """The ask with another share of each card, 1 to 1000 thousandths."""
    return replace(ask, core_milli=milli, memory_mib=None, memory_milli=milli, most_mib=None)


def largest_share(
    found: Iterable[NodeVerdict], asks: Sequence[Ask]
) -> tuple[int, NodeVerdict | None]:
    """The largest share of each card that a pod of one container could have now, thousandths.

    0 where there is none, and for a pod of several containers, whose shares hang together.
    """
    best, where = 0, None
    for verdict in found if len(asks) == 1 else ():
        if any(name != _SUMS for name, _ in verdict.barriers):
            continue
        low, high = best, verdict.most_milli
        while low < high:  # what fits is every share up to one
            middle = (low + high + 1) // 2
            if choose(verdict.node.states, [scaled(asks[0], middle)]) is not None:
                low, where = middle, verdict
            else:
                high = middle - 1
        best = low
    return best, where


def card_names(placed: Placed, node: NodeView) -> str:
    """``card 1 (GPU-…) of node n1``, for each card."""
    index: Mapping[str, int] = {view.card.uuid: view.card.index for view in node.cards}
    uuids = dict.fromkeys(share.uuid for shares in placed.assignment.values() for share in shares)
    cards = ", ".join(f"card {index.get(uuid, '?')} ({uuid})" for uuid in uuids)
    return f"{cards} of node {node.name}"
