"""The cluster in memory: the cards of nodes, pods, and the claims of pods on cards.

All of it follows from Node inventories, pods and our own unanswered Bindings. A restart reads the
first two again and forgets the third. No method does I/O or reads a clock.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.placement import Ask, CardState, choose, less
from gpu_fraction.domain.placement.table import ClusterTable
from gpu_fraction.domain.placement.vectorised import Evaluation, evaluate
from gpu_fraction.scheduler.claims import Claim, Claims, Stage
from gpu_fraction.scheduler.model_usage import ModelUsage
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.pod_info import PodInfo, assigned, assignment_problem, info_of

EVALUATIONS_KEPT: Final = 8
"""Cached evaluations of the whole cluster, 9 bytes a node each. Chosen: prioritize needs the one
that filter has just needed; a few more serve pods of several templates that wait in turn."""


class ClusterState:
    """The cluster.

    Attributes:
        claims: The claims of pods on cards; read only.
        model_usage: The usage of GPU models by the claims; read only.
    """

    def __init__(self) -> None:
        """An empty cluster."""
        self.model_usage = ModelUsage()
        self.claims = Claims()
        self._cards: dict[str, tuple[CardState, ...]] = {}
        self._problems: dict[str, str] = {}
        self._pods: dict[str, PodInfo] = {}
        self._nominees: dict[str, dict[str, PodInfo]] = {}
        self._guests: dict[str, dict[str, PodInfo]] = {}
        self._table = ClusterTable()
        self._stale: set[str] = set()
        self._evaluations: dict[object, Evaluation] = {}

    # Nodes

    def node_changed(self, name: str, cards: tuple[CardState, ...], problem: str = "") -> None:
        """Replace a node's cards, or the reason why it has none."""
        if self._cards.get(name) == cards and self._problems.get(name, "") == problem:
            return
        self._cards.pop(name, None)
        self._problems.pop(name, None)
        if cards:
            self._cards[name] = cards
        elif problem:
            self._problems[name] = problem
        if self.model_usage.set_cards(name, cards):
            for claim in list(self.claims.of_node(name)):
                self._put(claim)
        self._stale.add(name)

    def node_removed(self, name: str) -> None:
        """Forget a node but not the claims on it: the node can return with its pods."""
        self.node_changed(name, ())

    def node_problem(self, name: str) -> str:
        """Why the node has no cards."""
        if name in self._cards and (unread := self._unread(name, ())):
            return unread
        return self._problems.get(name, "no such node is known yet")

    def nodes(self) -> Collection[str]:
        """Names of the nodes that have cards."""
        return self._cards.keys()

    # Pods

    def info(self, pod: Pod) -> PodInfo:
        """The info of a pod, taken from the watch if the watch has the same version."""
        known = self._pods.get(pod.metadata.uid)
        version = pod.metadata.resource_version
        if known is not None and version and known.pod.metadata.resource_version == version:
            return known
        return info_of(pod)

    def pod_changed(self, pod: Pod) -> None:
        """Add or replace a pod that the watch shows."""
        info = info_of(pod)
        self._unlist(info.uid)
        if info.finished or not pod.holds_gpu:
            self.pod_removed(info.uid)
            return
        self._pods[info.uid] = info
        if info.node:
            self._bound(info)
        elif info.nominated:
            self._nominees.setdefault(info.nominated, {})[info.uid] = info
        self._update_waiting(info.uid)

    def pod_removed(self, uid: str) -> None:
        """Forget a pod that is gone, with its claims."""
        self._unlist(uid)
        self._pods.pop(uid, None)
        for claim in self.claims.of_pod(uid):
            self._drop(claim)
        self._update_waiting(uid)

    def pod(self, uid: str) -> PodInfo | None:
        """A pod that asks for cards or holds some."""
        return self._pods.get(uid)

    def pods_on(self, node: str) -> Iterator[PodInfo]:
        """Pods that hold cards of the node, or for which its node daemon is choosing cards."""
        held = {claim.uid for claim in self.claims.of_node(node)}
        for uid in sorted(held | self._guests.get(node, {}).keys()):
            info = self._pods.get(uid)
            if info is not None:
                yield info

    def _bound(self, info: PodInfo) -> None:
        for claim in self.claims.of_pod(info.uid):
            if claim.node != info.node:
                self._drop(claim)
        cards = assigned(info)
        known = self.claims.get(info.uid, info.node)
        if cards is None and known is not None:
            cards = known.assignment
        if cards is not None:
            self._put(_claim(info, info.node, cards, Stage.SEEN))
        elif info.asks or assignment_problem(info):
            self._guests.setdefault(info.node, {})[info.uid] = info
        if known is None or known.assignment != cards:
            self._stale.add(info.node)

    def _unlist(self, uid: str) -> None:
        old = self._pods.get(uid)
        if old is None:
            return
        for listing, node in ((self._nominees, old.nominated), (self._guests, old.node)):
            if uid in listing.get(node, {}):
                del listing[node][uid]
                self._stale.add(node)
                if not listing[node]:
                    del listing[node]

    def _drop(self, claim: Claim) -> None:
        if self.claims.drop(claim.uid, claim.node):
            self.model_usage.drop(claim)
            self._update_waiting(claim.uid)
            self._stale.add(claim.node)

    def _put(self, claim: Claim) -> None:
        old = self.claims.get(claim.uid, claim.node)
        self.claims.put(self.model_usage.put(claim, old))
        if old is None:
            self._update_waiting(claim.uid)

    def _update_waiting(self, uid: str) -> None:
        info = self._pods.get(uid)
        if info is not None and (not info.charged_early or not info.asks or info.leaving):
            info = None
        self.model_usage.set_waiting(uid, None if self.claims.of_pod(uid) else info)

    # Bindings

    def send(self, info: PodInfo, node: str, cards: Assignment, now_s: float) -> None:
        """Claim cards for a Binding that is about to be sent; the pod is not known to be bound."""
        known = self.claims.get(info.uid, node)
        doubt = known is not None and known.in_doubt
        claim = _claim(info, node, cards, Stage.SENT)
        self._put(replace(claim, since_s=now_s, in_doubt=doubt))
        self._stale.add(node)

    def accepted(self, uid: str, node: str, now_s: float) -> None:
        """The API server bound the pod."""
        claim = self.claims.get(uid, node)
        if claim is not None and claim.stage is not Stage.SEEN:
            self._put(replace(claim, stage=Stage.BOUND, since_s=now_s, in_doubt=False))

    def refused(self, uid: str, node: str) -> None:
        """The API server refused the Binding; the claim stays if an earlier one is in doubt."""
        claim = self.claims.get(uid, node)
        if claim is not None and claim.stage is Stage.SENT and not claim.in_doubt:
            self._drop(claim)

    def lost(self, uid: str, node: str, now_s: float) -> None:
        """No answer arrived: the Binding may still take effect."""
        claim = self.claims.get(uid, node)
        if claim is not None and claim.stage is Stage.SENT:
            self._put(replace(claim, stage=Stage.SENT, since_s=now_s, in_doubt=True))

    def verified(self, claim: Claim, found: Pod | None, now_s: float) -> None:
        """Update a claim by a read that reflects every finished write.

        Args:
            claim: The claim, old enough that no Binding is on its way.
            found: The pod that has the name now; None where there is none.
            now_s: Clock reading.
        """
        current = self.claims.get(claim.uid, claim.node)
        if current is not claim:
            return
        if found is None or found.metadata.uid != claim.uid:
            self.pod_removed(claim.uid)
        elif (info := info_of(found)).node != claim.node or info.finished:
            self._drop(claim)
        elif claim.stage is not Stage.SEEN:  # the watch has newer facts about a seen pod
            cards = assigned(info) or claim.assignment
            step = replace(claim, stage=Stage.BOUND, since_s=now_s, in_doubt=False)
            self._put(replace(step, assignment=cards))
            self._stale.add(claim.node)

    # Cards

    def cards(self, node: str) -> tuple[CardState, ...]:
        """The node's cards with their free amounts."""
        table = self.table()
        column = table.columns.get(node)
        return () if column is None else table.cards[column]

    def table(self) -> ClusterTable:
        """All cards, up to date."""
        for node in self._stale:
            if cards := self.without(node, ()):
                self._table.set_node(node, cards)
            else:
                self._table.remove_node(node)
        self._stale.clear()
        return self._table

    def evaluate(self, asks: tuple[Ask, ...], barred: Mapping[str, str]) -> Evaluation:
        """``vectorised.evaluate``, cached until a card changes.

        The scheduler asks twice about each pod, and often about equal pods in turn.
        """
        table = self.table()
        # The reasons in ``barred`` change with every pod; only the names decide which cards fit.
        key = (table.version, asks, tuple(sorted(barred)))
        known = self._evaluations.get(key)
        if known is None:
            if len(self._evaluations) == EVALUATIONS_KEPT:
                del self._evaluations[next(iter(self._evaluations))]
            known = self._evaluations[key] = evaluate(table, asks, barred)
        return known

    def special_nodes(self, info: PodInfo) -> set[str]:
        """Nodes on which ``cards_for`` differs from ``cards`` for this pod."""
        nominated = {node for node in self._nominees if any(self._rivals(info, node))}
        return nominated | {claim.node for claim in self.claims.of_pod(info.uid)}

    def cards_for(
        self, info: PodInfo, node: str, gone: Collection[str] = ()
    ) -> tuple[CardState, ...]:
        """The node's cards that this pod may use, once the pods in ``gone`` have ended.

        Its own claims count as free. Cards that preemption frees for a pod of the same or a
        higher priority are kept for that pod.
        """
        without = {info.uid, *gone}
        cards = self.without(node, without)
        rivals = sorted(self._rivals(info, node), key=lambda rival: (-rival.priority, rival.uid))
        if not rivals:
            return cards
        freed = self.without(node, without | {p.uid for p in self.pods_on(node) if p.leaving})
        for rival in rivals:
            placed = choose(freed, rival.asks)
            if placed is not None:
                freed = less(freed, [placed.assignment])
                cards = less(cards, [placed.assignment])
        return cards

    def without(self, node: str, uids: Collection[str]) -> tuple[CardState, ...]:
        """The node's cards if these pods held nothing."""
        if self._unread(node, uids):
            return ()
        claims = self.claims.of_node(node)
        held = (claim.assignment for claim in claims if claim.uid not in uids)
        cards = less(self._cards.get(node, ()), held)
        for guest in self._guests.get(node, {}).values():
            # The node daemon chooses by the same rules, so it takes these cards.
            placed = None if guest.uid in uids else choose(cards, guest.asks)
            if placed is not None:
                cards = less(cards, [placed.assignment])
        return cards

    def _unread(self, node: str, uids: Collection[str]) -> str:
        """Why no card of the node can be given: which ones a pod has is unknown; empty if known.

        A guess could give a card to two pods.
        """
        found = (
            assignment_problem(g) for g in self._guests.get(node, {}).values() if g.uid not in uids
        )
        return next(filter(None, found), "")

    def _rivals(self, info: PodInfo, node: str) -> Iterator[PodInfo]:
        """Other pods for which free cards of the node are kept."""
        for rival in self._nominees.get(node, {}).values():
            if rival.uid == info.uid or rival.priority < info.priority or not rival.asks:
                continue
            claims = self.claims.of_pod(rival.uid)
            # A claim here holds the cards; one on another node ends the wait once it is accepted.
            if not any(claim.node == node or claim.stage is not Stage.SENT for claim in claims):
                yield rival


def _claim(info: PodInfo, node: str, cards: Assignment, stage: Stage) -> Claim:
    names = info.uid, info.namespace, info.name
    return Claim(*names, node, cards, stage, priority_class=info.priority_class)
