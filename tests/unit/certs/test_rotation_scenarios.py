"""Stories of one fault each, played to their end in the simulated cluster.

``World`` raises ``BrokenError`` inside the step that takes a working leaf from an API server.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from certs import pki, state
from certs.actions import PublishBundle
from certs.state import Phase
from tests.support.certs_world import EPOCH, LIFETIMES, BrokenError, Stored, World, foreign_ca

FOREIGN = foreign_ca(1e6)


def running() -> World:
    """Three replicas, established, Steady."""
    world = World()
    for name in ("a", "b", "c"):
        world.start(name)
    world.settle(10)
    found = world.state()
    assert found is not None
    assert found.phase is Phase.STEADY
    return world


def rotating(phase: Phase) -> World:
    """A cluster in whose rotation the phase has just begun."""
    world = running()
    world.change_secret(lambda s: s.annotations.update({state.ROTATE_CA: "1"}))
    for _ in range(2000):
        world.look(0)
        world.act(0)
        found = world.state()
        assert found is not None
        if found.phase is phase:
            return world
        for name in world.replicas:
            world.serve(name)
            world.tell(name)
        world.advance(0.1)
    raise AssertionError(phase)


def converged(world: World, *, rounds: int = 8) -> None:
    """One CA that is trusted everywhere and served by all; call at the end of each story."""
    for _ in range(rounds):
        world.settle(15)
        if not world.look(0).actions and world.holders[0].plans[-1].phase is Phase.STEADY:
            break
    found = world.state()
    assert found is not None
    assert (found.phase, found.problems, found.previous) == (Phase.STEADY, (), ())
    assert found.current is not None
    for bundle in world.bundles():
        own = [c.fingerprint for c in bundle.certificates if c != FOREIGN]
        assert own == [found.current.fingerprint]
    assert all(
        ok
        for server in world.api_servers
        for process in world.replicas.values()
        for ok in world.accepts(server, process.leaf).values()
    )


def phases(world: World) -> list[Phase]:
    """The phases that were planned in, without repetitions."""
    seen = [p.phase for p in world.holders[0].plans]
    return [p for i, p in enumerate(seen) if i == 0 or p is not seen[i - 1]]


def test_a_rotation_goes_through_every_phase() -> None:
    """Stage, Trust, Settle, Switch, Retire, and then Steady with another CA."""
    world = running()
    before = world.state()
    world.holders[0].plans.clear()
    world.change_secret(lambda s: s.annotations.update({state.ROTATE_CA: "1"}))
    converged(world)
    order = [Phase.STAGE, Phase.TRUST, Phase.SETTLE, Phase.SWITCH, Phase.RETIRE, Phase.STEADY]
    assert [p for p in phases(world) if p in order][-6:] == order
    after = world.state()
    assert before is not None
    assert after is not None
    assert before.current != after.current
    assert after.rotate_ca == ""


ROTATING = [Phase.STAGE, Phase.TRUST, Phase.SETTLE, Phase.SWITCH, Phase.RETIRE]


@pytest.mark.parametrize("phase", ROTATING)
def test_the_holder_dies_in_each_phase(phase: Phase) -> None:
    """Its successor goes on from what is stored; no second CA is made for it."""
    world = rotating(phase)
    made = world.made
    world.look(0)
    world.crash(0)
    converged(world)
    assert world.made == (made + 1 if phase is Phase.STAGE else made)


@pytest.mark.parametrize("phase", ROTATING)
def test_two_holders_work_at_once(phase: Phase) -> None:
    """Two that both believe to hold the lease, one always a step behind the other."""
    world = rotating(phase)
    for _ in range(400):
        world.look(1)
        world.look(0)
        world.act(0)
        world.act(1)
        for name in world.replicas:
            world.serve(name)
            world.tell(name)
        world.advance(0.2)
    converged(world)


@pytest.mark.parametrize("phase", [Phase.STEADY, *ROTATING])
@pytest.mark.parametrize("fault", ["deleted", "emptied", "keys lost", "phase lost", "future"])
def test_the_secret_is_hurt_in_each_phase(phase: Phase, fault: str) -> None:
    """Replicas keep what works until the repaired Secret's CA has settled."""

    def change(secret: Stored) -> None:
        match fault:
            case "emptied":
                secret.data.clear()
            case "keys lost":
                secret.data.pop(state.CURRENT_KEY, None)
                secret.data.pop(state.NEXT_KEY, None)
            case "phase lost":
                secret.annotations.clear()
            case "future":
                secret.annotations[state.SINCE] = "2040-01-01T00:00:00Z"

    world = running() if phase is Phase.STEADY else rotating(phase)
    if fault == "deleted":
        world.secret = None
    else:
        world.change_secret(change)
    converged(world)


