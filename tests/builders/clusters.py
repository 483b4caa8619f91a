"""States of small clusters."""

from collections.abc import Mapping, Sequence

from gpu_fraction.domain import inventory
from gpu_fraction.domain.assignment import CardShare, render
from gpu_fraction.domain.placement import Ask, empty
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.state import ClusterState
from tests.builders import cards as build
from tests.builders import pods

GIB = 1024
HALF = Ask("main", memory_milli=500, core_milli=500)
WHOLE = Ask("main", memory_milli=1000, core_milli=1000)


def node_cards(node: str, count: int, **fields: object) -> list[inventory.Card]:
    """Cards whose names tell the node."""
    return [build.card(at, **{"uuid": f"GPU-{node}-{at}", **fields}) for at in range(count)]


def state_of(nodes: Mapping[str, Sequence[inventory.Card]]) -> ClusterState:
    """Nodes with nothing on them."""
    state = ClusterState()
    for name, cards in nodes.items():
        state.node_changed(name, empty(cards))
    return state


def holder(
    name: str,
    node: str,
    shares: Mapping[int, tuple[int, int]],
    *,
    priority: int = 0,
    deleting: bool = False,
    cpu: str = "",
    spec: Mapping[str, object] | None = None,
) -> Pod:
    """A pod that holds (milli-cores, MiB) of cards of a node."""
    cards = tuple(
        CardShare(f"GPU-{node}-{at}", core_milli, memory_mib)
        for at, (core_milli, memory_mib) in shares.items()
    )
    ask = Ask("main", cards=len(cards), core_milli=cards[0].core_milli, memory_mib=1)
    return pods.scheduler_pod(
        name,
        ask,
        node=node,
        assigned=render({"main": cards}),
        priority=priority,
        deleting=deleting,
        cpu=cpu,
        spec=spec,
        phase="Running",
    )
