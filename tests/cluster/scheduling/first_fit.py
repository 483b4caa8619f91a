"""Order-preserving first fit: the packing that ours is compared with."""

from collections.abc import Iterable, Sequence

from tests.cluster.scheduling.rig import CARD_MIB

Share = tuple[int, int]
"""Milli-cores and MiB of each card."""


def whole_cards_free(
    pods: Iterable[tuple[int, Share]], nodes: Sequence[str], cards: int, slots: int = 32
) -> int:
    """Cards that nothing is on after each pod, in order, took the first cards that fit.

    Args:
        pods: Number of cards, all on one node, and the share of each.
        nodes: The nodes in the order in which they are tried.
        cards: Cards of each node, tried in index order.
        slots: Pods that may share a card.
    """
    free = {node: [[1000, CARD_MIB, slots] for _ in range(cards)] for node in nodes}
    for count, (core_milli, memory_mib) in pods:
        for node in nodes:
            fitting = [
                card
                for card in free[node]
                if card[0] >= core_milli and card[1] >= memory_mib and card[2] >= 1
            ]
            if len(fitting) >= count:
                for card in fitting[:count]:
                    card[0] -= core_milli
                    card[1] -= memory_mib
                    card[2] -= 1
                break
        else:
            raise ValueError("first fit found no place")
    return sum(card[2] == slots for cards_ in free.values() for card in cards_)
