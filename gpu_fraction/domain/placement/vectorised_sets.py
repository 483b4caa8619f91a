"""Sets of cards for one ask on every node at once, the same sets as ``choice`` for each node."""

from itertools import combinations
from typing import Final

import numpy as np

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement import choice
from gpu_fraction.domain.placement.table import Bools, ClusterTable, Ints

FAR: Final = 1 << 62
"""The cost of a card that cannot serve."""
_GROW_PAIRS: Final = 1 << 16
"""Pairs of cards, over the nodes grown together: chosen, bounds the working memory to some MiB."""


def pick(
    table: ClusterTable, ask: Ask, fitting: Bools, costs: Ints, fits: Bools
) -> tuple[Ints, Ints]:
    """The best cards of each node, shape (cards wanted, nodes), and their cost.

    Both are meaningless where ``fits`` is false; where no node has so many cards, none are named.

    Args:
        table: The cluster.
        ask: The ask.
        fitting: Which cards can serve it.
        costs: What each would cost.
        fits: Which nodes have enough of them.
    """
    wanted = ask.cards
    height, nodes = costs.shape
    if wanted > height:
        return np.zeros((0, nodes), np.int64), np.zeros(nodes, np.int64)
    if choice.by_topology(ask):
        return _pick_close(table, wanted, fitting, costs, fits)
    masked = np.where(fitting, costs, FAR)
    if wanted == 1:
        return masked.argmin(axis=0)[np.newaxis], masked.min(axis=0)
    chosen = np.argsort(masked, axis=0, kind="stable")[:wanted]
    # An unfit card only stands here in a node that does not fit; zero keeps the sum small.
    return chosen, np.take_along_axis(np.where(fitting, costs, 0), chosen, axis=0).sum(axis=0)


def _pick_close(
    table: ClusterTable, wanted: int, fitting: Bools, costs: Ints, fits: Bools
) -> tuple[Ints, Ints]:
    height, nodes = costs.shape
    chosen = np.zeros((wanted, nodes), np.int64)
    price = np.zeros(nodes, np.int64)
    compared = max((n for n in range(height + 1) if choice.exact(n, wanted)), default=0)
    small = table.count <= compared
    if compared >= wanted:
        all_chosen, all_price = _compare(table, wanted, fitting[:compared], costs[:compared])
        chosen[:, small], price[small] = all_chosen[:, small], all_price[small]
    large = np.flatnonzero(fits & ~small)
    at_once = max(1, _GROW_PAIRS // height**2)
    for start in range(0, len(large), at_once):
        some = large[start : start + at_once]
        found = _grow(table.links(some), fitting[:, some].T, costs[:, some].T, wanted)
        chosen[:, some], price[some] = found[0].T, found[1]
    return chosen, price


def _compare(table: ClusterTable, wanted: int, fitting: Bools, costs: Ints) -> tuple[Ints, Ints]:
    """Every set of these, the first cards of every node."""
    height, nodes = costs.shape
    subsets = list(combinations(range(height), wanted))
    near = table.near(height, wanted)
    masked = np.where(fitting, costs, FAR // choice.EXACT_CARDS)
    best = np.full(nodes, FAR, np.int64)
    at = np.zeros(nodes, np.int64)
    total = np.empty_like(best)
    for number, subset in enumerate(subsets):
        np.add(masked[subset[0]], masked[subset[1]], out=total)
        for card in subset[2:]:
            total += masked[card]
        total -= near[number]
        np.copyto(at, number, where=total < best)
        np.minimum(best, total, out=best)
    return np.array(subsets, np.int64)[at].T, best


def _grow(links: Ints, fitting: Bools, costs: Ints, wanted: int) -> tuple[Ints, Ints]:
    """The sets that ``choice`` builds card by card, for a few nodes; here a row is a node."""
    nodes, height = costs.shape
    chosen = np.broadcast_to(np.eye(height, dtype=np.bool_), (nodes, height, height)).copy()
    total = np.where(fitting, costs, FAR // (2 * height))
    # The cost of adding each card, for each seed; at first with the links of the seed alone.
    value = costs[:, np.newaxis, :] - choice.CLOSENESS * links
    node = np.arange(nodes)[:, np.newaxis]
    for _ in range(wanted - 1):
        value[chosen | ~fitting[:, np.newaxis, :]] = FAR // (2 * height)
        at = value.argmin(axis=2)
        total += np.take_along_axis(value, at[:, :, np.newaxis], axis=2)[:, :, 0]
        np.put_along_axis(chosen, at[:, :, np.newaxis], values=True, axis=2)
        value -= choice.CLOSENESS * links[node, at]
    seed = total.argmin(axis=1)
    best = chosen[np.arange(nodes), seed]
    cards = np.argsort(~best, axis=1, kind="stable")[:, :wanted]
    return cards, total[np.arange(nodes), seed]
