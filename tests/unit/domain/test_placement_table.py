"""What a cluster's arrays take."""

import tracemalloc

from gpu_fraction.domain.placement import empty
from gpu_fraction.domain.placement.table import ClusterTable
from tests.builders.cards import card

NODES = 1000
INSTANCES = 200
"""On one node; a square of them for every node would be 80 MB."""


def test_one_node_of_many_instances_does_not_make_a_square_for_every_node() -> None:
    """What the other nodes take grows with their number of cards, not with its square."""
    alone = empty([card(0)])
    many = empty(card(at, uuid=f"MIG-{at}", numa=-1) for at in range(INSTANCES))
    table = ClusterTable()
    for at in range(NODES):
        table.set_node(f"n{at}", alone)
    tracemalloc.start()
    try:
        table.set_node("mig", many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000
