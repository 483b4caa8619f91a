"""The health machine under any sequence of events."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gpu_fraction.node_daemon.cards import health
from gpu_fraction.node_daemon.cards.health_events import (
    IGNORED,
    UNTIL_RESET,
    Clear,
    Event,
    Fault,
    Poll,
    Target,
    Xid,
)

POLICY = health.HealthPolicy()
MOST_GOOD_POLLS = POLICY.good_polls << POLICY.max_doublings
TARGETS = (
    Target("GPU-a"),
    Target("GPU-b"),
    Target("MIG-1", "GPU-m", 1, 0),
    Target("MIG-2", "GPU-m", 2, 0),
)
PHYSICAL = sorted({t.physical for t in TARGETS})
INSTANCE = st.none() | st.integers(0, 3)
XIDS = st.builds(Xid, st.sampled_from(PHYSICAL), st.integers(1, 160), INSTANCE, INSTANCE)
POLLS = st.builds(
    Poll,
    st.sampled_from(PHYSICAL),
    lost=st.sampled_from(["", "", "gone"]),
    error=st.sampled_from(["", "", "timeout"]),
    recovery_action=st.none() | st.integers(0, 7),
    repair_pending=st.booleans(),
    repair_failed=st.booleans(),
    uncorrected_ecc=st.none() | st.integers(0, 9),
    regular=st.booleans(),
)
CLEARS = st.builds(Clear, st.none() | st.frozensets(st.sampled_from(PHYSICAL)))
FAULTS = st.builds(Fault, st.sampled_from(PHYSICAL), st.sampled_from(["poison", "gone"]))
EVENTS = st.one_of(XIDS, POLLS, CLEARS, FAULTS)


def after(events: list[Event]) -> tuple[health.Health, float]:
    """The state after these, and the time."""
    state, now_s = health.watching(health.Health(), TARGETS), 0.0
    for event in events:
        now_s += 1
        state = health.step(state, event, now_s, POLICY)
    return state, now_s


def physical(event: Event) -> frozenset[str]:
    """The cards an event names."""
    if isinstance(event, Clear):
        return frozenset(PHYSICAL) if event.uuids is None else event.uuids
    return frozenset({event.uuid})


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=40), EVENTS)
def test_an_event_changes_no_card_but_its_own(events: list[Event], last: Event) -> None:
    """The other cards are exactly as before."""
    state, now_s = after(events)
    new = health.step(state, last, now_s + 1, POLICY)
    for target in TARGETS:
        if target.physical not in physical(last):
            assert new.cards[target.uuid] == state.cards[target.uuid]


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_a_reset_and_good_polls_heal_every_card(events: list[Event]) -> None:
    """From any state, whatever happened, a seen reset and enough good polls end in health."""
    state, now_s = after(events)
    for card in PHYSICAL:
        series = [Poll(card, recovery_action=1)]
        series += [Poll(card, recovery_action=0)] * (MOST_GOOD_POLLS + 1)
        for poll in series:
            now_s += 1
            state = health.step(state, poll, now_s, POLICY)
    assert health.sick(state) == {}


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=40), st.sampled_from(TARGETS), st.integers(1, 160))
def test_a_counting_xid_of_a_whole_card_leaves_it_sick(
    events: list[Event], target: Target, xid: int
) -> None:
    """Whatever was before; an ignored one changes nothing."""
    state, now_s = after(events)
    new = health.step(state, Xid(target.physical, xid), now_s + 1, POLICY)
    if xid in IGNORED or xid == 154:
        assert new == state
    else:
        assert f"XID {xid}" in health.sick(new)[target.uuid]


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_changes_and_states_agree(events: list[Event]) -> None:
    """Following the changes gives the sick cards: no change is missed, none is made up."""
    state = health.watching(health.Health(), TARGETS)
    followed: dict[str, str] = {}
    for now_s, event in enumerate(events):
        new = health.step(state, event, float(now_s), POLICY)
        for change in health.changes(state, new):
            assert change.healthy == (change.reason == "")
            followed[change.uuid] = change.reason
        state = new
        assert {uuid: reason for uuid, reason in followed.items() if reason} == health.sick(state)


class GraveErrors(RuleBasedStateMachine):
    """A card after a grave error is not healthy before a reset was seen or someone said so."""

    @initialize()
    def start(self) -> None:
        """One healthy card."""
        self.state = health.watching(health.Health(), TARGETS[:1])
        self.now_s = 0.0
        self.waits_for_reset = False
        self.down = False

    def apply(self, event: Event) -> None:
        """Let it happen."""
        self.now_s += 1
        self.state = health.step(self.state, event, self.now_s, POLICY)

    @rule(xid=st.sampled_from(sorted(UNTIL_RESET)))
    def grave(self, xid: int) -> None:
        """An error that needs a reset."""
        self.apply(Xid("GPU-a", xid))
        self.waits_for_reset = True

    @rule(xid=st.sampled_from([62, 63, 92, 94]))
    def passing(self, xid: int) -> None:
        """An error that does not."""
        self.apply(Xid("GPU-a", xid))

    @rule(times=st.integers(1, 30))
    def good(self, times: int) -> None:
        """Polls that find nothing; the first after trouble is the sign of a reset."""
        for _ in range(times):
            self.apply(Poll("GPU-a", recovery_action=0))
        if self.down:
            self.waits_for_reset = self.down = False

    @rule(action=st.integers(1, 7))
    def trouble(self, action: int) -> None:
        """The driver asks for something."""
        self.apply(Poll("GPU-a", recovery_action=action))
        self.down = True

    @rule()
    def unreadable(self) -> None:
        """No answer says nothing about a reset."""
        self.apply(Poll("GPU-a", error="timeout"))

    @rule()
    def clear(self) -> None:
        """An administrator takes it on himself."""
        self.apply(Clear(None))
        self.waits_for_reset = False

    @invariant()
    def sick_until_reset(self) -> None:
        """The rule of this machine."""
        if self.waits_for_reset:
            assert not self.state.cards["GPU-a"].healthy


TestGraveErrors = GraveErrors.TestCase
TestGraveErrors.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
