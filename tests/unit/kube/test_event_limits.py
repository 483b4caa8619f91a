"""Events join and are limited by client-go's figures."""

from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.kube.event_limits import (
    COMBINED_PREFIX,
    Correlator,
    Decision,
    EventLimits,
    ObjectReference,
    Occurrence,
)

POD = ObjectReference("v1", "Pod", "p", "uid-1", "team-a")


def refused(
    message: str = "no", *, about: ObjectReference = POD, kind: str = "Warning"
) -> Occurrence:
    """An occurrence."""
    return Occurrence(about, kind, "Refused", message)


def feed(correlator: Correlator, occurrence: Occurrence, now_s: float) -> Decision | None:
    """Decide, and confirm what was written under a name made of the message."""
    decision = correlator.decide(occurrence, now_s)
    if decision is not None and not decision.name:
        correlator.wrote(decision, name=f"event-{now_s}", first_at=f"at-{now_s}")
    return decision


def test_a_repeat_raises_the_count() -> None:
    """The same sentence about the same object is one event object with a count."""
    correlator = Correlator()
    decisions = [feed(correlator, refused(), float(n)) for n in range(3)]
    assert [(d.name, d.count, d.first_at) for d in decisions if d] == [
        ("", 1, ""),
        ("event-0.0", 2, "at-0.0"),
        ("event-0.0", 3, "at-0.0"),
    ]


def test_another_object_type_or_sentence_is_another_event() -> None:
    """A successor of the same name has another uid, so it starts anew."""
    correlator = Correlator()
    successor = ObjectReference("v1", "Pod", "p", "uid-2", "team-a")
    for occurrence in (
        refused(),
        refused("other"),
        refused(about=successor),
        refused(kind="Normal"),
    ):
        decision = feed(correlator, occurrence, 0.0)
        assert decision is not None
        assert decision.count == 1


def test_the_tenth_differing_message_is_combined() -> None:
    """Nine objects stand for themselves; from the tenth on one follows the newest message."""
    correlator = Correlator()
    decisions = [feed(correlator, refused(f"{n} missing"), float(n)) for n in range(13)]
    messages = [d.occurrence.message for d in decisions if d]
    assert messages[:9] == [f"{n} missing" for n in range(9)]
    assert messages[9:] == [f"{COMBINED_PREFIX}{n} missing" for n in range(9, 13)]
    assert [d.count for d in decisions[9:] if d] == [1, 2, 3, 4]


def test_silence_makes_a_group_new() -> None:
    """Ten minutes after the last one, messages stand for themselves again."""
    correlator = Correlator()
    for n in range(10):
        feed(correlator, refused(f"{n}"), float(n))
    decision = feed(correlator, refused("later"), 9.0 + 600.1)
    assert decision is not None
    assert decision.occurrence.message == "later"


def test_beyond_the_burst_one_in_five_minutes_passes() -> None:
    """A controller that loops cannot fill the API; other objects are not affected."""
    correlator = Correlator()
    passed = [feed(correlator, refused(), 0.0) is not None for _ in range(30)]
    assert passed == [True] * 25 + [False] * 5
    assert feed(correlator, refused(), 299.0) is None
    assert feed(correlator, refused(), 300.5) is not None
    assert feed(correlator, refused(), 301.0) is None
    other = ObjectReference("v1", "Pod", "q", "uid-9", "team-a")
    assert feed(correlator, refused(about=other), 301.0) is not None
    assert feed(correlator, refused(kind="Normal"), 301.0) is not None


def test_what_was_limited_is_counted_all_the_same() -> None:
    """The count that shows after a flood is the true one."""
    correlator = Correlator()
    for _ in range(100):
        feed(correlator, refused(), 0.0)
    decision = feed(correlator, refused(), 400.0)
    assert decision is not None
    assert decision.count == 101


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15), st.floats(0, 400)), max_size=200)
)
def test_memory_and_writes_are_bounded(happenings: list[tuple[int, int, float]]) -> None:
    """Whatever happens, no more is remembered than allowed, nor written than the burst permits."""
    limits = EventLimits(remembered=8, burst=5)
    correlator = Correlator(limits)
    now_s, written = 0.0, 0
    for pod, message, pause_s in happenings:
        now_s += pause_s
        about = ObjectReference("v1", "Pod", f"p{pod}", f"u{pod}", "team-a")
        written += feed(correlator, refused(str(message), about=about), now_s) is not None
    assert written <= len(happenings)
    pods = {pod for pod, _, _ in happenings}
    if len(pods) <= limits.remembered:
        assert written <= len(pods) * (limits.burst + now_s / limits.refill_s)
