"""Placement by example: what the policies prefer and what a refusal says."""

import numpy as np
import pytest

from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.placement import (
    Ask,
    Why,
    choose,
    empty,
    explain,
    refusal,
    share_of,
    summary,
)
from gpu_fraction.domain.placement.vectorised import Evaluation, scores
from tests.builders.cards import card, node, taken

QUARTER = Ask("main", memory_milli=250, core_milli=250)


def cards_of(ask: Ask, *cards_and_taken: object) -> list[int]:
    """The numbers of the cards that one ask is given."""
    cards = cards_and_taken[0]
    placed = choose(cards, [ask])  # type: ignore[arg-type]
    assert placed is not None
    return [int(share.uuid.removeprefix("GPU-")) for share in placed.assignment[ask.container]]


def test_binpack_fills_the_fullest_card_that_still_fits() -> None:
    """A used card before an untouched one, and the tightest of the used."""
    cards = taken(node(4), [(1, 250, 4096), (2, 500, 8192), (3, 900, 15000)])
    assert cards_of(QUARTER, cards) == [2]


def test_spread_takes_the_emptiest_card() -> None:
    """The first of the untouched cards."""
    cards = taken(node(4), [(0, 250, 4096), (1, 500, 8192)])
    ask = Ask("main", memory_milli=250, core_milli=250, placement="spread")
    assert cards_of(ask, cards) == [2]


def test_topology_takes_cards_that_are_linked() -> None:
    """Two NVLink pairs on one node: the pair, not the first two that are free."""
    links = {0: 3, 1: 2, 2: 1, 3: 0}
    cards = empty(
        card(at, links={f"GPU-{other}": 400}, numa=at % 2) for at, other in links.items()
    )
    ask = Ask("main", cards=2, memory_milli=1000, core_milli=1000, placement="topology")
    assert cards_of(ask, cards) == [0, 3]
    assert cards_of(ask, taken(cards, [(3, 1, 1)])) == [1, 2]


def test_topology_without_links_keeps_to_one_numa_node() -> None:
    """NUMA is what is left to go by."""
    cards = empty(card(at, numa=numa) for at, numa in enumerate([0, 1, 0, 1]))
    ask = Ask("main", cards=2, memory_milli=1000, core_milli=1000, placement="topology")
    assert cards_of(ask, taken(cards, [(0, 1, 1)])) == [1, 3]


def test_closeness_is_what_either_card_knows_else_a_shared_numa_node() -> None:
    """Out of range is cut off; a card is not close to itself."""
    cards = empty(
        [
            card(0, numa=0, links={"GPU-1": 9999, "GPU-2": -5}),
            card(1, numa=0, links={"GPU-0": 3}),
            card(2, numa=1),
            card(3, numa=0),
            card(4, numa=-1),
        ]
    )
    assert [c.near for c in cards] == [
        (0, 4000, 0, 1, 0),
        (4000, 0, 0, 1, 0),
        (0, 0, 0, 0, 0),
        (1, 1, 0, 0, 0),
        (0, 0, 0, 0, 0),
    ]


def test_preferred_isolation_takes_an_enforcing_card_else_any() -> None:
    """A preference orders, it does not refuse."""
    cards = empty([card(0), card(1, enforces_memory=True, enforces_compute=True)])
    ask = Ask("main", memory_milli=250, core_milli=250, isolation="preferred")
    assert cards_of(ask, cards) == [1]
    assert cards_of(ask, cards[:1]) == [0]


def test_required_isolation_refuses_what_is_not_enforced_but_takes_whole_cards() -> None:
    """A whole card has no neighbour to be kept from."""
    cards = node(1)
    assert (
        choose(cards, [Ask("m", memory_milli=500, core_milli=500, isolation="required")]) is None
    )
    whole = Ask("m", memory_milli=1000, core_milli=1000, isolation="required")
    assert cards_of(whole, cards) == [0]


