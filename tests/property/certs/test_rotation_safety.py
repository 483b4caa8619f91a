"""Whoever crashes, whatever is deleted or overwritten: no step of ours breaks a working call."""

from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gpu_fraction.certs import state
from gpu_fraction.certs.state import Phase
from tests.support.certs_world import Stored, World, foreign_ca

FOREIGN = foreign_ca(1e6)
FOREIGN_PEM = FOREIGN.pem.encode()
REPLICAS = ["a", "b", "c"]
# A backup is restored with its phase; one that says "Switch" claims that API servers have
# settled, and nothing can check a lie of that kind.
RESTORABLE = {Phase.STEADY, Phase.STAGE, Phase.TRUST, Phase.RETIRE}


class Rotation(RuleBasedStateMachine):
    """Every interleaving of two lease holders, three replicas, API servers and faults.

    ``World`` raises ``BrokenError`` inside the step that takes a working leaf away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.backups: list[tuple[dict[str, bytes], dict[str, str]]] = []

    @initialize(running=st.integers(0, 3), established=st.booleans())
    def begin(self, *, running: int, established: bool) -> None:
        """A cluster before its first CA, or one that has run for a while."""
        for name in REPLICAS[:running]:
            self.world.start(name)
        if established:
            self.world.settle(12)

    @rule(index=st.integers(0, 1))
    def look(self, index: int) -> None:
        """A holder plans, from what it sees now."""
        self.world.look(index)
        found = self.world.state()
        if found is not None and found.phase in RESTORABLE and len(self.backups) < 8:
            secret = self.world.secret
            assert secret is not None
            self.backups.append((dict(secret.data), dict(secret.annotations)))

    @rule(index=st.integers(0, 1))
    def act(self, index: int) -> None:
        """A holder carries out one action of a plan that may be old."""
        self.world.act(index)

    @rule(index=st.integers(0, 1))
    def crash(self, index: int) -> None:
        """A holder is killed between any two actions."""
        self.world.crash(index)

    @rule(name=st.sampled_from(REPLICAS))
    def start_or_stop(self, name: str) -> None:
        """A replica starts, or ends."""
        if name in self.world.replicas:
            self.world.stop(name)
        else:
            self.world.start(name)

    @rule(name=st.sampled_from(REPLICAS))
    def serve(self, name: str) -> None:
        """A replica looks."""
        if name in self.world.replicas:
            self.world.serve(name)

    @rule(name=st.sampled_from(REPLICAS))
    def tell(self, name: str) -> None:
        """What a replica serves becomes known."""
        if name in self.world.replicas:
            self.world.tell(name)

    @rule(index=st.integers(0, 1))
    def propagate(self, index: int) -> None:
        """One API server is quicker than the other."""
        self.world.propagate(index)

    @rule(seconds=st.sampled_from([0.5, 2.0, 7.0, 21.0, 60.0, 500.0]))
    def advance(self, seconds: float) -> None:
        """Time passes; with the larger steps whole lifetimes do."""
        self.world.advance(seconds)

    @rule()
    def progress(self) -> None:
        """Everybody works for a while, so that runs get deep into rotations."""
        self.world.settle(2)

    @rule(
        config=st.sampled_from(["config-0", "config-1"]),
        entry=st.sampled_from(["a", "b"]),
        pem=st.sampled_from([b"", b"garbage", FOREIGN_PEM]),
    )
    def overwrite(self, config: str, entry: str, pem: bytes) -> None:
        """Somebody applies a manifest over a caBundle."""
        self.world.set_bundle(config, entry, pem)

    @rule(entry=st.sampled_from(["a", "b"]))
    def add_foreign(self, entry: str) -> None:
        """Somebody adds a CA of their own."""
        pem = self.world.configs["config-0"].bundles[entry]
        if b"garbage" not in pem:
            self.world.set_bundle("config-0", entry, pem + FOREIGN_PEM)

    @rule()
    def delete_secret(self) -> None:
        """Somebody deletes the Secret."""
        self.world.secret = None

    @rule(key=st.sampled_from(state.DATA_KEYS), how=st.sampled_from(["drop", "spoil", "cut"]))
    def corrupt_data(self, key: str, how: str) -> None:
        """A part of the Secret is lost or damaged."""

        def change(secret: Stored) -> None:
            if how == "drop":
                secret.data.pop(key, None)
            elif key in secret.data:
                half = secret.data[key][: len(secret.data[key]) // 2]
                secret.data[key] = b"spoiled" if how == "spoil" else half

        self.world.change_secret(change)

    @rule(which=st.sampled_from(["phase", "since", "future"]))
    def corrupt_annotations(self, which: str) -> None:
        """The phase or its beginning is lost, or lies ahead."""

        def change(secret: Stored) -> None:
            if which == "phase":
                secret.annotations.pop(state.PHASE, None)
            elif which == "since":
                secret.annotations[state.SINCE] = "yesterday"
            else:
                ahead = self.world.now + timedelta(days=400)
                secret.annotations[state.SINCE] = ahead.isoformat()

        self.world.change_secret(change)

    @precondition(lambda self: self.backups)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """Somebody restores an earlier Secret."""
        self.world.restore_secret(*data.draw(st.sampled_from(self.backups)))

    @rule()
    def request_rotation(self) -> None:
        """A person asks for a new CA."""
        self.world.change_secret(lambda s: s.annotations.update({state.ROTATE_CA: "please"}))

    @rule(seconds=st.sampled_from([0.0, -5.0, -300.0, -5000.0]))
    def set_clock(self, seconds: float) -> None:
        """The second holder's clock is behind."""
        self.world.holders[1].clock_off_s = seconds

    def teardown(self) -> None:
        """Left alone, everything converges to one CA, trusted everywhere, served by all."""
        world = self.world
        world.crash(0)
        for name in REPLICAS:
            if name not in world.replicas:
                world.start(name)
        for _ in range(12):
            world.settle(25)
            found = world.state()
            if found is not None and found.phase is Phase.STEADY and not world.look(0).actions:
                break
        found = world.state()
        assert found is not None
        assert (found.phase, found.problems) == (Phase.STEADY, ())
        assert found.current is not None
        assert not found.current.certificate.expired(world.now)
        for bundle in world.bundles():
            assert bundle.trusts(found.current.fingerprint)
            assert {c.subject for c in bundle.certificates if c != FOREIGN} == {
                found.current.certificate.subject
            }
            assert not any(
                c.expired(world.now - timedelta(seconds=20)) for c in bundle.certificates
            )
        for server in world.api_servers:
            for process in world.replicas.values():
                assert all(world.accepts(server, process.leaf).values())


Rotation.TestCase.settings = settings(
    max_examples=60,
    # The same examples every time, so that the fast level cannot fail by luck. More of them:
    # raise max_examples and take this line out; 1,500 take about three minutes.
    derandomize=True,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestRotation = Rotation.TestCase
