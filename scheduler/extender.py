"""Filter, prioritize and bind as decisions on the state; no I/O.

Filter keeps every node whose cards fit, so that Kubernetes' own scoring and preemption still work.
The cards are chosen at bind, when the node is known.
"""

from collections.abc import Mapping, Sequence
from heapq import nsmallest
from itertools import compress
from typing import Final

import numpy as np

from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.placement import Ask, Why, choose, explain, summary
from gpu_fraction.domain.placement.search import search
from gpu_fraction.domain.placement.table import Ints
from gpu_fraction.domain.placement.vectorised import Evaluation, reasons, scores
from gpu_fraction.scheduler.model_quota import NO_LIMITS, ModelLimits, ModelQuota
from gpu_fraction.scheduler.pod_info import PodInfo
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.wire import FilterResult, HostPriority

DETAILED_NODES: Final = 3
"""Nodes whose cards are listed one by one in a refusal. Chosen: together with the shared reasons
of the other nodes, they fit the 1024 bytes of an event's message."""

DETAIL_LIMIT: Final = 240
"""Characters of one node's list of cards; chosen for the same reason."""

_WHYS: Final = len(Why) + 1
"""Number of values of ``Reasons.why``, with 0."""


class BindRefusedError(Exception):
    """The pod cannot be bound to that node; the message has the reason for each card."""


class Extender:
    """Decisions about one pod at a time."""

    def __init__(self, state: ClusterState, limits: ModelLimits = NO_LIMITS) -> None:
        """Decide on this state.

        Args:
            state: The cluster; it changes between calls.
            limits: The limits of namespaces on GPU models.
        """
        self._state = state
        self._quota = ModelQuota(state, limits)

    def filter(self, info: PodInfo, names: Sequence[str]) -> FilterResult:
        """The nodes whose cards serve the pod, and a reason for each other node.

        Args:
            info: The pod.
            names: The candidates; the answer has no other nodes.
        """
        if info.problem:
            return FilterResult([], {}, dict.fromkeys(names, info.problem))
        if not info.asks:
            return FilterResult(list(names))
        barred = self.barred(info)
        judged = self._judge(info, names, barred)
        fitting = list(compress(names, judged.fits.tolist()))
        if len(fitting) == len(names):
            return FilterResult(fitting)
        failing = list(compress(names, (~judged.fits).tolist()))
        detailed = not fitting or len(failing) <= DETAILED_NODES
        return FilterResult(fitting, *self._reasons(info, failing, barred, detailed=detailed))

    def prioritize(self, info: PodInfo, names: Sequence[str]) -> list[HostPriority]:
        """A score for each node, 0 to 10; nodes that do not fit have 0."""
        if info.problem or not info.asks:
            return [HostPriority(name, 0) for name in names]
        judged = self._judge(info, names, self.barred(info))
        return [
            HostPriority(name, score)
            for name, score in zip(names, scores(judged).tolist(), strict=True)
        ]

    def cards_for(self, info: PodInfo, node: str) -> Assignment:
        """The cards to bind the pod with; the caller makes the claim.

        If the pod has a claim on the node, the answer is that claim, so a repeated bind repeats
        the Binding and takes no more cards.

        Raises:
            BindRefusedError: the pod does not fit the node any more.
        """
        claim = self._state.claims.get(info.uid, node)
        if claim is not None:
            return claim.assignment
        if info.problem:
            raise BindRefusedError(info.problem)
        if not info.asks:
            return {}
        barred = self.barred(info)
        cards = self._state.cards_for(info, node)
        placed = choose(cards, info.asks, barred)
        if placed is None:
            why = explain(cards, info.asks, barred) if cards else self._state.node_problem(node)
            raise BindRefusedError(f"node {node}: {why}")
        return placed.assignment

    def barred(self, info: PodInfo) -> Mapping[str, str]:
        """Models that a quota does not allow the pod to use now, with the reason."""
        return self._quota.barred(info)

    def _judge(self, info: PodInfo, names: Sequence[str], barred: Mapping[str, str]) -> Evaluation:
        """Fit and cost of the named nodes, in their order."""
        table = self._state.table()
        columns = table.columns
        whole = self._state.evaluate(info.asks, barred)
        try:
            at = np.array([*map(columns.__getitem__, names)], np.int64)
        except KeyError:
            at = np.array([columns.get(name, -1) for name in names], np.int64)
        known = at >= 0
        if not len(whole.fits):
            return Evaluation(known, at)
        # Only the named nodes are searched, because the search is bounded.
        search(whole, table, info.asks, at[known], barred)
        fits, cost = whole.fits[at] & known, whole.cost[at]
        special = self._state.special_nodes(info)
        for position, name in enumerate(names) if special else ():
            if name in special:
                placed = choose(self._state.cards_for(info, name), info.asks, barred)
                fits[position] = placed is not None
                cost[position] = placed.cost if placed is not None else 0
        return Evaluation(fits, cost)

    def _reasons(
        self,
        info: PodInfo,
        failing: Sequence[str],
        barred: Mapping[str, str],
        *,
        detailed: bool,
    ) -> tuple[dict[str, str], dict[str, str]]:
        """A reason for each node: those that the end of pods can remove, and the others.

        Args:
            info: The pod.
            failing: The nodes.
            barred: Product name to the reason why the pod may not use it now.
            detailed: List the cards of the nearest nodes. The scheduler shows the text only
                where no node fits, and the text costs more than the judgement.
        """
        table = self._state.table()
        why = reasons(table, info.asks, barred)
        hopeless = {n: self._state.node_problem(n) for n in failing if n not in table.columns}
        known = [name for name in failing if name in table.columns] if hopeless else failing
        at = np.array([*map(table.columns.__getitem__, known)], np.int64)
        # There are many nodes and few reasons, so each text is made once.
        ways = (why.ask[at] + 1) * _WHYS + why.why[at]
        texts = {
            way: _summary(info.asks, way // _WHYS - 1, way % _WHYS, barred)
            for way in np.unique(ways).tolist()
        }
        stuck = ~why.passes[at]
        failed: dict[str, str] = {}
        for name, way, is_stuck in zip(known, ways.tolist(), stuck.tolist(), strict=True):
            (hopeless if is_stuck else failed)[name] = texts[way]
        for name in _nearest(known, stuck * _WHYS - why.why[at]) if detailed else ():
            cards = self._state.cards_for(info, name)
            text = _shortened(f"{name}: {explain(cards, info.asks, barred)}")
            (hopeless if name in hopeless else failed)[name] = text
        return failed, hopeless


def _nearest(names: Sequence[str], ranks: Ints) -> list[str]:
    """The ``DETAILED_NODES`` names with the lowest ranks."""
    found: list[str] = []
    for rank in np.unique(ranks):
        found += nsmallest(DETAILED_NODES - len(found), compress(names, (ranks == rank).tolist()))
        if len(found) == DETAILED_NODES:
            break
    return found


def _summary(asks: Sequence[Ask], at: int, why: int, barred: Mapping[str, str]) -> str:
    if at < 0 and len(asks) == 1:
        return "the node's free GPUs are kept for a pod of the same or higher priority"
    if at < 0:
        return "no place was found on the node's GPUs for all of the pod's containers"
    return summary(asks[at], Why(why) if why else None, barred)


def _shortened(text: str) -> str:
    return text if len(text) <= DETAIL_LIMIT else text[: DETAIL_LIMIT - 1] + "…"