@pytest.mark.parametrize("phase", [Phase.STEADY, *ROTATING])
@pytest.mark.parametrize("pem", [b"", b"garbage", FOREIGN.pem.encode()])
def test_a_bundle_is_overwritten_in_each_phase(phase: Phase, pem: bytes) -> None:
    """It is repaired at once, and in Settle and Switch everything waits again."""
    world = running() if phase is Phase.STEADY else rotating(phase)
    world.set_bundle("config-1", "b", pem)
    world.look(0)
    world.act(0)
    world.look(0)
    while world.holders[0].snapshot is not None and world.holders[0].snapshot.actions:
        world.act(0)
    found = world.state()
    assert found is not None
    if phase is not Phase.STAGE:
        repaired = next(b for b in world.bundles() if b.entry == "b" and b.certificates)
        assert repaired.readable
    if phase in {Phase.SETTLE, Phase.SWITCH}:
        assert found.phase is Phase.TRUST
    converged(world)
    kept = pki.read_certificates(world.configs["config-1"].bundles["b"])
    assert (FOREIGN in kept) == (pem == FOREIGN.pem.encode())


def test_a_wipe_in_switch_makes_the_rest_wait() -> None:
    """One replica has moved; the others may not until the repaired caBundle has settled."""
    world = rotating(Phase.SWITCH)
    world.serve("a")
    world.tell("a")
    world.set_bundle("config-0", "a", b"")
    for _ in range(4):
        world.look(0)
        world.act(0)
        for name in ("b", "c"):
            world.serve(name)
    leaf_b = world.replicas["b"].leaf
    found = world.state()
    assert found is not None
    assert found.current is not None
    assert leaf_b is not None
    assert leaf_b.issuer == found.current.fingerprint
    converged(world)


def test_expired_certificates_are_pruned_and_foreign_ones_kept() -> None:
    """A caBundle does not grow for ever, and nobody else's trust is taken away."""
    world = running()
    old = foreign_ca(200)
    world.set_bundle(
        "config-0",
        "a",
        (old.pem + FOREIGN.pem).encode() + world.configs["config-0"].bundles["a"],
    )
    world.settle(5)
    assert len(world.bundles()[0].certificates) == 3
    world.advance(250)
    world.settle(30)
    assert FOREIGN in world.bundles()[0].certificates
    assert old not in world.bundles()[0].certificates


@pytest.mark.parametrize("dead_s", [501.0, 700.0, 980.0, 1500.0, 5000.0])
def test_nobody_worked_for_long(dead_s: float) -> None:
    """Half the CA's life, all of it, or several lives: it heals without a person."""
    world = running()
    world.advance(dead_s)
    converged(world)


@pytest.mark.parametrize("phase", ROTATING)
@pytest.mark.parametrize("dead_s", [100.0, 1500.0])
def test_nobody_worked_since_a_phase(phase: Phase, dead_s: float) -> None:
    """A rotation that was left half-finished, until leaves or the CA itself expired."""
    world = rotating(phase)
    world.crash(0)
    world.advance(dead_s)
    converged(world)


@pytest.mark.parametrize("phase", [Phase.STEADY, *ROTATING])
def test_the_clock_is_behind_in_each_phase(phase: Phase) -> None:
    """Nothing is broken meanwhile, and everything goes on when the clock is right again."""
    world = running() if phase is Phase.STEADY else rotating(phase)
    world.holders[0].clock_off_s = -5000
    world.settle(20)
    world.holders[0].clock_off_s = 0
    converged(world)


def test_an_expired_ca_is_replaced_without_waiting() -> None:
    """Every call fails already, so there is nothing to settle for."""
    world = running()
    world.advance(1500)
    world.holders[0].plans.clear()
    for _ in range(12):
        world.look(0)
        world.act(0)
        for name in world.replicas:
            world.serve(name)
            world.tell(name)
    found = world.state()
    assert found is not None
    assert Phase.SETTLE not in phases(world)
    assert found.current is not None
    assert {p.leaf.issuer for p in world.replicas.values() if p.leaf} == {
        found.current.fingerprint
    }
    assert world.now == EPOCH + timedelta(seconds=1510)


def test_a_retired_ca_stays_trusted_for_a_while() -> None:
    """Not before ``retire_s`` is the old CA dropped, although nobody serves from it."""
    world = rotating(Phase.RETIRE)
    begun = world.now
    while world.state().phase is Phase.RETIRE:  # type: ignore[union-attr]
        assert all(len(b.certificates) == 2 for b in world.bundles()) or (
            world.now - begun >= timedelta(seconds=LIFETIMES.retire_s)
        )
        world.look(0)
        world.act(0)
        world.advance(0.5)
    assert world.now - begun >= timedelta(seconds=LIFETIMES.retire_s)


def test_a_rotation_that_hung_begins_again() -> None:
    """A next CA that is worn out before it was used is not used any more."""
    world = rotating(Phase.SETTLE)
    hung = world.state()
    world.advance(600)
    world.look(0)
    world.act(0)
    found = world.state()
    assert found is not None
    assert found.phase is Phase.STAGE
    converged(world)
    after = world.state()
    assert hung is not None
    assert after is not None
    assert after.current != hung.next


