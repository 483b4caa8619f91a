"""A snapshot as nodes, cards, slices, pods and quotas. No I/O and no clock."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from gpu_fraction.dashboard import objects
from gpu_fraction.dashboard.cards import CardView, Total, total
from gpu_fraction.dashboard.devices import cards_of, uuids_of
from gpu_fraction.dashboard.pods import PodView, Slice, assigned_slices, claim_slices
from gpu_fraction.dashboard.quotas import QuotaView, quota_view
from gpu_fraction.dashboard.snapshot import Gap, Snapshot
from gpu_fraction.domain import inventory, keys
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.domain.placement import CardState, empty
from gpu_fraction.kube.resources import RESOURCE_SLICES

MISSING: Final = "no GPU inventory (is the node daemon running?)"
"""The problem of a node that offers our resources, but whose cards are not known."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node with cards, or one that should have some.

    Attributes:
        name: Its name.
        node: The decoded object; empty where nodes may not be read and the cards come from
            ResourceSlices.
        inventory: What its daemon wrote; None where that is missing or unreadable.
        problem: Why it has no cards; empty where it has some.
        cards: Its cards, in index order.
    """

    name: str
    node: objects.Node
    inventory: Inventory | None
    problem: str
    cards: tuple[CardView, ...]

    @property
    def closed(self) -> str:
        """Why no pod is placed on it now; empty where pods are."""
        return _closed(self.node)

    @property
    def states(self) -> tuple[CardState, ...]:
        """The cards as ``domain.placement.choose`` takes them."""
        return tuple(view.state for view in self.cards)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that views show.

    Attributes:
        nodes: Nodes with cards, and those that should have some, by name.
        pods: GPU pods of every stack, by namespace and name.
        own_pods: The product's own pods.
        quotas: GPUQuotas, by namespace and name.
        strays: Slices of cards that no known node has; of all, where nodes may not be read.
        gaps: What could not be read; ResourceSlices count only where nodes cannot be read either.
        pods_known: True where every pod was read, so that free amounts are right.
    """

    nodes: tuple[NodeView, ...]
    pods: tuple[PodView, ...]
    own_pods: tuple[objects.Pod, ...]
    quotas: tuple[QuotaView, ...]
    strays: tuple[Slice, ...]
    gaps: tuple[Gap, ...]
    pods_known: bool

    @property
    def cards(self) -> tuple[CardView, ...]:
        """All cards, by node and index."""
        return tuple(view for node in self.nodes for view in node.cards)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All slices of known cards."""
        return tuple(one for view in self.cards for one in view.slices)

    @property
    def waiting(self) -> tuple[PodView, ...]:
        """Pods that are on no node, oldest first."""
        found = [view for view in self.pods if view.state == "waiting"]
        return tuple(sorted(found, key=lambda v: v.pod.metadata.creation_timestamp or ""))

    def node(self, name: str) -> NodeView | None:
        """One node."""
        return next((view for view in self.nodes if view.name == name), None)

    def pod(self, namespace: str, name: str) -> PodView | None:
        """One pod."""
        wanted = namespace, name
        return next((view for view in self.pods if (view.namespace, view.name) == wanted), None)

    def quotas_of(self, namespace: str) -> tuple[QuotaView, ...]:
        """The quotas of a namespace."""
        return tuple(view for view in self.quotas if view.namespace == namespace)

    def by_model(self) -> Mapping[str, Total]:
        """The sums by product name, sorted."""
        ordered = sorted(self.cards, key=lambda view: view.card.model)
        return {m: total(found) for m, found in groupby(ordered, lambda view: view.card.model)}


def view(snapshot: Snapshot) -> Cluster:
    """The cluster of a snapshot; never raises, because annotations may hold anything."""
    found = {node.name: node for node in _nodes(snapshot)}
    slices = tuple(_slices(snapshot, [one.card for node in found.values() for one in node.cards]))
    by_card: dict[tuple[str, str], list[Slice]] = {}
    by_pod: dict[str, list[Slice]] = {}
    for one in slices:
        by_card.setdefault((one.node, one.uuid), []).append(one)
        by_pod.setdefault(one.uid, []).append(one)
    nodes = tuple(_filled(found[name], by_card) for name in sorted(found))
    known = {(card.node, card.card.uuid) for node in nodes for card in node.cards}
    pods = [
        PodView(pod, tuple(by_pod.get(pod.metadata.uid, ())))
        for pod in snapshot.pods.items
        if pod.gpu
    ]
    quotas = map(quota_view, snapshot.quotas.items)
    return Cluster(
        nodes=nodes,
        pods=tuple(sorted(pods, key=lambda one: (one.namespace, one.name))),
        own_pods=tuple(pod for pod in snapshot.pods.items if pod.product),
        quotas=tuple(sorted(quotas, key=lambda quota: (quota.namespace, quota.name))),
        strays=tuple(one for one in slices if (one.node, one.uuid) not in known),
        gaps=tuple(
            gap
            for gap in snapshot.gaps
            if gap.what != RESOURCE_SLICES.plural or not snapshot.nodes.read
        ),
        pods_known=snapshot.pods.whole and snapshot.claims.whole,
    )


def _nodes(snapshot: Snapshot) -> Iterator[NodeView]:
    devices = cards_of(snapshot.devices.items)
    for node in snapshot.nodes.items:
        name = node.metadata.name
        found, problem = _inventory(node)
        cards = found.cards if found else devices.get(name, ())
        if cards or problem or _expected(node):
            yield _node(name, node, found, problem or ("" if cards else MISSING), cards)
    if not snapshot.nodes.read:
        for name, cards in devices.items():
            yield _node(name, objects.Node(), None, "", cards)


def _node(
    name: str, node: objects.Node, found: Inventory | None, problem: str, cards: Sequence[Card]
) -> NodeView:
    why = _closed(node)
    views = tuple(
        CardView(name, card, state, closed=state.kind.health or why)
        for card, state in zip(cards, empty(cards), strict=True)
    )
    return NodeView(name, node, found, problem, views)


def _inventory(node: objects.Node) -> tuple[Inventory | None, str]:
    text = (node.metadata.annotations or {}).get(keys.INVENTORY)
    if text is None:
        return None, ""
    try:
        found = inventory.parse(text)
    except inventory.InventoryError as e:
        return None, f"{keys.INVENTORY} is unreadable: {e}"
    return found, "" if found.cards else "no GPU in the inventory"


def _expected(node: objects.Node) -> bool:
    """Whether a node without an inventory offers our resources or carries our labels."""
    ours = (node.metadata.labels or {}, node.status.capacity or {})
    return any(name.startswith(keys.PREFIX) for names in ours for name in names)


def _closed(node: objects.Node) -> str:
    if node.spec.unschedulable:
        return "cordoned"
    return "" if node.ready or not node.metadata.name else "node not ready"


def _slices(snapshot: Snapshot, cards: Iterable[Card]) -> Iterator[Slice]:
    pods = {pod.metadata.uid: pod for pod in snapshot.pods.items}
    for pod in pods.values():
        yield from assigned_slices(pod)
    uuids = uuids_of(snapshot.devices.items)
    known = {card.uuid.lower(): card for card in cards}
    for claim in snapshot.claims.items:
        yield from claim_slices(claim, pods, uuids, known)


def _filled(node: NodeView, by_card: Mapping[tuple[str, str], Sequence[Slice]]) -> NodeView:
    return replace(node, cards=tuple(_given(one, by_card) for one in node.cards))


def _given(one: CardView, by_card: Mapping[tuple[str, str], Sequence[Slice]]) -> CardView:
    taken = tuple(by_card.get((one.node, one.card.uuid), ()))
    state = one.state.drawn(
        sum(part.core_milli for part in taken), sum(part.memory_mib for part in taken), len(taken)
    )
    return replace(one, state=state, slices=taken)