def test_containers_of_a_pod_have_their_own_shares() -> None:
    """They may share a card; each container's own cards are distinct."""
    asks = [
        Ask("small", memory_mib=1000),
        Ask("large", cards=2, memory_mib=16000, core_milli=900),
    ]
    placed = choose(node(3), asks)
    assert placed is not None
    assert list(placed.assignment) == ["small", "large"]
    assert [len(shares) for shares in placed.assignment.values()] == [1, 2]
    assert choose(node(2), [*asks, Ask("more", memory_mib=400)]) is None


def test_containers_that_fit_only_one_way_are_found_that_way() -> None:
    """The tightest card is tempting for the first container, but then the second has none."""
    cards = taken(node(2), [(0, 400, 10384), (1, 500, 8384)])
    asks = [Ask("a", memory_mib=6000, core_milli=500), Ask("b", memory_mib=5900, core_milli=600)]
    placed = choose(cards, asks)
    assert placed is not None
    assert {name: shares[0].uuid for name, shares in placed.assignment.items()} == {
        "a": "GPU-1",
        "b": "GPU-0",
    }


@pytest.mark.parametrize(
    ("ask", "core_milli", "memory_mib"),
    [
        (Ask("m", memory_mib=8192), 500, 8192),
        (Ask("m", memory_mib=1), 1, 1),
        (Ask("m", memory_milli=333, core_milli=333), 333, 5455),
        (Ask("m", memory_milli=1000, core_milli=1000), 1000, 16384),
        (Ask("m", memory_mib=16384, core_milli=0), 0, 16384),
    ],
)
def test_shares_are_rounded_down_but_not_to_nothing(
    ask: Ask, core_milli: int, memory_mib: int
) -> None:
    """Compute follows memory where it is not given; a third of 16384 MiB is 5455."""
    share = share_of(ask, node(1)[0].kind)
    assert (share.core_milli, share.memory_mib) == (core_milli, memory_mib)


def test_mig_instances_follow_their_card_when_it_is_named() -> None:
    """Naming a physical card takes any instance on it."""
    part = {"parent_memory_mib": 16384}
    cards = empty(
        [
            card(0, uuid="MIG-a", parent="GPU-x", **part),
            card(1, uuid="MIG-b", parent="GPU-y", **part),
        ]
    )
    placed = choose(cards, [Ask("m", memory_milli=500, core_milli=500, uuids=("GPU-y",))])
    assert placed is not None
    assert placed.assignment["m"][0].uuid == "MIG-b"


@pytest.mark.parametrize(
    ("cards", "ask", "text"),
    [
        (
            taken(node(1), [(0, 100, 14336)]),
            Ask("m", memory_mib=4096, core_milli=100),
            "card 0: 2048 MiB free, 4096 needed",
        ),
        (
            taken(node(3), [(0, 900, 14336), (1, 600, 1), (2, 600, 1)]),
            Ask("m", memory_mib=4096, core_milli=500),
            (
                "card 0: 2048 MiB and 100 milli-cores free, 4096 and 500 needed; "
                "cards 1, 2: 400 milli-cores free, 500 needed"
            ),
        ),
        (
            node(4, slots=0, healthy=False, health_reason="XID 79"),
            QUARTER,
            "cards 0-3: unhealthy: XID 79",
        ),
        (
            node(1),
            Ask("m", memory_milli=250, core_milli=250, models_in=("A100", "H100")),
            "card 0: is Tesla T4, asked for A100, H100",
        ),
        (
            node(1),
            Ask("m", memory_milli=250, core_milli=250, models_out=("T4",)),
            "card 0: is Tesla T4, asked for not T4",
        ),
        (
            node(1),
            Ask("m", memory_milli=250, core_milli=250, uuids=("GPU-9",)),
            "card 0: is not one of the UUIDs asked for",
        ),
        (
            node(1),
            Ask("m", memory_milli=250, core_milli=250, isolation="required"),
            "card 0: does not enforce memory and compute (isolation: none)",
        ),
        (node(1), Ask("m", memory_mib=20000), "card 0: has 16384 MiB, 20000 needed"),
        (
            taken(node(1, slots=1), [(0, 1, 1)]),
            QUARTER,
            "card 0: all 1 slots taken",
        ),
        (
            taken(node(3), [(0, 1000, 16384)]),
            Ask("m", cards=3, memory_milli=250, core_milli=250),
            "2 of 3 cards found; card 0: 0 MiB and 0 milli-cores free, 4096 and 250 needed",
        ),
        (node(1), Ask("m", cards=2, memory_milli=250, core_milli=250), "1 of 2 cards found"),
        ((), QUARTER, "no GPU in the node's inventory"),
    ],
)
def test_a_refusal_names_the_card_and_the_numbers(
    cards: tuple[object, ...], ask: Ask, text: str
) -> None:
    """What ``kubectl describe pod`` shows is enough to act on."""
    assert explain(cards, [ask]) == text  # type: ignore[arg-type]


