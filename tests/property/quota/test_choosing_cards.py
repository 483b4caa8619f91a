"""Whatever cards a pod is given, it never costs more than it was admitted for."""

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from gpu_fraction.domain import assignment, inventory, keys
from gpu_fraction.domain.amounts import KEYS
from gpu_fraction.domain.asks import amounts_of, asks_of, rendered_for_us
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.backends.native import Native
from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.placement import empty, share_of
from gpu_fraction.domain.pod import Container, Resources
from gpu_fraction.domain.request import Refused, Request, Slice
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.quota.charge import charge
from gpu_fraction.quota.cluster_cards import ClusterCards, NodeMeta, NodeRecord
from gpu_fraction.quota.pods import PodRecord, facts_of
from tests.builders.pods import quota_container, quota_pod

NODE = "n"
MOST_CARDS = 6
sizes_mib = st.one_of(st.integers(1, 3000), st.sampled_from([5120, 16384, 81559, 81920, 294912]))
memories_mib = st.one_of(st.integers(1, 300), st.integers(1, 20000))
milli = st.integers(1, 1000)


def slices(name: str) -> st.SearchStrategy[Slice]:
    """What one container asks for, in each form that a request has."""
    cards = st.integers(1, MOST_CARDS)
    return st.one_of(
        st.builds(Slice, st.just(name), cards, st.none(), memories_mib, st.none()),
        st.builds(Slice, st.just(name), cards, milli, memories_mib, st.none()),
        st.builds(Slice, st.just(name), cards, milli, st.none(), milli),
    )


requests = (
    st.integers(1, 4)
    .flatmap(lambda count: st.tuples(*(slices(f"c{at}") for at in range(count))))
    .map(Request)
)
cards = st.builds(
    lambda mib, core_milli: inventory.Card(
        uuid="", index=0, model="X", memory_mib=mib, core_milli=core_milli
    ),
    sizes_mib,
    st.one_of(st.just(1000), milli),
)
nodes = st.lists(cards, min_size=MOST_CARDS, max_size=2 * MOST_CARDS).map(
    lambda drawn: tuple(
        msgspec.structs.replace(card, uuid=f"GPU-{at}", index=at) for at, card in enumerate(drawn)
    )
)


def admitted(request: Request, sizes: CardSizes, *, sidecar: bool) -> PodRecord:
    """The pod as the webhook leaves it; where asked, its first container is a sidecar."""
    edit = Native(BackendConfig(card_sizes=sizes)).render(request, quota_pod().pod())
    made = [
        Container(
            name=part.container,
            resources=Resources(limits=dict(edit.resources[part.container])),
            restart_policy="Always" if sidecar and at == 0 else None,
        )
        for at, part in enumerate(request.slices)
    ]
    split = 1 if sidecar else 0
    return quota_pod(
        containers=made[split:] or [quota_container("idle")],
        init=made[:split],
        annotations=dict(edit.annotations),
    )


def placed(record: PodRecord, node: tuple[Card, ...]) -> PodRecord | None:
    """The pod on the first cards that can serve each container; None where too few can."""
    chosen = {}
    members = (*record.spec.containers, *(record.spec.init_containers or ()))
    named = [(c.name, amounts_of(c.resources.limits)) for c in members if c.resources]
    for ask in asks_of(rendered_for_us(record.metadata.annotations or {}), named):
        due = [(card, share_of(ask, card.kind)) for card in empty(node)]
        serving = [(c, s) for c, s in due if s.memory_mib <= c.kind.memory_mib][: ask.cards]
        if len(serving) < ask.cards:
            return None
        chosen[ask.container] = tuple(
            CardShare(c.uuid, s.core_milli, s.memory_mib) for c, s in serving
        )
    annotations = (record.metadata.annotations or {}) | {keys.ASSIGNED: assignment.render(chosen)}
    return msgspec.structs.replace(
        record,
        metadata=msgspec.structs.replace(record.metadata, annotations=annotations),
        spec=msgspec.structs.replace(record.spec, node_name=NODE),
    )


def cost(record: PodRecord, cluster: ClusterCards) -> dict[str, int]:
    """What the pod is charged."""
    facts = facts_of(record)
    return dict(charge(facts.on(cluster.cards_for(record, facts))).amounts)


def _card(mib: int, at: int) -> Card:
    return Card(uuid=f"GPU-{at}", index=at, model="X", memory_mib=mib)


TINY = Slice("c0", 6, None, 1, None)
HALF = Slice("c1", 1, None, 40960, None)
PERMILLE = Slice("c0", 6, 1, None, 1)


@given(requests, nodes, st.booleans(), st.booleans())
@example(Request((TINY,)), tuple(_card(81920, at) for at in range(6)), False, False)
@example(Request((TINY, HALF)), tuple(_card(81920, at) for at in range(6)), True, False)
@example(Request((PERMILLE,)), tuple(_card(500, at) for at in range(6)), False, False)
def test_choosing_cards_only_lowers_the_charge(
    request: Request, node: tuple[Card, ...], sidecar: bool, configured: bool
) -> None:
    """For every request and all cards that it can be placed on, in each key."""
    sizes = CardSizes(max(card.memory_mib for card in node) if configured else None)
    cluster = ClusterCards()
    text = inventory.render(inventory.Inventory(cards=node))
    cluster.change(
        None, NodeRecord(metadata=NodeMeta(name=NODE, annotations={keys.INVENTORY: text}))
    )
    try:
        waiting = admitted(request, sizes, sidecar=sidecar)
    except Refused:
        return
    running = placed(waiting, node)
    if running is None:
        return
    before, after = cost(waiting, cluster), cost(running, cluster)
    assert {key for key in KEYS if after[key] > before[key]} == set()
