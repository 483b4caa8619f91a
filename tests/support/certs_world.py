"""A cluster in memory for the certificates: a Secret, configurations, API servers, replicas.

The parts under test are real: the planner, the replicas' choice, the text of the Secret and
of the caBundles, the certificates. What is simulated is who runs when, what an API server
has already seen, and the clock. Every step of ours that takes a working leaf away from an
API server raises ``BrokenError``.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gpu_fraction.certs import pki, reading, state
from gpu_fraction.certs.actions import Action, Plan, PublishBundle, WriteState
from gpu_fraction.certs.bundle import Bundle, Target, TargetKind, read_bundle, render_bundle
from gpu_fraction.certs.certificate import Authority, Certificate, Leaf
from gpu_fraction.certs.leaf import Replica, choose_authority, renew_at
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.planner import plan
from gpu_fraction.certs.state import CaState, Phase

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
LIFETIMES = Lifetimes(
    ca_life_s=1000,
    leaf_life_s=100,
    settle_s=6,
    retire_s=20,
    heartbeat_s=2,
)
# An API server sees every write well before a rotation relies on it.
LAG_S = LIFETIMES.settle_s * 0.8


def foreign_ca(life_s: float) -> Certificate:
    """A CA of somebody else."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody else")])
    key = ec.generate_private_key(ec.SECP256R1())
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(EPOCH)
        .not_valid_after(EPOCH + timedelta(seconds=life_s))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return reading.read_certificates(built.public_bytes(serialization.Encoding.PEM))[0]


# Certificates do not change, and reading the same ones is most of what a run would cost.
read = functools.lru_cache(maxsize=256)(read_bundle)


class BrokenError(AssertionError):
    """A step of ours made a call fail that worked before it."""


@dataclass
class Stored:
    """The Secret."""

    data: dict[str, bytes]
    annotations: dict[str, str]
    version: int


@dataclass
class Config:
    """A webhook configuration; ``foreign_write`` tells who wrote it last."""

    bundles: dict[str, bytes]
    version: int = 0
    foreign_write: bool = False


@dataclass
class Pending:
    """A write that an API server has not seen yet."""

    due: datetime
    entry: str
    pem: bytes
    foreign_write: bool


@dataclass
class ApiServer:
    """What one API server goes by: for each webhook the caBundle it has seen last."""

    seen: dict[str, bytes] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)


@dataclass
class Process:
    """A replica: its leaf, and what it has told."""

    name: str
    leaf: Leaf | None = None
    renew_from: datetime | None = None
    told: Replica | None = None
    token: str = ""


@dataclass
class Snapshot:
    """What a lease holder saw, and what it means to do."""

    secret_version: int
    config_versions: dict[str, int]
    actions: list[Action]


@dataclass
class Holder:
    """A lease holder; there may be two at a time."""

    seen: tuple[Phase, datetime] | None = None
    seen_at: datetime = EPOCH
    snapshot: Snapshot | None = None
    clock_off_s: float = 0.0
    plans: list[Plan] = field(default_factory=list)


