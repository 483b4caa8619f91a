"""Stories of time: nobody worked, clocks are wrong, replicas are late, backups come back.

``World`` raises ``BrokenError`` inside the step that takes a working leaf from an API server.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from gpu_fraction.certs import pki, state
from gpu_fraction.certs.actions import PublishBundle
from gpu_fraction.certs.state import Phase
from tests.support.certs_stories import ROTATING, converged, phases, rotating, running
from tests.support.certs_world import EPOCH, LIFETIMES, BrokenError, Stored, World


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


def test_the_secret_does_not_grow_where_rotations_are_due_before_the_last_is_retired() -> None:
    """Previous CAs are kept for ``retire_s``, but not beyond their own life."""
    lifetimes = replace(LIFETIMES, ca_life_s=60, leaf_life_s=40, retire_s=1000)
    world = World(lifetimes=lifetimes)
    for name in ("a", "b"):
        world.start(name)
    kept = []
    for _ in range(20):
        world.settle(15)
        found = world.state()
        assert found is not None
        kept.append(len(found.previous))
    assert world.made > 8
    # A life of 60 s, and 10 s for clocks that are behind: one CA follows another every 30 s.
    assert max(kept) <= 3
