"""Placement over every cluster and pod that Hypothesis can think of."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_fraction.domain.placement import (
    NOTHING_BARRED,
    Ask,
    CardState,
    Why,
    choose,
    refusal,
    share_of,
)
from gpu_fraction.domain.placement.search import search
from gpu_fraction.domain.placement.table import ClusterTable
from gpu_fraction.domain.placement.vectorised import Evaluation, evaluate, reasons
from tests.builders import cards as build

NAMES = ("a", "b", "c", "d")
BARRED = st.sampled_from([{}, {}, {"Tesla T4": "quota of T4 is used up"}])


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, tuple[CardState, ...]]:
    """Up to four nodes."""
    rng = draw(build.seeds())
    names = NAMES[: draw(st.integers(0, 4))]
    return {name: build.random_node(rng, rng.randint(0, 6), name) for name in names}


def table_of(cluster: dict[str, tuple[CardState, ...]]) -> ClusterTable:
    """The cluster as arrays."""
    table = ClusterTable()
    for name, cards in cluster.items():
        table.set_node(name, cards)
    return table


def judge(
    table: ClusterTable, asks: tuple[Ask, ...], barred: Mapping[str, str] = NOTHING_BARRED
) -> Evaluation:
    """What the extender makes of all nodes."""
    judged = evaluate(table, asks, barred)
    search(judged, table, asks, np.arange(len(judged.fits)), barred)
    return judged


@given(clusters(), build.asks(NAMES), BARRED)
@settings(max_examples=400, deadline=None)
def test_the_whole_cluster_at_once_gives_the_answers_of_the_plain_choice(
    cluster: dict[str, tuple[CardState, ...]], asks: tuple[Ask, ...], barred: dict[str, str]
) -> None:
    """For each node: fits or not, and the cost, are those of ``choose``."""
    table = table_of(cluster)
    evaluation = judge(table, asks, barred)
    for name, cards in cluster.items():
        at = table.columns[name]
        placed = choose(cards, asks, barred)
        assert (placed is not None) == evaluation.fits[at], name
        if placed is not None:
            assert placed.cost == evaluation.cost[at], name


@given(build.nodes(most=18), build.nodes(most=3), build.asks())
@settings(max_examples=150, deadline=None)
def test_nodes_too_large_to_compare_every_set_agree_as_well(
    cards: tuple[CardState, ...], small: tuple[CardState, ...], asks: tuple[Ask, ...]
) -> None:
    """Growing a set card by card is the same in both implementations."""
    table = table_of({"n": cards, "small": small})
    evaluation = judge(table, asks)
    placed = choose(cards, asks)
    assert (placed is not None) == evaluation.fits[0]
    if placed is not None:
        assert placed.cost == evaluation.cost[0]


@given(clusters(), clusters(), build.asks(NAMES))
@settings(max_examples=100, deadline=None)
def test_a_table_that_changed_equals_one_built_anew(
    before: dict[str, tuple[CardState, ...]],
    after: dict[str, tuple[CardState, ...]],
    asks: tuple[Ask, ...],
) -> None:
    """Nodes that came, went, grew or shrank leave nothing behind."""
    changed = table_of(before)
    judge(changed, asks)
    for name in before:
        if name not in after:
            changed.remove_node(name)
    for name, cards in after.items():
        changed.set_node(name, cards)
    fresh = table_of(after)
    ours, theirs = judge(changed, asks), judge(fresh, asks)
    for name in after:
        here, there = changed.columns[name], fresh.columns[name]
        assert ours.fits[here] == theirs.fits[there]
        assert not ours.fits[here] or ours.cost[here] == theirs.cost[there]
    assert sum(ours.fits) == sum(theirs.fits)


@given(build.nodes(), build.asks())
@settings(max_examples=300, deadline=None)
def test_a_choice_keeps_every_rule(cards: tuple[CardState, ...], asks: tuple[Ask, ...]) -> None:
    """Each container has its number of distinct cards that serve it, and none is overdrawn."""
    placed = choose(cards, asks)
    if placed is None:
        return
    by_uuid = {card.uuid: card for card in cards}
    left = dict(by_uuid)
    assert list(placed.assignment) == [ask.container for ask in asks]
    for ask in asks:
        shares = placed.assignment[ask.container]
        assert len({share.uuid for share in shares}) == ask.cards == len(shares)
        for share in shares:
            card = by_uuid[share.uuid]
            due = share_of(ask, card.kind)
            assert refusal(ask, card) is None
            assert (share.core_milli, share.memory_mib) == (due.core_milli, due.memory_mib)
            left[share.uuid] = left[share.uuid].less(due)
    for share in (s for shares in placed.assignment.values() for s in shares):
        card = left[share.uuid]
        assert min(card.free_core_milli, card.free_memory_mib, card.free_slots) >= 0


def _possible(cards: Sequence[CardState], asks: Sequence[Ask]) -> bool:
    """Every way of giving every container its cards, tried one by one."""
    sets = [
        list(combinations([c.uuid for c in cards if refusal(ask, c) is None], ask.cards))
        for ask in asks
    ]
    for chosen in product(*sets):
        left = {card.uuid: card for card in cards}
        for ask, uuids in zip(asks, chosen, strict=True):
            for uuid in uuids:
                left[uuid] = left[uuid].less(share_of(ask, left[uuid].kind))
        if all(
            min(c.free_core_milli, c.free_memory_mib, c.free_slots) >= 0
            for uuid, c in left.items()
            if any(uuid in uuids for uuids in chosen)
        ):
            return True
    return False


@given(build.nodes(most=4), build.asks())
@settings(max_examples=200, deadline=None)
def test_nothing_that_fits_is_refused(cards: tuple[CardState, ...], asks: tuple[Ask, ...]) -> None:
    """A place is found exactly where trying every combination finds one."""
    assert (choose(cards, asks) is not None) == _possible(cards, asks)


@given(build.nodes(most=6))
@settings(max_examples=200, deadline=None)
def test_topology_finds_the_closest_cards(cards: tuple[CardState, ...]) -> None:
    """No other set that fits is closer; the first of equals is taken."""
    ask = Ask("main", 2, 0, 1, placement="topology", isolation="none")
    placed = choose(cards, [ask])
    near = {
        frozenset((a.uuid, b.uuid)): a.near[cards.index(b)]
        for a, b in combinations([c for c in cards if refusal(ask, c) is None], 2)
    }
    assert (placed is None) == (not near)
    if placed is not None:
        pair = frozenset(share.uuid for share in placed.assignment["main"])
        assert near[pair] == max(near.values())


@given(clusters(), build.asks(NAMES), BARRED)
@settings(max_examples=200, deadline=None)
def test_reasons_of_a_whole_cluster_are_those_of_its_cards(
    cluster: dict[str, tuple[CardState, ...]], asks: tuple[Ask, ...], barred: dict[str, str]
) -> None:
    """Which ask fails first, how near it came, and whether waiting could help."""
    table = table_of(cluster)
    found = reasons(table, asks, barred)
    for name, cards in cluster.items():
        at = table.columns[name]
        whys = [[refusal(ask, card, barred) for card in cards] for ask in asks]
        short = [at for at, ask in enumerate(asks) if whys[at].count(None) < ask.cards]
        assert found.ask[at] == (short[0] if short else -1)
        if short:
            assert found.why[at] == max((r.why for r in whys[short[0]] if r), default=0)
        could = all(
            sum(r is None or r.why >= Why.SLOTS for r in whys[at]) >= ask.cards
            for at, ask in enumerate(asks)
        )
        assert found.passes[at] == (could and len(cards) > 0)
