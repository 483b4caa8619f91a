"""What to do next about the CA: a pure function of the time and of what is stored.

One rule carries the whole: a leaf is served only from a CA that every API server already
trusts, and a CA is dropped only when nothing is served from it. So a new CA is *staged* in
the Secret, added to every caBundle (*trust*), given time to be seen (*settle*), then signed
with (*switch*), and only later is the old one dropped (*retire*).

Each plan is one step: at most one write of the Secret, or the caBundles of one round. The
caller carries it out, looks again and plans again; a crash between any two steps loses
nothing, because the next plan starts from what is stored.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from certs.actions import Notice, Plan, StageAuthority, WriteState
from certs.lifetimes import Lifetimes
from certs.observation import Replica, Target
from certs.state import CaState, Phase
from certs.view import View

__all__ = ["plan"]


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
        state: What the Secret holds; None where it does not exist.
        targets: Every configuration of ours that exists, with its caBundles.
        replicas: Every replica that has been heard of lately.
        lifetimes: Renewal points and waits.
        phase_seen_s: How long the caller itself has seen the state in this phase, seconds.
    """
    if state is None:
        return _first_write(now)
    if state.problems:
        message = "put right: " + "; ".join(state.problems)
        notice = Notice("SecretRepaired", message, warning=True)
        return Plan(state.phase, (WriteState(state, notice),))
    view = View(now, state, targets, replicas, lifetimes, phase_seen_s)
    notices = view.notices()
    if step := view.damage() or view.reintroduce():
        return replace(step, notices=notices)
    if publish := view.publish():
        return Plan(state.phase, publish, notices)
    step = view.clock_behind() or _restart(view) or _STEPS[state.phase](view)
    return replace(step, notices=(*notices, *step.notices))


def _first_write(now: datetime) -> Plan:
    state = CaState(phase=Phase.STAGE, since=now, reason="there was no CA Secret")
    notice = Notice("RotationStarted", "there was no CA Secret: a new CA is made")
    return Plan(Phase.STAGE, (WriteState(state, notice),))


def _begin(view: View, reason: str) -> Plan:
    notice = Notice("RotationStarted", f"{reason}: a new CA is made")
    return view.enter(Phase.STAGE, notice, reason=reason)


def _restart(view: View) -> Plan | None:
    """A rotation lost its CA, or hung so long that its CA is worn out."""
    if view.state.phase not in {Phase.TRUST, Phase.SETTLE, Phase.SWITCH}:
        return None
    if view.state.next is not None and not _worn_out(view):
        return None
    notice = Notice("RotationStarted", "the next CA is lost or worn out", warning=True)
    return view.enter(Phase.STAGE, notice)


def _steady(view: View) -> Plan:
    if reason := view.rotation_reason():
        return _begin(view, reason)
    orphans = view.orphans()
    if orphans:
        notice = Notice("OrphanFound", "a caBundle holds an earlier CA of ours: it is retired")
        return view.enter(Phase.RETIRE, notice, previous=orphans)
    return view.wait(view.until_rotation_s())


def _stage(view: View) -> Plan:
    state = view.state
    if state.next is not None and not _worn_out(view):
        notice = Notice("CaStaged", "the next CA is in the Secret")
        return view.enter(Phase.TRUST, notice, rotate_ca="")
    if state.next is not None:
        state = replace(state, previous=(*state.previous, state.next.certificate), next=None)
    state = replace(state, rotate_ca="")
    notice = Notice("CaStaged", "a new CA was made and is in the Secret")
    return Plan(Phase.STAGE, (StageAuthority(state, notice),))


def _trust(view: View) -> Plan:
    # Reached only when no caBundle had to be written: each holds the next CA, re-read.
    if not view.something_works():
        return _to_switch(view, "nothing works that could be disturbed")
    notice = Notice("CaTrusted", "every caBundle has the next CA")
    return view.enter(Phase.SETTLE, notice)


def _settle(view: View) -> Plan:
    left_s = view.lifetimes.settle_s - view.settled_s()
    if left_s <= 0:
        return _to_switch(view, f"every caBundle has had it for {view.settled_s():.3g} s")
    if not view.something_works():
        return _to_switch(view, "nothing works that could be disturbed")
    return view.wait(left_s)


def _to_switch(view: View, why: str) -> Plan:
    notice = Notice("CaSwitching", f"replicas now serve from the next CA: {why}")
    return view.enter(Phase.SWITCH, notice)


def _switch(view: View) -> Plan:
    state = view.state
    wanted = None if state.next is None else state.next.fingerprint
    behind = sorted(r.name for r in view.serving if r.issuer != wanted)
    if behind:
        late = view.elapsed_s() > view.lifetimes.settle_s
        message = f"{len(behind)} replicas still serve from an earlier CA, first {behind[0]}"
        notices = (Notice("ReplicaBehind", message, warning=True),) if late else ()
        return view.wait(view.lifetimes.presence_s, *notices)
    old = () if state.current is None else (state.current.certificate,)
    previous = (*state.previous, *old, *view.orphans())
    return view.enter(
        Phase.RETIRE if previous else Phase.STEADY,
        Notice("CaSwitched", "every replica serves from the new CA"),
        current=state.next,
        next=None,
        previous=previous,
    )


def _retire(view: View) -> Plan:
    if view.retiring():
        # Reached only when no caBundle had to be written: none holds a previous CA any more.
        notice = Notice("CaRetired", "no caBundle has the old CA any more")
        return view.enter(Phase.STEADY, notice, previous=())
    if reason := view.rotation_reason():
        return _begin(view, reason)
    left_s = view.lifetimes.retire_s - view.elapsed_s()
    return view.wait(min(left_s, view.until_rotation_s()))


def _worn_out(view: View) -> bool:
    """The next CA is already due for renewal itself: a rotation hung for half a life."""
    authority = view.state.next
    return authority is not None and view.now >= authority.certificate.renew_from(
        view.lifetimes.ca_renew_at, view.lifetimes.backdate_s
    )


_STEPS: Final = {
    Phase.STEADY: _steady,
    Phase.STAGE: _stage,
    Phase.TRUST: _trust,
    Phase.SETTLE: _settle,
    Phase.SWITCH: _switch,
    Phase.RETIRE: _retire,
}