def test_a_stuck_replica_holds_the_old_ca() -> None:
    """One that neither moves nor ends keeps the rotation in Switch until its leaf has expired."""
    world = rotating(Phase.SWITCH)
    stuck = world.replicas["a"]
    for _ in range(40):
        assert world.look(0).actions == ()
        for name in ("b", "c"):
            world.serve(name)
            world.tell(name)
        world.advance(1)
    assert all(world.accepts(world.api_servers[0], stuck.leaf).values())
    converged(world)


def test_a_silent_replica_warns() -> None:
    """What a rotation waits for is said, by name."""
    world = rotating(Phase.SWITCH)
    world.serve("b")
    world.tell("b")
    for _ in range(10):
        made = world.look(0)
        world.advance(1)
    assert made.phase is Phase.SWITCH
    assert [n.reason for n in made.notices] == ["ReplicaBehind"]
    assert "2 replicas" in made.notices[0].message


def test_a_restored_backup_is_introduced_like_a_new_ca() -> None:
    """Replicas do not jump back to a CA that API servers no longer trust."""
    world = running()
    assert world.secret is not None
    backup = (dict(world.secret.data), dict(world.secret.annotations))
    world.change_secret(lambda s: s.annotations.update({state.ROTATE_CA: "1"}))
    converged(world)
    world.holders[0].plans.clear()
    world.restore_secret(*backup)
    converged(world)
    assert {Phase.TRUST, Phase.SETTLE, Phase.SWITCH} <= set(phases(world))
    assert world.made == 2


def test_a_holder_whose_clock_is_behind_waits() -> None:
    """It makes nothing that has expired for everybody else, and says why."""
    world = running()
    world.holders[0].clock_off_s = -5000
    before = world.made
    world.change_secret(lambda s: s.data.clear())
    world.settle(30)
    plan = world.look(0)
    assert world.made == before
    assert plan.actions == ()
    assert [n.reason for n in plan.notices] == ["ClockBehind"]
    world.holders[0].clock_off_s = 0
    converged(world)


def test_a_ca_from_the_future_is_given_up_on_request() -> None:
    """Whoever made it had the wrong clock; a person says so by asking for a rotation."""
    world = World()
    world.start("a")
    world.holders[0].clock_off_s = 50000
    for _ in range(6):
        world.look(0)
        world.act(0)
    world.holders[0].clock_off_s = 0
    for _ in range(3):
        plan = world.look(0)
        world.act(0)
    assert [n.reason for n in plan.notices] == ["ClockBehind"]
    world.change_secret(lambda s: s.annotations.update({state.ROTATE_CA: "1"}))
    world.settle(60)
    found = world.state()
    assert found is not None
    assert found.current is not None
    assert found.current.certificate.not_before <= world.now
    assert found.rotate_ca == ""


def test_no_clock_shortens_the_wait() -> None:
    """A holder takes only what it has seen itself for settled, whatever the stored time says."""
    world = rotating(Phase.SETTLE)
    world.change_secret(lambda s: s.annotations.update({state.SINCE: "2029-01-01T00:00:00Z"}))
    world.crash(0)
    for _ in range(4):
        world.look(0)
        world.act(0)
    found = world.state()
    assert found is not None
    assert found.phase is Phase.SETTLE
    converged(world)


def test_warnings_before_the_end() -> None:
    """At a quarter and at a tenth of the life that is left."""
    world = running()
    world.advance(760)
    assert "25%" in world.look(0).notices[0].message
    world.advance(160)
    assert "10%" in world.look(0).notices[0].message
    assert all(n.warning for n in world.look(0).notices)


def test_a_configuration_that_appears_is_filled_at_once() -> None:
    """Installing the webhooks after the certificates needs no waiting."""
    world = running()
    world.configs["late"] = replace(world.configs["config-0"], bundles={"x": b""}, version=0)
    actions = world.look(0).actions
    assert [a.entry for a in actions if isinstance(a, PublishBundle)] == ["x"]
    converged(world)


def test_the_simulated_cluster_can_break() -> None:
    """A replica that moves to a CA nobody trusts yet is caught."""
    world = running()
    replacement = pki.new_authority("webhook", world.now, LIFETIMES)

    def change(secret: Stored) -> None:
        secret.data |= state.data_of(
            state.CaState(phase=Phase.SWITCH, since=world.now, next=replacement)
        )
        secret.annotations[state.PHASE] = Phase.SWITCH.value

    world.change_secret(change)
    for config in world.configs.values():
        config.bundles = {
            entry: pem + replacement.certificate.pem.encode()
            for entry, pem in config.bundles.items()
        }
    with pytest.raises(BrokenError, match="no longer accepts"):
        world.serve("a")