def test_a_refusal_names_the_container_where_there_are_several() -> None:
    """Which container, or that they only miss each other."""
    cards = node(1)
    asks = [Ask("a", memory_mib=9000), Ask("b", memory_mib=20000)]
    assert explain(cards, asks) == "container b: card 0: has 16384 MiB, 20000 needed"
    asks = [Ask("a", memory_mib=9000), Ask("b", memory_mib=9000)]
    assert explain(cards, asks) == (
        "no place was found for the shares of containers a, b together, though each fits"
    )


def test_reasons_for_many_nodes_name_no_node() -> None:
    """So that the scheduler's event can count nodes that share a reason."""
    ask = Ask("m", cards=2, memory_mib=4096, core_milli=500)
    assert summary(ask, Why.MEMORY, {}) == (
        "no GPU has 4096 MiB and 500 milli-cores free, 2 needed in one node"
    )
    assert summary(QUARTER, Why.QUOTA, {"Tesla T4": "GPU quota team-a: no T4 left"}) == (
        "GPU quota team-a: no T4 left"
    )


def test_a_barred_model_is_refused_with_the_given_reason() -> None:
    """The quota of a model holds where the pod did not choose one."""
    found = refusal(QUARTER, node(1)[0], {"Tesla T4": "quota used up"})
    assert found is not None
    assert (found.why, found.text) == (Why.QUOTA, "quota used up")


def test_only_the_best_node_has_the_highest_score() -> None:
    """A lead of one is not rounded away; the worst has nothing, as have misses of a wish."""
    costs = np.array([100, 101, 600, 1100, 1 << 45, 0])
    fits = np.array([True, True, True, True, True, False])
    assert scores(Evaluation(fits, costs)).tolist() == [10, 9, 5, 0, 0, 0]
    assert scores(Evaluation(fits[:2], np.array([7, 7]))).tolist() == [10, 10]


def test_absurd_amounts_do_not_overflow() -> None:
    """An inventory is somebody else's text; its numbers are bounded, not trusted."""
    cards = empty([Card(uuid="GPU-0", index=0, model="X", memory_mib=10**30, core_milli=10**30)])
    placed = choose(cards, [Ask("m", memory_milli=1000, core_milli=1000)])
    assert placed is not None
    assert placed.assignment["m"][0].core_milli == 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"cards": 0, "memory_mib": 1},
        {},
        {"memory_mib": 1, "memory_milli": 1},
        {"memory_mib": 0},
        {"memory_milli": 0},
        {"memory_milli": 1001},
        {"memory_mib": 1, "core_milli": 1001},
        {"memory_mib": 1, "core_milli": -1},
    ],
)
def test_an_ask_out_of_range_is_an_error_of_the_caller(fields: dict[str, int]) -> None:
    """Nothing else has to check the ranges again."""
    with pytest.raises(ValueError, match=r"allowed|one of the two"):
        Ask("m", **fields)  # type: ignore[arg-type]