class World:
    """Everything, and the steps that it can take."""

    def __init__(
        self,
        configs: int = 2,
        api_servers: int = 2,
        holders: int = 2,
        lifetimes: Lifetimes = LIFETIMES,
    ) -> None:
        self.lifetimes = lifetimes
        self.now = EPOCH
        self.secret: Stored | None = None
        self.versions = 0
        self.configs = {f"config-{i}": Config({"a": b"", "b": b""}) for i in range(configs)}
        self.api_servers = [ApiServer() for _ in range(api_servers)]
        self.holders = [Holder() for _ in range(holders)]
        self.replicas: dict[str, Process] = {}
        self.made = 0
        self._read: tuple[tuple[int, datetime], CaState] | None = None

    # What is there.

    def state(self, at: datetime | None = None) -> CaState | None:
        """The Secret as the code under test reads it."""
        if self.secret is None:
            return None
        key = (self.secret.version, at or self.now)
        if self._read is None or self._read[0] != key:
            found = state.read_state(self.secret.data, self.secret.annotations, key[1])
            self._read = (key, found)
        return self._read[1]

    def targets(self) -> list[Target]:
        """The configurations as the code under test reads them."""
        return [
            Target(
                TargetKind.VALIDATING,
                name,
                tuple(read(entry, pem) for entry, pem in config.bundles.items()),
            )
            for name, config in sorted(self.configs.items())
        ]

    def bundles(self) -> list[Bundle]:
        """Every caBundle as it is stored."""
        return [b for t in self.targets() for b in t.bundles]

    def accepts(self, server: ApiServer, leaf: Leaf | None) -> dict[str, bool]:
        """For each webhook, whether this API server accepts the leaf."""
        return {
            entry: leaf is not None
            and self.now < leaf.certificate.not_after
            and read(entry, pem).trusts(leaf.issuer)
            for entry, pem in server.seen.items()
        }

    # Steps of ours.

    def look(self, index: int) -> Plan:
        """A lease holder observes and plans."""
        holder = self.holders[index]
        clock = self.now + timedelta(seconds=holder.clock_off_s)
        found = self.state(clock)
        phase = None if found is None else (found.phase, found.since)
        if phase != holder.seen:
            holder.seen, holder.seen_at = phase, self.now
        seen_s = (self.now - holder.seen_at).total_seconds()
        told = [r.told for r in self.replicas.values() if r.told is not None]
        made = plan(clock, found, self.targets(), told, self.lifetimes, seen_s)
        holder.snapshot = Snapshot(
            0 if self.secret is None else self.secret.version,
            {name: c.version for name, c in self.configs.items()},
            list(made.actions),
        )
        holder.plans.append(made)
        return made

    def act(self, index: int) -> None:
        """A lease holder carries out one action; a conflict ends its plan."""
        holder = self.holders[index]
        snapshot = holder.snapshot
        if snapshot is None or not snapshot.actions:
            return
        action = snapshot.actions.pop(0)
        if isinstance(action, PublishBundle):
            done = self._publish(action, snapshot)
        else:
            done = self._write(action, snapshot, holder.clock_off_s)
        if not done:
            holder.snapshot = None

    def crash(self, index: int) -> None:
        """A lease holder dies; another process takes its place and remembers nothing."""
        self.holders[index] = Holder(clock_off_s=self.holders[index].clock_off_s)

    def start(self, name: str) -> None:
        """A replica starts: sign, tell, read again, serve."""
        process = self.replicas[name] = Process(name)
        first = choose_authority(
            self.now, self.state(), self.bundles(), None, None, self.lifetimes
        )
        if first is None:
            return
        leaf = self._sign(first.authority)
        process.told = Replica(name, leaf.issuer, leaf.certificate.not_after)
        self.serve(name)

    def serve(self, name: str) -> None:
        """A replica looks and, if need be, changes its leaf; telling comes later."""
        process = self.replicas[name]
        sign = choose_authority(
            self.now,
            self.state(),
            self.bundles(),
            process.leaf,
            process.renew_from,
            self.lifetimes,
        )
        if sign is None:
            return
        leaf = self._sign(sign.authority)
        for number, server in enumerate(self.api_servers):
            before, after = self.accepts(server, process.leaf), self.accepts(server, leaf)
            lost = [
                entry
                for entry, ok in before.items()
                if ok and not after[entry] and not self._doomed(server, entry, process.leaf)
            ]
            if lost:
                raise BrokenError(f"{name}: API server {number} no longer accepts it for {lost}")
        process.leaf = leaf
        process.renew_from = renew_at(leaf, name, self.lifetimes)

    def _doomed(self, server: ApiServer, entry: str, leaf: Leaf | None) -> bool:
        """Whether somebody else has already written what this API server will refuse it for."""
        return any(
            w.foreign_write and leaf is not None and not read("", w.pem).trusts(leaf.issuer)
            for w in server.pending
            if w.entry == entry
        )

    def tell(self, name: str) -> None:
        """A replica says what it serves."""
        process = self.replicas[name]
        if process.leaf is not None:
            process.told = Replica(name, process.leaf.issuer, process.leaf.certificate.not_after)

    def stop(self, name: str) -> None:
        """A replica ends and is forgotten."""
        del self.replicas[name]

    def advance(self, seconds: float) -> None:
        """Time passes; API servers see what they must have seen by then."""
        target = self.now + timedelta(seconds=seconds)
        due = sorted(
            ((p.due, i) for i, s in enumerate(self.api_servers) for p in s.pending),
            key=lambda pair: pair[0],
        )
        for at, index in due:
            if at <= target:
                self.now = max(self.now, at)
                self.propagate(index)
        self.now = target

    def propagate(self, index: int) -> None:
        """One API server sees the oldest write that it has not seen."""
        server = self.api_servers[index]
        if not server.pending:
            return
        write = server.pending.pop(0)
        for process in self.replicas.values():
            before = self.accepts(server, process.leaf).get(write.entry, False)
            after = process.leaf is not None and read("", write.pem).trusts(process.leaf.issuer)
            if before and not after and not write.foreign_write:
                raise BrokenError(f"API server {index} drops {process.name} from {write.entry}")
        server.seen[write.entry] = write.pem

    # Faults, by somebody else.

    def set_bundle(self, name: str, entry: str, pem: bytes) -> None:
        """Somebody else writes a caBundle."""
        self._store_bundle(name, entry, pem, foreign_write=True)

    def change_secret(self, change: Callable[[Stored], None]) -> None:
        """Somebody else changes the Secret."""
        if self.secret is not None:
            copy = replace(
                self.secret,
                data=dict(self.secret.data),
                annotations=dict(self.secret.annotations),
                version=self._version(),
            )
            change(copy)
            self.secret = copy

    def restore_secret(self, data: dict[str, bytes], annotations: dict[str, str]) -> None:
        """Somebody else puts an earlier Secret in place."""
        self.secret = Stored(dict(data), dict(annotations), self._version())

    # Until nothing is left to do.

    def settle(self, seconds: float, step_s: float = 1.0) -> None:
        """Everybody does their work, second by second; holder 0 alone holds the lease."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            for _ in range(3):
                self.look(0)
                for _ in range(8):
                    self.act(0)
                for name in self.replicas:
                    self.serve(name)
                    self.tell(name)
            self.advance(step_s)

    def _publish(self, action: PublishBundle, snapshot: Snapshot) -> bool:
        name = action.target.name
        config = self.configs.get(name)
        if config is None or config.version != snapshot.config_versions.get(name):
            return False
        present = next(b for b in action.target.bundles if b.entry == action.entry)
        pem = render_bundle(
            action.certificates, action.must_trust, present.fingerprints()
        ).encode()
        self._store_bundle(name, action.entry, pem, foreign_write=False)
        snapshot.config_versions[name] = self.configs[name].version
        return True

    def _write(self, action: WriteState, snapshot: Snapshot, clock_off_s: float) -> bool:
        version = 0 if self.secret is None else self.secret.version
        if version != snapshot.secret_version:
            return False
        wanted = action.state
        if action.new_ca:
            clock = self.now + timedelta(seconds=clock_off_s)
            made = pki.new_authority("webhook", clock, self.lifetimes)
            self.made += 1
            wanted = replace(wanted, next=made, phase=Phase.TRUST, since=clock)
        self.secret = Stored(state.data_of(wanted), state.annotations_of(wanted), self._version())
        snapshot.secret_version = self.secret.version
        return True

    def _store_bundle(self, name: str, entry: str, pem: bytes, *, foreign_write: bool) -> None:
        config = self.configs[name]
        config.bundles = config.bundles | {entry: pem}
        config.version = self._version()
        for server in self.api_servers:
            server.pending.append(
                Pending(self.now + timedelta(seconds=LAG_S), f"{name}/{entry}", pem, foreign_write)
            )

    def _sign(self, authority: Authority) -> Leaf:
        return pki.issue_leaf(authority, ["webhook.ns.svc"], self.now, self.lifetimes)

    def _version(self) -> int:
        self.versions += 1
        return self.versions
