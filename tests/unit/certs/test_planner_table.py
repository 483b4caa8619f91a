"""The first step from every phase under every fault."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from gpu_fraction.certs import pki
from gpu_fraction.certs.actions import Plan, PublishBundle, WriteState
from gpu_fraction.certs.bundle import Bundle, Target, TargetKind
from gpu_fraction.certs.certificate import Authority
from gpu_fraction.certs.leaf import Replica
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.planner import plan
from gpu_fraction.certs.state import CaState, Phase

NOW = datetime(2030, 6, 1, tzinfo=UTC)
LIFETIMES = Lifetimes()
SINCE = NOW - timedelta(seconds=10)
OLD, CURRENT, NEXT = (
    pki.new_authority("webhook", NOW - timedelta(days=30), LIFETIMES) for _ in range(3)
)
DEAD = pki.new_authority("webhook", NOW - timedelta(days=400), LIFETIMES)


@dataclass(frozen=True)
class Situation:
    """What the planner is given."""

    state: CaState | None
    bundles: tuple[Bundle, ...]
    replicas: tuple[Replica, ...]
    now: datetime = NOW


def bundle(*authorities: Authority) -> Bundle:
    """A caBundle with these CAs."""
    return Bundle("entry", tuple(a.certificate for a in authorities))


def replica(issuer: Authority, name: str = "a") -> Replica:
    """A replica with a leaf of this CA."""
    return Replica(name, issuer.fingerprint, NOW + timedelta(days=20))


def healthy(phase: Phase) -> Situation:
    """The phase under way, with everything as it should be."""
    state = CaState(phase=phase, since=SINCE, current=CURRENT)
    trusts = bundle(CURRENT)
    match phase:
        case Phase.TRUST:
            state = replace(state, next=NEXT)
        case Phase.SETTLE | Phase.SWITCH:
            state, trusts = replace(state, next=NEXT), bundle(CURRENT, NEXT)
        case Phase.RETIRE:
            state, trusts = replace(state, previous=(OLD.certificate,)), bundle(CURRENT, OLD)
        case _:
            pass
    return Situation(state, (trusts, trusts), (replica(CURRENT), replica(CURRENT, "b")))


def with_state(situation: Situation, **changes: object) -> Situation:
    """The same with another Secret."""
    assert situation.state is not None
    return replace(situation, state=replace(situation.state, **changes))  # type: ignore[arg-type]


def with_dead_ca(situation: Situation) -> Situation:
    """The same with a current CA that expired a month ago, and leaves that did too."""
    bundles = tuple(
        replace(b, certificates=(DEAD.certificate, *b.certificates[1:])) for b in situation.bundles
    )
    dead = replace(replica(DEAD), leaf_not_after=NOW - timedelta(days=36))
    return replace(with_state(situation, current=DEAD), bundles=bundles, replicas=(dead,))


FAULTS: Final[dict[str, Callable[[Situation], Situation]]] = {
    "none": lambda s: s,
    "Secret deleted": lambda s: replace(s, state=None),
    "CA expired": with_dead_ca,
    "current lost": lambda s: with_state(s, current=None),
    "next lost": lambda s: with_state(s, next=None),
    "damage found": lambda s: with_state(s, problems=("spoiled",)),
    "clock behind": lambda s: replace(s, now=NOW - timedelta(days=200)),
    "bundle wiped": lambda s: replace(s, bundles=(s.bundles[0], bundle())),
    "unreadable": lambda s: replace(s, bundles=(s.bundles[0], Bundle("entry", readable=False))),
    "requested": lambda s: with_state(s, rotate_ca="1"),
    "all switched": lambda s: replace(s, replicas=(replica(NEXT), replica(NEXT, "b"))),
    "no replicas": lambda s: replace(s, replicas=()),
    "long ago": lambda s: with_state(s, since=NOW - timedelta(days=2)),
}


def told(made: Plan) -> str:
    """A plan in a word."""
    words = set()
    for action in made.actions:
        match action:
            case PublishBundle():
                words.add("publish")
            case WriteState(new_ca=True):
                words.add("make CA")
            case _:
                words.add(action.state.phase.value)
    return " ".join(sorted(words)) or "wait"


# fmt: off
#                    Steady    Stage     Trust     Settle    Switch    Retire
TABLE: Final = {
    "none":           "wait    | make CA | publish | wait    | wait    | wait",
    "Secret deleted": "Stage   | Stage   | Stage   | Stage   | Stage   | Stage",
    "CA expired":     "Stage   | make CA | publish | publish | publish | publish",
    "current lost":   "Stage   | make CA | publish | wait    | wait    | Stage",
    "next lost":      "wait    | make CA | Stage   | Stage   | Stage   | wait",
    "damage found":   "Steady  | Stage   | Trust   | Settle  | Switch  | Retire",
    "clock behind":   "wait    | wait    | publish | wait    | wait    | wait",
    "bundle wiped":   "publish | publish | publish | Trust   | Trust   | publish",
    "unreadable":     "publish | publish | publish | Trust   | Trust   | publish",
    "requested":      "Stage   | make CA | publish | wait    | wait    | Stage",
    "all switched":   "wait    | make CA | publish | wait    | Retire  | wait",
    "no replicas":    "wait    | make CA | publish | Switch  | Retire  | wait",
    "long ago":       "wait    | make CA | publish | Switch  | wait    | publish",
}
# fmt: on


@pytest.mark.parametrize("fault", TABLE)
def test_first_step(fault: str) -> None:
    """What is done first, for every phase."""
    made = []
    for phase in Phase:
        s = FAULTS[fault](healthy(phase))
        targets = [
            Target(TargetKind.MUTATING, f"config-{i}", (b,)) for i, b in enumerate(s.bundles)
        ]
        made.append(told(plan(s.now, s.state, targets, s.replicas, LIFETIMES, 1e6)))
    assert made == [cell.strip() for cell in TABLE[fault].split("|")]


def test_what_was_retired_does_not_come_back() -> None:
    """A rotation that is due at the end of Retire begins after it: the old CA is dropped once."""
    over = with_state(healthy(Phase.RETIRE), since=NOW - timedelta(days=2), rotate_ca="1")
    dropped = Target(TargetKind.MUTATING, "config", (bundle(CURRENT),))
    made = plan(NOW, over.state, [dropped], over.replicas, LIFETIMES, 1e6)
    (action,) = made.actions
    assert isinstance(action, WriteState)
    assert (action.state.phase, action.state.previous) == (Phase.STEADY, ())
