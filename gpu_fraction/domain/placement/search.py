"""Nodes on which each container of a pod fits alone, but not all of them at their best cards.

Only a search over other sets of cards tells whether all fit. Any user can create a pod whose
containers nearly fit on every node of a cluster, so all searches of a call share one bound.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import share_of
from gpu_fraction.domain.placement.choice import Effort, Placed, by_topology, choose
from gpu_fraction.domain.placement.fit import NOTHING_BARRED, static_refusal
from gpu_fraction.domain.placement.table import Bools, ClusterTable, Ints
from gpu_fraction.domain.placement.vectorised import Evaluation

CARDS_JUDGED: Final = 16_384
"""Cards that one call judges at most; a step of a search judges each card of its node. Chosen:
2,048 steps on nodes of 8 cards, some tens of milliseconds."""


def search(
    judged: Evaluation,
    table: ClusterTable,
    asks: Sequence[Ask],
    nodes: Ints,
    barred: Mapping[str, str] = NOTHING_BARRED,
) -> None:
    """Record the answers of ``choose`` for the nodes that are unsure.

    The nodes with the most free come first; nodes beyond ``CARDS_JUDGED`` stay unsure. The same
    arguments give the same answers, whatever happened before.

    Args:
        judged: The result of ``evaluate`` for the same table, asks and models; it is changed.
        table: The cluster.
        asks: One per container.
        nodes: Columns of the nodes that matter now.
        barred: Product name to the reason why the pod may not use it now.
    """
    if judged.unsure is None:
        return
    nodes = nodes[judged.unsure[nodes]]
    if not len(nodes):
        return
    roomy = _roomy(table, asks, barred, nodes)
    judged.unsure[nodes[~roomy]] = False
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
        # Equal nodes have equal answers.
        near = tuple(card.near for card in cards) if close else ()
        look = amounts[at].tobytes(), near, node if named else 0
        if look not in known:
            if left <= 0:
                continue
            effort = Effort()
            known[look] = choose(cards, asks, barred, effort)
            left -= effort.steps * len(cards)
        judged.unsure[node] = False
        placed = known[look]
        if placed is not None:
            judged.fits[node], judged.cost[node] = True, placed.cost


def _roomy(
    table: ClusterTable, asks: Sequence[Ask], barred: Mapping[str, str], nodes: Ints
) -> Bools:
    """False where the asks certainly do not fit together.

    For every group of asks, the cards need as many places as the group needs, each as large as
    its smallest ask. The groups of the largest asks, by compute and by memory, are checked.
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
    """Kinds and free amounts of the nodes' cards, one row per node."""
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
