"""Nodes on which each container of a pod fits, but not where the obvious choice puts it.

Only a search tells whether a cleverer choice exists. Anybody may create a pod whose containers
nearly fit on every node of a cluster, so the searches are few and share a bound.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement import reference
from gpu_fraction.domain.placement.cards import share_of
from gpu_fraction.domain.placement.fit import static_refusal
from gpu_fraction.domain.placement.reference import Placed
from gpu_fraction.domain.placement.sets import by_topology
from gpu_fraction.domain.placement.table import Bools, ClusterTable, Ints

CARDS_JUDGED: Final = 16_384
"""Cards that one call may judge, over all nodes: a step of a search judges each card of its node.
Chosen: 2,048 steps on nodes of 8 cards, some tens of milliseconds."""


def search(
    table: ClusterTable, asks: Sequence[Ask], barred: Mapping[str, str], nodes: Ints
) -> Iterator[tuple[int, Placed | None]]:
    """Each node and the place that ``reference.choose`` finds there, None where there is none.

    The nodes with the most that is free come first; those beyond ``CARDS_JUDGED`` are left out.
    The same cluster and asks give the same answer, whatever happened before.

    Args:
        table: The cluster.
        asks: One per container.
        barred: Product name to the reason why the pod may not use it now.
        nodes: Columns to search.
    """
    roomy = _roomy(table, asks, barred, nodes)
    for node in nodes[~roomy].tolist():
        yield node, None
    nodes = nodes[roomy]
    if not len(nodes):
        return
    amounts = _amounts(table, nodes)
    close, named = any(map(by_topology, asks)), any(ask.uuids for ask in asks)
    known: dict[object, Placed | None] = {}
    left = CARDS_JUDGED
    for at in _order(table, nodes):
        node = int(nodes[at])
        cards = table.cards[node]
        # Nodes that look alike have the same answer.
        near = tuple(card.near for card in cards) if close else ()
        look = amounts[at].tobytes(), near, node if named else 0
        if look not in known:
            if left <= 0:
                continue
            effort = reference.Effort()
            known[look] = reference.choose(cards, asks, barred, effort)
            left -= effort.steps * len(cards)
        yield node, known[look]


def _roomy(
    table: ClusterTable, asks: Sequence[Ask], barred: Mapping[str, str], nodes: Ints
) -> Bools:
    """False where the asks certainly do not fit together.

    However large the least of some asks is, the cards must have as many places of that size as
    these asks want; the largest by compute, and by memory, are looked at.
    """
    kind, slots = table.kind[:, nodes], table.free.slots[:, nodes]
    free = table.free.core_milli[:, nodes], table.free.memory_mib[:, nodes]
    shares = [[share_of(ask, kind) for kind in table.kinds] for ask in asks]
    sizes = (
        np.array([[share.core_milli for share in row] for row in shares], np.int64),
        np.array([[share.memory_mib for share in row] for row in shares], np.int64),
    )
    able = np.array([[not static_refusal(a, k, barred) for k in table.kinds] for a in asks])
    wanted = np.array([ask.cards for ask in asks])
    largest = [(size >= one).all(axis=1) for size in sizes for one in size]
    roomy = np.ones(len(nodes), np.bool_)
    for some in np.unique(largest, axis=0):
        places = np.where(able[some].any(axis=0)[kind], slots, 0)
        for amount, size in zip(free, sizes, strict=True):
            least = size[some].min(axis=0)[kind]
            fitting = amount // np.maximum(least, 1)
            places = np.where(least > 0, np.minimum(places, fitting), places)
        roomy &= places.clip(0).sum(axis=0) >= wanted[some].sum()
    return roomy


def _amounts(table: ClusterTable, nodes: Ints) -> Ints:
    """What each node has and has free, a row for a node."""
    free = table.free
    parts = (table.kind, free.core_milli, free.memory_mib, free.slots)
    return np.ascontiguousarray(np.concatenate([part[:, nodes] for part in parts]).T)


def _order(table: ClusterTable, nodes: Ints) -> list[int]:
    """Positions in ``nodes``, the most promising first; names decide between equals."""
    names = {column: name for name, column in table.columns.items()}
    free = table.free
    cores, memory = (a[:, nodes].sum(axis=0).tolist() for a in (free.core_milli, free.memory_mib))
    return sorted(
        range(len(nodes)), key=lambda at: (-cores[at], -memory[at], names[int(nodes[at])])
    )
