"""Order-preserving first fit: the packing that ours is compared with."""

from collections.abc import Iterable, Sequence

Part = tuple[int, int, int]
"""One container: number of cards, all on the pod's node, and milli-cores and MiB of each."""

Card = tuple[int, int, int]
"""What is free: milli-cores, MiB, slots."""


def whole_cards_free(
    pods: Iterable[Sequence[Part]], nodes: Sequence[str], cards: int, whole: Card
) -> int:
    """Cards that nothing is on after each pod, in order, took the first cards that fit.

    Args:
        pods: Each pod's containers; they stay together on one node.
        nodes: The nodes in the order in which they are tried.
        cards: Cards of each node, tried in index order.
        whole: An empty card.
    """
    free = {node: [whole] * cards for node in nodes}
    for parts in pods:
        for node in nodes:
            after = _placed(free[node], parts)
            if after is not None:
                free[node] = after
                break
        else:
            raise ValueError("first fit found no place")
    return sum(card == whole for left in free.values() for card in left)


def _placed(free: list[Card], parts: Sequence[Part]) -> list[Card] | None:
    """The node's cards with the pod on the first that fit; None where it does not fit."""
    after = list(free)
    for count, core_milli, memory_mib in parts:
        fitting = [
            at
            for at, card in enumerate(after)
            if card[0] >= core_milli and card[1] >= memory_mib and card[2] >= 1
        ]
        if len(fitting) < count:
            return None
        for at in fitting[:count]:
            card = after[at]
            after[at] = (card[0] - core_milli, card[1] - memory_mib, card[2] - 1)
    return after
