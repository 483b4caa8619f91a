"""Containers that fit a node one by one, over more nodes than can be searched."""

from collections.abc import Mapping

import numpy as np

from gpu_fraction.domain.placement import Ask, CardState, choose
from gpu_fraction.domain.placement.search import search
from gpu_fraction.domain.placement.table import ClusterTable
from gpu_fraction.domain.placement.vectorised import evaluate
from tests.builders.cards import node, taken

MANY = 2500
"""Nodes of eight cards that one call does not search one by one."""

ASKS = (Ask("a", memory_mib=6000, core_milli=500), Ask("b", memory_mib=5900, core_milli=600))
"""On a ``puzzle`` they fit in one way, which is not the obvious one."""


def puzzle(spare_mib: int = 0) -> tuple[CardState, ...]:
    """The tightest of two cards tempts the first container, and then the second has none.

    Args:
        spare_mib: Free on a third card, of no use without compute.
    """
    used = [(at, 1000, 16384) for at in range(3, 8)]
    return taken(node(8), [(0, 400, 10384), (1, 500, 8384), (2, 1000, 16384 - spare_mib), *used])


def fitting(nodes: Mapping[str, tuple[CardState, ...]], *asks: Ask) -> set[str]:
    """Names of the nodes that take all asks together."""
    table = ClusterTable()
    for name, cards in nodes.items():
        table.set_node(name, cards)
    judged = evaluate(table, asks)
    search(judged, table, asks, np.array([*table.columns.values()]))
    return {name for name, column in table.columns.items() if judged.fits[column]}


def test_nodes_that_look_alike_are_searched_once() -> None:
    """However many there are, each has its answer."""
    names = [f"n{at}" for at in range(MANY)]
    assert fitting(dict.fromkeys(names, puzzle()), *ASKS) == set(names)


def test_the_searches_for_a_pod_are_bounded_and_begin_where_most_is_free() -> None:
    """The other nodes do not fit this time, in whatever order they became known."""
    nodes = {f"n{at}": puzzle(spare_mib=at) for at in range(MANY)}
    assert all(choose(cards, ASKS) for cards in nodes.values())
    found = fitting(nodes, *ASKS)
    assert 0 < len(found) < MANY
    assert found == set(list(nodes)[-len(found) :])
    assert found == fitting(dict(reversed(nodes.items())), *ASKS)


def test_nodes_without_room_for_the_sum_take_nothing_from_the_others() -> None:
    """Two containers of half a card and more have one card between them there."""
    full = [(at, 0, 16384) for at in range(1, 8)]
    useless = {f"n{at}": taken(node(8), [(0, 300, at), *full]) for at in range(MANY)}
    assert fitting({**useless, "puzzle": puzzle()}, *ASKS) == {"puzzle"}


def test_only_the_nodes_that_matter_are_searched() -> None:
    """However many others there are on which a search is long; and the next goes on from there."""
    table = ClusterTable()
    for at in range(MANY):
        table.set_node(f"n{at}", puzzle(spare_mib=at))
    judged = evaluate(table, ASKS)
    one = table.columns["n0"]
    search(judged, table, ASKS, np.array([one]))
    assert np.flatnonzero(judged.fits).tolist() == [one]
    everyone = np.array([*table.columns.values()])
    found = -1
    while found < (found := int(judged.fits.sum())):
        search(judged, table, ASKS, everyone)
    assert found == MANY
