"""Stories of one fault each, played to their end: holders, the Secret, the caBundles.

``World`` raises ``BrokenError`` inside the step that takes a working leaf from an API server.
"""

import pytest

from gpu_fraction.certs import reading, state
from gpu_fraction.certs.state import Phase
from tests.support.certs_stories import FOREIGN, ROTATING, converged, phases, rotating, running
from tests.support.certs_world import Stored, foreign_ca


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
    kept = reading.read_certificates(world.configs["config-1"].bundles["b"])
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


@pytest.mark.parametrize("waited_s", [0.0, 21.0], ids=["in Retire", "at its end"])
def test_a_rotation_is_asked_for_while_one_still_serves_the_previous_ca(waited_s: float) -> None:
    """A process that was suspended comes back: its CA stays trusted, the next rotation begins."""
    world = rotating(Phase.SWITCH)
    suspended = world.replicas["a"]
    world.stop("a")
    world.settle(5)
    assert world.holders[0].plans[-1].phase is Phase.RETIRE
    world.advance(waited_s)
    world.replicas["a"] = suspended
    world.change_secret(lambda s: s.annotations.update({state.ROTATE_CA: "1"}))
    made = world.made
    converged(world)
    assert world.made == made + 1
