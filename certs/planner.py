"""Computes the next step of a CA rotation from the time and the stored state.

The rule: a leaf is served only from a CA that every API server already trusts, and a CA is
dropped only when no leaf of it is served. So a new CA is *staged* in the Secret, added to every
caBundle (*trust*), given time to reach the API servers (*settle*), then used (*switch*). The old
one is dropped last (*retire*).

Each plan is one step: at most one write of the Secret, or the caBundles of one round. The
caller carries it out, reads again and plans again. A crash between two steps loses nothing,
because the next plan starts from the stored state.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from gpu_fraction.certs.actions import Notice, Plan, WriteState
from gpu_fraction.certs.bundle import Target
from gpu_fraction.certs.leaf import Replica
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.snapshot import Snapshot
from gpu_fraction.certs.state import CaState, Phase


def plan(
    now: datetime,
    state: CaState | None,
    targets: Sequence[Target],
    replicas: Sequence[Replica],
    lifetimes: Lifetimes,
    phase_seen_s: float,
) -> Plan:
    """The next step towards one CA that is trusted everywhere and served by all.

    Args:
        now: The time, UTC.
        state: The content of the Secret; None where it does not exist.
        targets: Every configuration of ours that exists, with its caBundles.
        replicas: Every replica with a recent heartbeat.
        lifetimes: Renewal points and waits.
        phase_seen_s: How long the caller itself has seen the state in this phase, seconds.
    """
    if state is None:
        return _first_write(now)
    if state.problems:
        message = "repaired: " + "; ".join(state.problems)
        notice = Notice("SecretRepaired", message, warning=True)
        return Plan(state.phase, (WriteState(state, notice),))
    seen = Snapshot(now, state, targets, replicas, lifetimes, phase_seen_s)
    notices = seen.notices()
    if step := seen.damage() or seen.reintroduce():
        return replace(step, notices=notices)
    if publish := seen.publish():
        return Plan(state.phase, publish, notices)
    step = seen.clock_behind() or _restart(seen) or _STEPS[state.phase](seen)
    return replace(step, notices=(*notices, *step.notices))


def _first_write(now: datetime) -> Plan:
    state = CaState(phase=Phase.STAGE, since=now, reason="there was no CA Secret")
    notice = Notice("RotationStarted", "there was no CA Secret: a new CA is made")
    return Plan(Phase.STAGE, (WriteState(state, notice),))


def _begin(seen: Snapshot, reason: str) -> Plan:
    notice = Notice("RotationStarted", f"{reason}: a new CA is made")
    return seen.enter(Phase.STAGE, notice, reason=reason)


def _restart(seen: Snapshot) -> Plan | None:
    """Start again where a rotation lost its CA, or took so long that its CA is due itself."""
    lost = seen.state.next is None or seen.worn_out()
    if not lost or seen.state.phase not in {Phase.TRUST, Phase.SETTLE, Phase.SWITCH}:
        return None
    notice = Notice("RotationStarted", "the next CA is missing or due for renewal", warning=True)
    return seen.enter(Phase.STAGE, notice)


def _steady(seen: Snapshot) -> Plan:
    if reason := seen.rotation_reason():
        return _begin(seen, reason)
    if orphans := seen.orphans():
        notice = Notice("OrphanFound", "a caBundle holds an earlier CA of ours: it is retired")
        return seen.enter(Phase.RETIRE, notice, previous=orphans)
    return seen.wait(seen.until_rotation_s())


def _stage(seen: Snapshot) -> Plan:
    state = seen.state
    if state.next is not None and not seen.worn_out():
        notice = Notice("CaStaged", "the next CA is in the Secret")
        return seen.enter(Phase.TRUST, notice, rotate_ca="")
    if state.next is not None:
        state = replace(state, previous=(*state.previous, state.next.certificate), next=None)
    state = replace(state, rotate_ca="")
    notice = Notice("CaStaged", "a new CA was made and is in the Secret")
    return Plan(Phase.STAGE, (WriteState(state, notice, new_ca=True),))


def _trust(seen: Snapshot) -> Plan:
    # Reached only when no caBundle must be written, so each of them has the next CA.
    if not seen.something_works():
        return _to_switch(seen, "no replica serves a trusted leaf")
    notice = Notice("CaTrusted", "every caBundle has the next CA")
    return seen.enter(Phase.SETTLE, notice)


def _settle(seen: Snapshot) -> Plan:
    left_s = seen.lifetimes.settle_s - seen.settled_s()
    if left_s <= 0:
        return _to_switch(seen, f"every caBundle has had it for {seen.settled_s():.3g} s")
    if not seen.something_works():
        return _to_switch(seen, "no replica serves a trusted leaf")
    return seen.wait(left_s)


def _to_switch(seen: Snapshot, why: str) -> Plan:
    notice = Notice("CaSwitching", f"replicas now serve from the next CA: {why}")
    return seen.enter(Phase.SWITCH, notice)


def _switch(seen: Snapshot) -> Plan:
    state = seen.state
    wanted = None if state.next is None else state.next.fingerprint
    behind = sorted(r.name for r in seen.serving if r.issuer != wanted)
    if behind:
        late = seen.elapsed_s() > seen.lifetimes.settle_s
        message = f"{len(behind)} replicas still serve from an earlier CA, first {behind[0]}"
        notices = (Notice("ReplicaBehind", message, warning=True),) if late else ()
        return seen.wait(seen.lifetimes.heartbeat_s, *notices)
    old = () if state.current is None else (state.current.certificate,)
    previous = (*state.previous, *old, *seen.orphans())
    return seen.enter(
        Phase.RETIRE if previous else Phase.STEADY,
        Notice("CaSwitched", "every replica serves from the new CA"),
        current=state.next,
        next=None,
        previous=previous,
    )


def _retire(seen: Snapshot) -> Plan:
    if seen.retiring():
        # Reached only when no caBundle must be written, so none of them has a previous CA.
        notice = Notice("CaRetired", "no caBundle has the old CA")
        return seen.enter(Phase.STEADY, notice, previous=())
    if reason := seen.rotation_reason():
        return _begin(seen, reason)
    left_s = seen.lifetimes.retire_s - seen.elapsed_s()
    return seen.wait(min(left_s, seen.until_rotation_s()))


_STEPS: Final = {
    Phase.STEADY: _steady,
    Phase.STAGE: _stage,
    Phase.TRUST: _trust,
    Phase.SETTLE: _settle,
    Phase.SWITCH: _switch,
    Phase.RETIRE: _retire,
}
