"""Every node of a cluster judged at once, with the answers of ``choice`` for each node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement import choice
from gpu_fraction.domain.placement.cards import Kind, Share, share_of
from gpu_fraction.domain.placement.fit import NOTHING_BARRED, Why, static_refusal, unenforced
from gpu_fraction.domain.placement.table import ABSENT, Bools, CardArrays, ClusterTable, Ints, Whys
from gpu_fraction.domain.placement.vectorised_sets import FAR, pick
from gpu_fraction.domain.units import MILLI


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Fit and cost of nodes for a pod; the arrays are in the order of the table.

    Attributes:
        fits: Whether the node has cards for all asks.
        cost: How good the node's best cards are, lower is better; meaningless where
            ``fits`` is false.
        unsure: True where each ask fits alone, but not all at their best cards; ``fits`` is
            False there until ``search.search`` finds other cards. None for a single ask.
    """

    fits: Bools
    cost: Ints
    unsure: Bools | None = None


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why nodes do not fit; all arrays are in the order of the table.

    Attributes:
        ask: Position of the first ask with too few cards; -1 where each fits by itself.
        why: The ``Why`` of the card that came nearest; 0 where no card was refused.
        passes: Whether the node can fit once other pods end.
    """

    ask: Ints
    why: Ints
    passes: Bools


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """The free capacity of all healthy cards, and overdrawn cards.

    Attributes:
        cards: Healthy cards.
        whole_cards: Cards on which no container holds a part.
        free_milli: Free thousandths, summed over the cards: of compute or of memory, whichever
            is scarcer on the card; 0 for a card without a free slot.
        largest_milli: The largest of these, so the largest share that still fits a card.
        overdrawn: Cards whose claims exceed their size, healthy or not.
    """

    cards: int
    whole_cards: int
    free_milli: int
    largest_milli: int
    overdrawn: int


class _Judgement:
    """One ask against every card, computed once for each kind of card."""

    def __init__(self, table: ClusterTable, ask: Ask, barred: Mapping[str, str]) -> None:
        self.ask = ask
        self.table = table
        refusals = [static_refusal(ask, kind, barred) for kind in table.kinds]
        self.static = np.array([r.why if r else 0 for r in refusals], np.int8)[table.kind]
        shares = [share_of(ask, kind) for kind in table.kinds]
        able = [at for at, refused in enumerate(refusals) if refused is None]
        self.core_milli = _by_kind(table, [share.core_milli for share in shares], able)
        self.memory_mib = _by_kind(table, [share.memory_mib for share in shares], able)
        self.penalty = _penalty(ask, table.kinds, shares)
        if ask.uuids:
            self._only_named()

    def _only_named(self) -> None:
        others = np.ones(self.static.shape, np.bool_)
        for at in self.table.positions(self.ask.uuids):
            others[at] = False
        self.static[others & (self.static != Why.UNHEALTHY)] = Why.UUID

    def fitting(self, free: CardArrays) -> Bools:
        fits: Bools = (
            (self.static == 0)
            & (free.memory_mib >= self.memory_mib)
            & (free.core_milli >= self.core_milli)
            & (free.slots >= 1)
        )
        return fits

    def why(self, free: CardArrays) -> Whys:
        """The ``Why`` of each card, 0 where it fits."""
        why = np.where(free.core_milli < self.core_milli, np.int8(Why.CORES), np.int8(0))
        why[free.memory_mib < self.memory_mib] = Why.MEMORY
        why[free.slots < 1] = Why.SLOTS
        return np.where(self.static > 0, self.static, why)

    def costs(self, free: CardArrays) -> Ints:
        """The cost of each card, as in ``choice``."""
        left = _left(free.core_milli, self.core_milli, self.table.cap.core_milli)
        left += _left(free.memory_mib, self.memory_mib, self.table.cap.memory_mib)
        if self.ask.placement == "spread":
            np.subtract(choice.LEFTOVER_MAX, left, out=left)
            left *= choice.SPREAD_WEIGHT
        else:
            left[free.slots >= self.table.cap.slots] += choice.OPENED
        if self.penalty is not None:
            left += self.penalty[self.table.kind]
        return left


def _left(free: Ints, taken: Ints | int, cap: Ints) -> Ints:
    """Thousandths of the capacity that stay free; allocates one array only."""
    left = free - taken
    left *= MILLI
    left //= cap
    return left


def _by_kind(table: ClusterTable, values: Sequence[int], able: Sequence[int]) -> Ints | int:
    """A value for each card; one number where all kinds that can serve have the same."""
    different = {values[kind] for kind in able}
    if len(different) <= 1:
        return different.pop() if different else 0
    return np.array(values, np.int64)[table.kind]


def _penalty(ask: Ask, kinds: Sequence[Kind], shares: Sequence[Share]) -> Ints | None:
    loose = [bool(unenforced(ask, k, s)) for k, s in zip(kinds, shares, strict=True)]
    return np.array(loose, np.int64) * choice.UNENFORCED if any(loose) else None


def evaluate(
    table: ClusterTable, asks: Sequence[Ask], barred: Mapping[str, str] = NOTHING_BARRED
) -> Evaluation:
    """Which nodes can take all asks together, and how good each is.

    Several asks leave nodes unsure where the best cards of one ask hinder another.

    Args:
        table: The cluster.
        asks: One per container, at least one.
        barred: Product name to the reason why the pod may not use it now.
    """
    free = table.free if len(asks) == 1 else table.free.copy()
    fits = np.asarray(table.count > 0)
    alone = fits.copy()
    cost = np.zeros(len(fits), np.int64)
    for left, ask in zip(range(len(asks) - 1, -1, -1), choice.order(asks), strict=True):
        judgement = _Judgement(table, ask, barred)
        fitting = judgement.fitting(free)
        enough = _enough(fitting, ask.cards)
        fits &= enough
        if len(asks) > 1:
            untouched = left == len(asks) - 1
            alone &= enough if untouched else _enough(judgement.fitting(table.free), ask.cards)
        if left == 0 and ask.cards == 1:
            cost += np.where(fitting, judgement.costs(free), FAR).min(axis=0, initial=FAR)
            continue
        chosen, price = pick(table, ask, fitting, judgement.costs(free), fits)
        cost += price
        if left:
            _take(judgement, free, chosen, fits)
    cost += _node_costs(table, asks[0])
    unsure = np.asarray(alone & ~fits) if len(asks) > 1 else None
    return Evaluation(fits, cost, unsure)


def _enough(fitting: Bools, wanted: int) -> Bools:
    if wanted == 1:
        return np.asarray(fitting.any(axis=0))
    return np.asarray(fitting.sum(axis=0) >= wanted)


def _take(judgement: _Judgement, free: CardArrays, chosen: Ints, fits: Bools) -> None:
    nodes = np.flatnonzero(fits)
    at = (chosen[:, nodes], nodes)
    for left, share in (
        (free.core_milli, judgement.core_milli),
        (free.memory_mib, judgement.memory_mib),
        (free.slots, 1),
    ):
        left[at] -= share if isinstance(share, int) else share[at]


def _node_costs(table: ClusterTable, ask: Ask) -> Ints:
    """The cost of each node, as in ``choice``."""
    if ask.placement != "spread":
        idle = np.all(table.free.slots >= table.cap.slots, axis=0)
        return np.where(idle, choice.IDLE_NODE, 0)
    left = _left(table.free.core_milli, 0, table.cap.core_milli)
    left += _left(table.free.memory_mib, 0, table.cap.memory_mib)
    average: Ints = left.sum(axis=0) // np.maximum(table.count, 1)
    return choice.LEFTOVER_MAX - average


def reasons(
    table: ClusterTable,
    asks: Sequence[Ask],
    barred: Mapping[str, str] = NOTHING_BARRED,
) -> Reasons:
    """Why each node of the table would not fit, in the terms of ``fit.summary``."""
    nodes = len(table.count)
    first = np.full(nodes, -1, np.int64)
    nearest = np.zeros(nodes, np.int64)
    passes = np.asarray(table.count > 0)
    for position, ask in enumerate(asks):
        why = _Judgement(table, ask, barred).why(table.free)
        few = ~_enough(why == 0, ask.cards)
        passes &= _enough((why == 0) | (why >= int(Why.SLOTS)), ask.cards)
        new = few & (first < 0)
        first[new] = position
        # Places without a card must not pass for sick cards.
        why[table.kind == ABSENT] = 0
        nearest[new] = why.max(axis=0, initial=0)[new]
    return Reasons(first, nearest, passes)


def scores(judged: Evaluation) -> Ints:
    """Each node's score, 0 to ``SCORE_MAX``; 0 for nodes that do not fit.

    Only the best nodes have the highest score, so rounding hides no lead. The other scores fall
    in proportion to the cost, as in Kubernetes' own plugins. If some nodes enforce the share
    that the pod prefers to be enforced, the others have 0 and do not stretch the scale.
    """
    marks = np.zeros(len(judged.cost), np.int64)
    cost = judged.cost[judged.fits]
    if not len(cost):
        return marks
    best = int(cost.min())
    worst = int(cost[cost < best + choice.UNENFORCED].max())
    top = choice.SCORE_MAX
    fall = (top - 1) * (cost - best) // max(worst - best, 1)
    found = np.where(cost > best, top - 1 - fall, top)
    found[cost > worst] = 0
    marks[judged.fits] = found
    return marks


def fragmentation(table: ClusterTable) -> Fragmentation:
    """The free capacity of the cluster."""
    left = table.free
    overdrawn = (left.core_milli < 0) | (left.memory_mib < 0) | (left.slots < 0)
    healthy = np.array([not kind.health for kind in table.kinds], np.bool_)[table.kind]
    free = np.minimum(
        _left(table.free.core_milli, 0, table.cap.core_milli),
        _left(table.free.memory_mib, 0, table.cap.memory_mib),
    )
    free[~healthy | (table.free.slots < 1) | (free < 0)] = 0
    return Fragmentation(
        cards=int(healthy.sum()),
        whole_cards=int((healthy & (table.free.slots >= table.cap.slots)).sum()),
        free_milli=int(free.sum()),
        largest_milli=int(free.max(initial=0)),
        overdrawn=int(overdrawn.sum()),
    )
