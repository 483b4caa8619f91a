"""The simulated cluster, brought to where a story begins, and to where it must end."""

from gpu_fraction.certs import state
from gpu_fraction.certs.certificate import Certificate
from gpu_fraction.certs.state import Phase
from tests.support.certs_world import World, foreign_ca

FOREIGN: Certificate = foreign_ca(1e6)
ROTATING = [Phase.STAGE, Phase.TRUST, Phase.SETTLE, Phase.SWITCH, Phase.RETIRE]


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
