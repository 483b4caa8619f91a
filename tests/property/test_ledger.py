"""What is taken of a card never exceeds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.node_daemon.state.allocation import (
    Allocation,
    Binding,
    ContainerKey,
    Nonce,
    PodUid,
    Token,
)
from gpu_fraction.node_daemon.state.errors import Refusal
from gpu_fraction.node_daemon.state.ledger import Ledger, Usage
from gpu_fraction.node_daemon.state.tokens import MAX_TOKENS, token, token_states
from tests.support.node_rig import inventory, rig_card, share

CARDS = {
    c.uuid: c for c in (rig_card(0, memory_mib=100, slots=3), rig_card(1, memory_mib=50, slots=2))
}

shares = st.lists(
    st.builds(
        CardShare,
        st.sampled_from(["GPU-0", "GPU-1", "GPU-9"]),
        st.integers(0, 1000),
        st.integers(1, 120),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda s: s.uuid,
)
steps = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), shares)), min_size=1, max_size=40
)


@given(steps)
def test_sums_never_exceed_a_card(moves: list[tuple[str, list[CardShare] | None]]) -> None:
    """Whatever is reserved and released, in any order; a refusal changes nothing."""
    ledger = Ledger()
    model: dict[str, tuple[CardShare, ...]] = {}
    for name, wanted in moves:
        key = ContainerKey(PodUid(name), "main")
        if wanted is None:
            ledger.release(key)
            model.pop(name, None)
            continue
        before = ledger.usage()
        try:
            ledger.reserve(key, wanted, CARDS)
            assert model.setdefault(name, tuple(wanted)) == tuple(wanted)
        except Refusal:
            assert ledger.usage() == before
        for uuid, used in ledger.usage().items():
            limits = CARDS[uuid]
            assert used.core_milli <= limits.core_milli
            assert used.memory_mib <= limits.memory_mib
            assert used.slots <= limits.slots
    flat = [s for held in model.values() for s in held]
    assert ledger.usage() == {
        uuid: Usage(
            sum(s.core_milli for s in flat if s.uuid == uuid),
            sum(s.memory_mib for s in flat if s.uuid == uuid),
            sum(s.uuid == uuid for s in flat),
        )
        for uuid in {s.uuid for s in flat}
    }


def test_a_slice_is_never_changed_in_place() -> None:
    """Other shares for the same container are refused, the same ones are no second take."""
    ledger = Ledger()
    key = ContainerKey(PodUid("u"), "main")
    cards = {"GPU-0": rig_card(0)}
    ledger.reserve(key, [share(0)], cards)
    ledger.reserve(key, [share(0)], cards)
    assert ledger.usage() == {"GPU-0": Usage(250, 10_000, 1)}
    with pytest.raises(Refusal, match="already holds"):
        ledger.reserve(key, [share(0, 251)], cards)


allocations = st.lists(
    st.tuples(
        st.integers(0, 12), st.one_of(st.none(), st.sampled_from(["GPU-0", "GPU-1", "GPU-5"]))
    ),
    max_size=10,
)


@given(allocations, st.tuples(st.booleans(), st.booleans()))
def test_tokens_are_healthy_as_far_as_healthy_cards_have_slots(
    held: list[tuple[int, str | None]], well_cards: tuple[bool, bool]
) -> None:
    """Holders on sick cards see it; nobody else does; newcomers find just the free slots."""
    cards = inventory(
        rig_card(0, slots=5, healthy=well_cards[0]), rig_card(1, slots=4, healthy=well_cards[1])
    )
    known = [
        Allocation(
            Nonce(f"n{i}"),
            token(index),
            i,
            0.0,
            Binding("ns", "p", PodUid(f"u{i}"), "c", (CardShare(uuid, 1, 1),)) if uuid else None,
        )
        for i, (index, uuid) in enumerate(held)
    ]
    states = {s.token: s.healthy for s in token_states(cards, known)}
    well = {c.uuid: c.slots for c in cards.cards if c.healthy}
    latest = {a.token: a for a in known}
    for name, allocation in latest.items():
        sits = allocation.binding.shares[0].uuid if allocation.binding else None
        assert states[name] == (sits is None or sits in well)
    in_use = sum(states[name] for name in latest)
    assert sum(states.values()) <= max(sum(well.values()), in_use)
    free_ids = [name for name in states if name not in latest]
    wanted = min(len(free_ids), max(0, sum(well.values()) - in_use))
    assert sum(states[name] for name in free_ids) == wanted
    assert set(states) >= {token(i) for i in range(9)}


def test_tokens_stay_within_what_a_kubelet_bears() -> None:
    """Ids are at most 63 characters and never more than a restart of the kubelet bears."""
    many = inventory(*(rig_card(i, slots=1_000) for i in range(8)))
    states = token_states(many, ())
    assert len(states) == MAX_TOKENS
    assert len({s.token for s in states}) == MAX_TOKENS
    assert all(len(s.token) <= 63 for s in states)
    assert Token(states[0].token) == "gpu-fraction-slot-0000"
