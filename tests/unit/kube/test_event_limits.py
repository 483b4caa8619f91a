"""Equal events join, and each object's events are limited."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.kube.event_limits import BURST, PER_S, Event, EventLimiter, ObjectReference

AT = datetime(2030, 1, 1, tzinfo=UTC)
POD = ObjectReference("v1", "Pod", "p", "uid-1", "team-a")


def refused(message: str = "no", *, about: ObjectReference = POD, kind: str = "Warning") -> Event:
    """An event."""
    return Event(about, kind, "Refused", message)


def test_a_repeat_raises_the_count() -> None:
    """The same sentence about the same object is one series with a count."""
    limiter = EventLimiter()
    found = [limiter.admit(refused(), AT, float(n)) for n in range(3)]
    assert found[0] is not None
    assert all(series is found[0] for series in found)
    assert found[0].count == 3


def test_another_object_type_or_sentence_is_another_event() -> None:
    """A successor of the same name has another uid, so it starts anew."""
    limiter = EventLimiter()
    successor = ObjectReference("v1", "Pod", "p", "uid-2", "team-a")
    for event in (refused(), refused("other"), refused(about=successor), refused(kind="Normal")):
        series = limiter.admit(event, AT, 0.0)
        assert series is not None
        assert series.count == 1


def test_beyond_the_burst_one_in_five_minutes_passes() -> None:
    """A controller that loops cannot fill the API; other objects are not affected."""
    limiter = EventLimiter()
    passed = [limiter.admit(refused(), AT, 0.0) is not None for _ in range(30)]
    assert passed == [True] * 25 + [False] * 5
    assert limiter.admit(refused(), AT, 299.0) is None
    assert limiter.admit(refused(), AT, 300.5) is not None
    assert limiter.admit(refused(), AT, 301.0) is None
    other = ObjectReference("v1", "Pod", "q", "uid-9", "team-a")
    assert limiter.admit(refused(about=other), AT, 301.0) is not None
    assert limiter.admit(refused(kind="Normal"), AT, 301.0) is not None


def test_messages_that_differ_share_the_limit() -> None:
    """A number in the message does not get past the limit of its object."""
    limiter = EventLimiter()
    passed = [limiter.admit(refused(f"{n} missing"), AT, 0.0) is not None for n in range(30)]
    assert passed == [True] * 25 + [False] * 5


def test_what_was_limited_is_counted_all_the_same() -> None:
    """The count that shows after a flood is the true one."""
    limiter = EventLimiter()
    for _ in range(100):
        limiter.admit(refused(), AT, 0.0)
    series = limiter.admit(refused(), AT, 400.0)
    assert series is not None
    assert series.count == 101


def test_what_is_not_used_for_long_is_forgotten() -> None:
    """Memory is bounded: the least recent series starts anew, a recent one does not."""
    limiter = EventLimiter(remembered=2)
    for message in ("a", "b", "a", "c"):
        limiter.admit(refused(message), AT, 0.0)
    counts = [limiter.admit(refused(message), AT, 0.0) for message in ("a", "b")]
    assert [series.count for series in counts if series] == [3, 1]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 15), st.floats(0, 400)), max_size=400))
def test_writes_are_bounded(happenings: list[tuple[int, int, float]]) -> None:
    """Whatever happens, the first event of an object passes, and no more than the limit."""
    limiter = EventLimiter()
    now_s, written = 0.0, 0
    seen: set[int] = set()
    for pod, message, pause_s in happenings:
        now_s += pause_s
        about = ObjectReference("v1", "Pod", f"p{pod}", f"u{pod}", "team-a")
        passed = limiter.admit(refused(str(message), about=about), AT, now_s) is not None
        assert passed or pod in seen
        seen.add(pod)
        written += passed
    assert written <= len(seen) * (BURST + now_s * PER_S)
