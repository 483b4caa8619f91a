"""The pods to evict from a node so that its cards fit a pod of higher priority.

The scheduler's own dry run adds up a node, so two half cards look like a whole one to it, and its
victims may free no card. It accepts any pods of the node as victims, so its proposal is replaced
by the fewest pods that free cards, and among as few by those of the lowest priority.

The proposal is only extended where cards do not decide alone: victims without GPU work stay, and
so do all victims where ports, volumes or affinity are involved or another resource would be short.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from math import inf
from typing import Final

import structlog

from gpu_fraction.domain import keys
from gpu_fraction.domain.placement import (
    NOTHING_BARRED,
    Ask,
    CardState,
    choose,
    held,
    refusal,
    share_of,
)
from gpu_fraction.scheduler.claims import Stage
from gpu_fraction.scheduler.pod_info import PodInfo
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.victims import Holder, fewest, rank

_log = structlog.get_logger(__name__)

WORK_S: Final = 10.0
"""Seconds of search for one call of the scheduler. Chosen: half of the httpTimeout in its
configuration, because no other pod is scheduled meanwhile; a node of finely sliced cards takes
some tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Victims that the scheduler proposes for a node, or that we answer.

    Attributes:
        uids: The victims, highest priority first: the scheduler compares nodes by the first.
        violations: How many of them a PodDisruptionBudget protects, as far as is known.
    """

    uids: tuple[str, ...]
    violations: int = 0


def victims(
    state: ClusterState,
    preemptor: PodInfo,
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
        # Pods that are being deleted free the cards; evicting them again has no effect.
        return proposal if search.helps(proposed) else None
    # Only the violations that the scheduler counted are answered: it compares nodes by violations
    # before priorities, and the budgets of other pods are not known here.
    kept = min(proposal.violations, len(chosen & proposed))
    return Proposal(_by_importance(state, chosen, proposal), kept)


async def victims_by_node(
    state: ClusterState,
    preemptor: PodInfo,
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
        # There can be many nodes, so other calls run in between.
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
        preemptor: PodInfo,
        node: str,
        proposed: frozenset[str],
        barred: Mapping[str, str],
    ) -> None:
        self._state = state
        self._preemptor = preemptor
        self._node = node
        self._proposed = proposed
        self._barred = barred
        lower = [info for info in state.pods_on(node) if info.priority < preemptor.priority]
        self.pool = {info.uid: info for info in lower if self._seen(info)}
        self._leaving = {uid for uid, info in self.pool.items() if info.leaving}

    def _seen(self, info: PodInfo) -> bool:
        """Whether the watch shows it on the node; the scheduler refuses other victims."""
        claim = self._state.claims.get(info.uid, self._node)
        return claim is not None and claim.stage is Stage.SEEN

    def helps(self, gone: Collection[str]) -> bool:
        """True where the pod fits once these pods, and those being deleted, are gone."""
        cards = self._state.cards_for(self._preemptor, self._node, {*gone, *self._leaving})
        return choose(cards, self._preemptor.asks, self._barred) is not None

    def tied(self) -> bool:
        """True where more than resources decides about the pods involved."""
        involved = [self.pool[uid] for uid in self._proposed if uid in self.pool]
        return any(info.pod.depends_on_others() for info in (self._preemptor, *involved))

    def added(self) -> frozenset[str]:
        """The whole proposal and the other pods that it needs."""
        return self._spared(self.pool.keys() - self._proposed, self._proposed)

    def fewest(self) -> frozenset[str]:
        """The fewest pods of the pool, beside the proposal's pods without GPU work."""
        others = self._proposed - self.pool.keys()
        candidates = self.pool.keys() - self._leaving
        asks = self._preemptor.asks
        chosen = self._by_card(asks[0]) if len(asks) == 1 else None
        if chosen is None or not self.helps(chosen | others):
            chosen = self._spared(candidates, others) - others
        # Evict the scheduler's victims too until enough of every other resource is freed: what
        # the pod requests, or what its proposal would free.
        proposed = self._requests(self._proposed)
        wanted = {
            name: min(amount, proposed[name])
            for name, amount in self._preemptor.pod.requests(with_init=True).items()
            if name not in keys.NATIVE_RESOURCES
        }
        for uid in self._by_priority(self._proposed & candidates):
            freed = self._requests(chosen)
            if all(freed[name] >= amount for name, amount in wanted.items()):
                break
            chosen |= {uid}
        return chosen | others

    def _by_card(self, ask: Ask) -> frozenset[str] | None:
        """The pods on the cards that a single container gets with the fewest victims."""
        cards = self._state.cards_for(self._preemptor, self._node, self._leaving)
        victims_by_card = (self._victims(ask, card) for card in cards)
        ranks = sorted(rank(holders) for holders in victims_by_card if holders is not None)
        if len(ranks) < ask.cards:
            return None
        return frozenset(uid for *_, uids in ranks[: ask.cards] for uid in uids)

    def _victims(self, ask: Ask, card: CardState) -> Sequence[Holder] | None:
        """The pods to evict so that one card can serve the ask."""
        found = refusal(ask, card, self._barred)
        if found is not None and not found.why.passes:
            return None
        need = share_of(ask, card.kind)
        short = (
            need.core_milli - card.free_core_milli,
            need.memory_mib - card.free_memory_mib,
            1 - card.free_slots,
        )
        return fewest(short, self._holders.get(card.uuid, ()))

    @cached_property
    def _holders(self) -> Mapping[str, Sequence[Holder]]:
        """By card, the pods that may be evicted from it."""
        holders: defaultdict[str, list[Holder]] = defaultdict(list)
        for uid, info in self.pool.items():
            claim = None if uid in self._leaving else self._state.claims.get(uid, self._node)
            for card, taken in held([claim.assignment] if claim else ()).items():
                holders[card].append(Holder(info.priority, uid not in self._proposed, uid, taken))
        return holders

    def _spared(self, candidates: Iterable[str], always: frozenset[str]) -> frozenset[str]:
        """All candidates except those that can stay; the highest priority stays first."""
        gone = frozenset(candidates) | always
        for uid in reversed(self._by_priority(gone - always)):
            if self.helps(gone - {uid}):
                gone -= {uid}
        return gone

    def _by_priority(self, uids: Iterable[str]) -> list[str]:
        return sorted(uids, key=lambda uid: (self.pool[uid].priority, uid))

    def _requests(self, uids: Iterable[str]) -> Mapping[str, Decimal]:
        total: defaultdict[str, Decimal] = defaultdict(Decimal)
        for uid in uids:
            if uid in self.pool:
                for name, amount in self.pool[uid].pod.requests(with_init=False).items():
                    total[name] += amount
        return total


def _by_importance(
    state: ClusterState, chosen: Collection[str], proposal: Proposal
) -> tuple[str, ...]:
    """The chosen pods, highest priority first.

    The priority of pods without GPU work is not known here. The proposal is sorted, so such a pod
    is at most as important as the pod before it.
    """
    ranks: dict[str, float] = {}
    at_most = inf
    for uid in proposal.uids:
        info = state.pod(uid)
        at_most = ranks[uid] = at_most if info is None else info.priority
    for uid in sorted(set(chosen) - ranks.keys()):
        info = state.pod(uid)
        ranks[uid] = -inf if info is None else info.priority
    return tuple(sorted((uid for uid in ranks if uid in chosen), key=lambda uid: -ranks[uid]))
