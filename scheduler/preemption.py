"""Which pods must go so that a pod of higher priority finds its cards on a node.

The scheduler's own dry run adds up a node; two half cards look like a whole one to it. So its
victims may free no card at all, where others would. It accepts any pods of the node as
victims, so its proposal is replaced by the fewest pods that free cards, and among as few by
those of the lowest priority.

What cards cannot tell is left as proposed: victims without GPU work stay, and where ports,
volumes or affinity are in play, or another resource would come up short, the proposal is only
added to.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import inf
from typing import Final

import structlog

from gpu_fraction.domain.placement import (
    NOTHING_BARRED,
    Ask,
    CardState,
    choose,
    refusal,
    share_of,
)
from gpu_fraction.scheduler.claims import Stage
from gpu_fraction.scheduler.clearing import Amounts, Holder, cleared, rank
from gpu_fraction.scheduler.needs import Requests, entangled, requested
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.views import PodView

_log = structlog.get_logger(__name__)

WORK_S: Final = 10.0
"""Seconds of search for one call of the scheduler. Chosen: half of the httpTimeout in its
configuration, for no other pod is scheduled meanwhile; a node of finely sliced cards takes some
tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the scheduler would evict from a node.

    Attributes:
        uids: The victims, highest priority first: the scheduler compares nodes by the first.
        violations: How many of them a PodDisruptionBudget protects, as far as is known.
    """

    uids: tuple[str, ...]
    violations: int = 0


def victims(
    state: ClusterState,
    preemptor: PodView,
    node: str,
    proposal: Proposal,
    barred: Mapping[str, str] = NOTHING_BARRED,
) -> Proposal | None:
    """The pods to evict from the node instead; None where evicting does not help.

    Args:
        state: The cluster.
        preemptor: The pod in need.
        node: The node.
        proposal: The scheduler's victims, at least one.
        barred: Product name to the reason why the preemptor may not use it now.
    """
    if preemptor.problem:
        return None
    if not preemptor.asks:
        return proposal
    proposed = frozenset(proposal.uids)
    search = _Search(state, preemptor, node, proposed, barred)
    if not search.helps(search.pool.keys() | proposed):
        return None
    chosen = search.added() if search.tied() else search.fewest()
    if not chosen:
        # Pods that are already on their way out free the cards; evicting them again is void.
        return proposal if search.helps(proposed) else None
    # Whether a budget protects the others is not known here. The scheduler compares nodes by
    # violations before priorities, so only what it counted itself is answered.
    kept = min(proposal.violations, len(chosen & proposed))
    return Proposal(_by_importance(state, chosen, proposal), kept)


async def victims_by_node(
    state: ClusterState,
    preemptor: PodView,
    proposals: Mapping[str, Proposal],
    barred: Mapping[str, str] = NOTHING_BARRED,
    *,
    work_s: float = WORK_S,
) -> dict[str, Proposal]:
    """The pods to evict on each node where evicting helps.

    At least one node is judged, and as many as there is time for.

    Args:
        state: The cluster.
        preemptor: The pod in need.
        proposals: The scheduler's victims by node.
        barred: Product name to the reason why the preemptor may not use it now.
        work_s: Seconds after which no further node is begun.
    """
    now_s = asyncio.get_running_loop().time
    end_s = now_s() + work_s
    answer: dict[str, Proposal] = {}
    for judged, (node, proposal) in enumerate(proposals.items()):
        if judged and now_s() >= end_s:
            _log.warning("scheduler.preempt_cut_short", nodes=len(proposals), judged=judged)
            break
        found = victims(state, preemptor, node, proposal, barred)
        if found is not None:
            answer[node] = found
        # Nodes can be many; other calls get their turn in between.
        await asyncio.sleep(0)
    return answer


class _Search:
    """The search on one node.

    Attributes:
        pool: Pods of lower priority that hold cards of the node.
    """

    def __init__(
        self,
        state: ClusterState,
        preemptor: PodView,
        node: str,
        proposed: frozenset[str],
        barred: Mapping[str, str],
    ) -> None:
        self._state = state
        self._preemptor = preemptor
        self._node = node
        self._proposed = proposed
        self._barred = barred
        lower = [view for view in state.pods_on(node) if view.priority < preemptor.priority]
        self.pool = {view.uid: view for view in lower if self._seen(view)}
        self._leaving = {uid for uid, view in self.pool.items() if view.leaving}

    def _seen(self, view: PodView) -> bool:
        """The scheduler refuses victims that it does not see on the node."""
        claim = self._state.claims.get(view.uid, self._node)
        return claim is not None and claim.stage is Stage.SEEN

    def helps(self, gone: Collection[str]) -> bool:
        """True where the pod fits once these pods, and those on their way out, are gone."""
        cards = self._state.cards_for(self._preemptor, self._node, {*gone, *self._leaving})
        return choose(cards, self._preemptor.asks, self._barred) is not None

    def tied(self) -> bool:
        """True where the pods involved meet in more than resources."""
        involved = [self.pool[uid] for uid in self._proposed if uid in self.pool]
        return any(entangled(view) for view in (self._preemptor, *involved))

    def added(self) -> frozenset[str]:
        """The whole proposal and what it lacks."""
        return self._spared(self.pool.keys() - self._proposed, self._proposed)

    def fewest(self) -> frozenset[str]:
        """The fewest pods of the pool, beside the proposal's pods without GPU work."""
        others = self._proposed - self.pool.keys()
        candidates = self.pool.keys() - self._leaving
        asks = self._preemptor.asks
        chosen = self._by_card(asks[0]) if len(asks) == 1 else None
        if chosen is None or not self.helps(chosen | others):
            chosen = self._spared(candidates, others) - others
        for uid in self._by_priority(self._proposed & candidates):
            if self._enough(chosen):
                break
            chosen |= {uid}
        return chosen | others

    def _by_card(self, ask: Ask) -> frozenset[str] | None:
        """The cheapest cards to clear for a single container."""
        cards = self._state.cards_for(self._preemptor, self._node, self._leaving)
        clearings = (self._clearing(ask, card) for card in cards)
        ranks = sorted(rank(holders) for holders in clearings if holders is not None)
        if len(ranks) < ask.cards:
            return None
        return frozenset(uid for *_, uids in ranks[: ask.cards] for uid in uids)

    def _clearing(self, ask: Ask, card: CardState) -> Sequence[Holder] | None:
        """The pods whose end lets one card serve the ask."""
        found = refusal(ask, card, self._barred)
        if found is not None and not found.why.passes:
            return None
        need = share_of(ask, card.kind)
        short = (
            need.core_milli - card.free_core_milli,
            need.memory_mib - card.free_memory_mib,
            1 - card.free_slots,
        )
        return cleared(short, self._holders.get(card.uuid, ()))

    @cached_property
    def _holders(self) -> Mapping[str, Sequence[Holder]]:
        """By card, the pods that may be evicted from it."""
        holders: defaultdict[str, list[Holder]] = defaultdict(list)
        for uid, view in self.pool.items():
            claim = None if uid in self._leaving else self._state.claims.get(uid, self._node)
            held: dict[str, Amounts] = {}
            for share in chain.from_iterable(claim.assignment.values() if claim else ()):
                core_milli, memory_mib, slots = held.get(share.uuid, (0, 0, 0))
                core_milli, memory_mib = (
                    core_milli + share.core_milli,
                    memory_mib + share.memory_mib,
                )
                held[share.uuid] = core_milli, memory_mib, slots + 1
            added = uid not in self._proposed
            for card, amounts in held.items():
                holders[card].append(Holder(view.priority, added, uid, amounts))
        return holders

    def _spared(self, candidates: Iterable[str], always: frozenset[str]) -> frozenset[str]:
        """All candidates but those that may stay, the highest priority spared first."""
        gone = frozenset(candidates) | always
        for uid in reversed(self._by_priority(gone - always)):
            if self.helps(gone - {uid}):
                gone -= {uid}
        return gone

    def _by_priority(self, uids: Iterable[str]) -> list[str]:
        return sorted(uids, key=lambda uid: (self.pool[uid].priority, uid))

    def _enough(self, chosen: Collection[str]) -> bool:
        """True where the other resources do not come up short.

        They do not where as much is freed as the pod asks for, or as the proposal would free.
        """
        freed = requested(self.pool[uid] for uid in chosen)
        return all(
            freed.get(name, 0) >= min(asked, self._proposed_frees.get(name, 0))
            for name, asked in requested([self._preemptor], with_init=True).items()
        )

    @cached_property
    def _proposed_frees(self) -> Requests:
        return requested(self.pool[uid] for uid in self._proposed if uid in self.pool)


def _by_importance(
    state: ClusterState, chosen: Collection[str], proposal: Proposal
) -> tuple[str, ...]:
    """The chosen pods, highest priority first.

    The priority of pods without GPU work is not known here. The proposal is sorted, so each of
    them is at most as important as the pod before it.
    """
    ranks: dict[str, float] = {}
    at_most = inf
    for uid in proposal.uids:
        view = state.pod(uid)
        at_most = ranks[uid] = at_most if view is None else view.priority
    for uid in sorted(set(chosen) - ranks.keys()):
        view = state.pod(uid)
        ranks[uid] = -inf if view is None else view.priority
    return tuple(sorted((uid for uid in ranks if uid in chosen), key=lambda uid: -ranks[uid]))
