"""What a Secret holds is read back whole, and put right where it is damaged."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_fraction.certs import pki
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.state import (
    DATA_KEYS,
    PHASE,
    SINCE,
    CaState,
    Phase,
    annotations_of,
    data_of,
    read_state,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OLD, CURRENT, NEXT = (pki.new_authority("webhook", NOW, Lifetimes()) for _ in range(3))
FULL = CaState(
    phase=Phase.SETTLE,
    since=NOW - timedelta(seconds=5),
    current=CURRENT,
    next=NEXT,
    previous=(OLD.certificate,),
    reason="requested",
    rotate_leaf="1",
)


@pytest.mark.parametrize("phase", list(Phase))
def test_round_trip(phase: Phase) -> None:
    """Every phase with the content that belongs to it survives being stored."""
    state = replace(FULL, phase=phase)
    if phase in {Phase.STEADY, Phase.RETIRE}:
        state = replace(state, next=None)
    if phase is Phase.STEADY:
        state = replace(state, previous=())
    back = read_state(data_of(state), annotations_of(state), NOW)
    assert back == state
    assert back.problems == ()


@pytest.mark.parametrize("key", DATA_KEYS)
@pytest.mark.parametrize("damage", [b"", b"spoiled", None])
def test_every_part_may_be_damaged(key: str, damage: bytes | None) -> None:
    """The rest stays, what is lost is named, and a certificate without its key stays trusted."""
    data = data_of(FULL)
    if damage is None:
        del data[key]
    else:
        data[key] = damage
    back = read_state(data, annotations_of(FULL), NOW)
    trusted = {c.fingerprint for c in back.previous}
    match key:
        case "ca.crt":
            assert (back.current, back.next, back.phase) == (None, NEXT, Phase.SETTLE)
        case "ca.key":
            assert (back.current, back.next, back.phase) == (None, NEXT, Phase.SETTLE)
            assert CURRENT.fingerprint in trusted
        case "next-ca.crt":
            assert (back.current, back.next, back.phase) == (CURRENT, None, Phase.STAGE)
        case "next-ca.key":
            assert (back.current, back.next, back.phase) == (CURRENT, None, Phase.STAGE)
            assert NEXT.fingerprint in trusted
        case _:
            assert (back.current, back.next, back.previous) == (CURRENT, NEXT, ())
    named = any(key.removesuffix(".key").removesuffix(".crt") in p for p in back.problems)
    assert named or (key == "previous-ca.crt" and damage is None)


def test_an_empty_secret_starts_a_rotation() -> None:
    """A Secret somebody created empty, or emptied, is as good as none."""
    back = read_state({}, {}, NOW)
    assert (back.phase, back.current, back.next) == (Phase.STAGE, None, None)
    assert back.problems


@pytest.mark.parametrize(
    ("content", "phase"),
    [
        ({"current"}, Phase.STEADY),
        ({"current", "next"}, Phase.TRUST),
        ({"next"}, Phase.TRUST),
        ({"current", "previous"}, Phase.RETIRE),
        (set(), Phase.STAGE),
    ],
)
def test_a_lost_phase_is_never_guessed_too_far(content: set[str], phase: Phase) -> None:
    """Without annotations the phase is what the content proves, and begins now."""
    state = CaState(
        phase=Phase.STEADY,
        since=NOW,
        current=CURRENT if "current" in content else None,
        next=NEXT if "next" in content else None,
        previous=(OLD.certificate,) if "previous" in content else (),
    )
    back = read_state(data_of(state), {}, NOW)
    assert (back.phase, back.since) == (phase, NOW)


@pytest.mark.parametrize("since", ["", "yesterday", "2031-01-01T00:00:00Z"])
def test_a_beginning_that_cannot_be_is_now(since: str) -> None:
    """A missing, unreadable or future beginning makes a phase begin anew."""
    annotations = annotations_of(FULL) | {SINCE: since}
    back = read_state(data_of(FULL), annotations, NOW)
    assert back.since == NOW
    assert any(SINCE in problem for problem in back.problems)


def test_an_unknown_phase_is_a_problem() -> None:
    """A phase of some other version is not taken at its word."""
    back = read_state(data_of(FULL), annotations_of(FULL) | {PHASE: "Dance"}, NOW)
    assert back.phase is Phase.TRUST
    assert any("Dance" in problem for problem in back.problems)


def test_the_same_ca_twice_is_one() -> None:
    """A next CA that is the current one is no next CA."""
    state = replace(FULL, next=CURRENT)
    back = read_state(data_of(state), annotations_of(state), NOW)
    assert (back.current, back.next, back.phase) == (CURRENT, None, Phase.STAGE)


def test_text_of_a_state_holds_no_key() -> None:
    """A logged state shows no key."""
    assert "PRIVATE" not in repr(FULL)
