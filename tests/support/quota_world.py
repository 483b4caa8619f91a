"""A namespace's quotas, pods, webhook replicas and controllers in one process.

``Server`` is the part of an API server that quotas touch: versions, compare-and-swap, and a
history of changes that watchers take over when they are told to. Nothing in it knows quotas.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.kube.errors import ConflictError, NotFoundError
from gpu_fraction.kube.listing import Listing
from gpu_fraction.quota.admission import Admission, Settings
from gpu_fraction.quota.cache import QuotaCache
from gpu_fraction.quota.claims import ClaimCache, ClaimRecord
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.controller import Controller, ControllerSettings
from gpu_fraction.quota.decision import Outcome
from gpu_fraction.quota.gone import Gone
from gpu_fraction.quota.pods import PodRecord, Status, facts_of
from gpu_fraction.quota.seen import Objects
from gpu_fraction.quota.usage import PodCache
from gpu_fraction.quota.wire import GPUQuota, QuotaMeta, ReservationWire, SpecWire, StatusWire

NAMESPACE = "team-a"
CARD_MIB = 81920
NOW = datetime(2031, 5, 6, tzinfo=UTC)
Gate = Callable[[str], Awaitable[None]]


async def open_gate(_call: str) -> None:
    """Let every call through after one turn of the loop."""
    await asyncio.sleep(0)


def quota(name: str = "team-a", namespace: str = NAMESPACE, **spec: object) -> GPUQuota:
    """A quota that nobody has counted yet; the specification is given as in YAML."""
    return GPUQuota(
        metadata=QuotaMeta(name=name, namespace=namespace, uid=f"quota-{name}", generation=1),
        spec=msgspec.convert({"hard": {}, **spec}, SpecWire),
    )


@dataclass(slots=True)
class Server:
    """Quotas and pods with versions; implements ``quota.api.QuotaApi``."""

    gate: Gate = open_gate
    quotas: dict[tuple[str, str], GPUQuota] = field(default_factory=dict)
    pods: dict[str, PodRecord] = field(default_factory=dict)
    claims: dict[str, ClaimRecord] = field(default_factory=dict)
    changes: list[tuple[int, object, object]] = field(default_factory=list)
    version: int = 100
    writes: int = 0
    conflicts: int = 0

    def _note(self, old: object, new: object) -> None:
        self.changes.append((self.version, old, new))

    def put_quota(self, wire: GPUQuota) -> GPUQuota:
        """Store a quota as its owner writes it; a new specification is a new generation."""
        key = wire.metadata.namespace, wire.metadata.name
        old = self.quotas.get(key)
        generation = 1 if old is None else old.metadata.generation + (old.spec != wire.spec)
        return self._store(wire, old, generation)

    def _store(self, wire: GPUQuota, old: GPUQuota | None, generation: int) -> GPUQuota:
        self.version += 1
        meta = msgspec.structs.replace(
            wire.metadata, resource_version=str(self.version), generation=generation
        )
        stored = msgspec.structs.replace(wire, metadata=meta)
        self.quotas[meta.namespace, meta.name] = stored
        self._note(old, stored)
        return stored

    def delete_quota(self, name: str, namespace: str = NAMESPACE) -> None:
        """Delete a quota."""
        self.version += 1
        self._note(self.quotas.pop((namespace, name)), None)

    def put_pod(self, record: PodRecord) -> PodRecord:
        """Store a pod."""
        self.version += 1
        meta = msgspec.structs.replace(record.metadata, resource_version=str(self.version))
        stored = msgspec.structs.replace(record, metadata=meta)
        self._note(self.pods.get(meta.uid), stored)
        self.pods[meta.uid] = stored
        return stored

    def names(self) -> set[str]:
        """The names of the pods."""
        return {record.metadata.name for record in self.pods.values()}

    def delete_pod(self, uid: str) -> None:
        """Delete a pod for good."""
        self.version += 1
        self._note(self.pods.pop(uid), None)

    def put_claim(self, record: ClaimRecord) -> ClaimRecord:
        """Store a claim."""
        self.version += 1
        self._note(self.claims.get(record.metadata.uid), record)
        self.claims[record.metadata.uid] = record
        return record

    def delete_claim(self, uid: str) -> None:
        """Delete a claim for good."""
        self.version += 1
        self._note(self.claims.pop(uid), None)

    async def list_quotas(self, namespace: str) -> Listing[GPUQuota]:
        """See ``QuotaApi``."""
        await self.gate("list_quotas")
        found = [q for (ns, _), q in self.quotas.items() if ns == namespace]
        return Listing(str(self.version), found)

    async def list_pods(self, namespace: str) -> Listing[PodRecord]:
        """See ``QuotaApi``."""
        await self.gate("list_pods")
        found = [p for p in self.pods.values() if p.metadata.namespace == namespace]
        return Listing(str(self.version), found)

    async def list_claims(self, namespace: str) -> Listing[ClaimRecord]:
        """See ``QuotaApi``."""
        await self.gate("list_claims")
        found = [c for c in self.claims.values() if c.metadata.namespace == namespace]
        return Listing(str(self.version), found)

    async def write_reserved(
        self, quota: GPUQuota, reserved: Sequence[ReservationWire]
    ) -> GPUQuota:
        """See ``QuotaApi``."""
        await self.gate("write_reserved")
        status = msgspec.structs.replace(self._current(quota).status, reserved=list(reserved))
        return self._write(quota, status)

    async def write_status(self, quota: GPUQuota, status: StatusWire) -> GPUQuota:
        """See ``QuotaApi``."""
        await self.gate("write_status")
        self._current(quota)
        return self._write(quota, status)

    def _current(self, quota: GPUQuota) -> GPUQuota:
        stored = self.quotas.get((quota.metadata.namespace, quota.metadata.name))
        if stored is None:
            raise NotFoundError("gone", status=404)
        if stored.metadata.resource_version != quota.metadata.resource_version:
            self.conflicts += 1
            raise ConflictError("changed", status=409)
        return stored

    def _write(self, quota: GPUQuota, status: StatusWire) -> GPUQuota:
        stored = self._current(quota)
        self.writes += 1
        # Over the wire and back, as the real one would.
        body = msgspec.json.decode(msgspec.json.encode(status), type=StatusWire)
        changed = msgspec.structs.replace(stored, status=body)
        return self._store(changed, stored, stored.metadata.generation)


@dataclass(slots=True)
class Watch:
    """How far one process has followed the server's history, of one kind or of all but claims."""

    server: Server
    only: type | None = None
    at: int = 0
    version: str = ""

    def _wanted(self, obj: object) -> bool:
        return isinstance(obj, self.only) if self.only else not isinstance(obj, ClaimRecord)

    def relist(self, take: Callable[[object, object], None]) -> None:
        """Start from what there is now."""
        self.at = len(self.server.changes)
        self.version = str(self.server.version)
        here = self.server
        for obj in (*here.quotas.values(), *here.pods.values(), *here.claims.values()):
            if self._wanted(obj):
                take(None, obj)

    def deliver(self, take: Callable[[object, object], None], count: int | None = None) -> int:
        """Take over the next changes, all of them unless a number is given; how many."""
        end = len(self.server.changes) if count is None else self.at + count
        news = self.server.changes[self.at : end]
        for version, old, new in news:
            if self._wanted(old if new is None else new):
                take(old, new)
            self.version = str(version)
        self.at += len(news)
        return len(news)


class Replica:
    """One webhook."""

    def __init__(
        self, server: Server, settings: Settings | None = None, cluster: ClusterCards | None = None
    ) -> None:
        self.cache = QuotaCache()
        self.cluster = cluster or ClusterCards(BackendConfig(CardSizes(CARD_MIB)))
        self.watch = Watch(server)
        self.admission = Admission(
            server, self.cache, settings, rng=random.Random(1), now=lambda: NOW
        )
        self.watch.relist(self.take)

    def take(self, old: object, new: object) -> None:
        """A change of the watch."""
        if isinstance(new, GPUQuota):
            self.cache.put(new)
        elif isinstance(old, GPUQuota):
            self.cache.remove(old)

    async def review(self, record: PodRecord, *, dry_run: bool = False) -> Outcome:
        """What the validating webhook asks."""
        facts = facts_of(record)
        facts = facts.on(self.cluster.cards_for(record, facts))
        return await self.admission.admit(record.metadata.namespace, facts, dry_run=dry_run)

    async def review_claim(self, record: ClaimRecord) -> Outcome:
        """The same about a claim."""
        facts = record.facts.on(self.cluster.eligible(record.facts))
        return await self.admission.admit(record.metadata.namespace, facts)


class Counter:
    """One controller."""

    def __init__(
        self,
        server: Server,
        clock: Callable[[], float],
        settings: ControllerSettings | None = None,
        cluster: ClusterCards | None = None,
    ) -> None:
        self.settings = settings or ControllerSettings()
        self.cache = QuotaCache()
        gone = Gone(clock, 2 * self.settings.ttl_s)
        self.view = PodCache(clock, version=lambda: self.watch.version, gone=gone)
        self.claims = ClaimCache(gone, lambda: self.claims_watch.version, charged=True)
        self.watch = Watch(server)
        self.claims_watch = Watch(server, ClaimRecord)
        self.rooms: list[str] = []
        self.cluster = cluster or ClusterCards(BackendConfig(CardSizes(CARD_MIB)))
        self.controller = Controller(
            server,
            self.cache,
            Objects(self.view, self.claims),
            self.cluster,
            self.settings,
            now=lambda: NOW,
            freed=self.freed,
        )
        self.watch.relist(self.take)
        self.claims_watch.relist(self.take)

    def take(self, old: object, new: object) -> None:
        """A change of the watch."""
        if isinstance(new, GPUQuota):
            self.cache.put(new)
        elif isinstance(old, GPUQuota):
            self.cache.remove(old)
            self.controller.forget(old.metadata.namespace, old.metadata.name)
        else:
            self._take_object(old, new)

    def _take_object(self, old: object, new: object) -> None:
        if isinstance(old or new, ClaimRecord):
            assert isinstance(old, ClaimRecord | None)
            assert isinstance(new, ClaimRecord | None)
            self.claims.change(old, new)
            return
        assert isinstance(old, PodRecord | None)
        assert isinstance(new, PodRecord | None)
        self.view.change(old, new)

    def freed(self, namespace: str, quota: str) -> None:
        """Remember where room was made."""
        self.rooms.append(f"{namespace}/{quota}")


class World:
    """A server, webhook replicas, a controller, and a steady clock that is set by hand."""

    def __init__(
        self,
        *quotas: GPUQuota,
        replicas: int = 1,
        settings: Settings | None = None,
        cluster: ClusterCards | None = None,
    ) -> None:
        self.server = Server()
        self.now_s = 1000.0
        self.cluster = cluster
        for wire in quotas:
            self.server.put_quota(wire)
        self.replicas = [Replica(self.server, settings, cluster) for _ in range(replicas)]
        self.counter = self.new_counter()

    def new_counter(self) -> Counter:
        """A controller that has just started."""
        return Counter(self.server, lambda: self.now_s, cluster=self.cluster)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """Replicas that answer, and quotas that are counted."""
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(replica.admission.run(), name="admission")
                for replica in self.replicas
            ]
            await asyncio.sleep(0)
            await self.settle()
            yield self
            for task in work:
                task.cancel()

    async def settle(self) -> None:
        """Deliver every change and count until nothing is left to do."""
        for _ in range(50):
            moved = self.counter.watch.deliver(self.counter.take)
            self.counter.claims_watch.deliver(self.counter.take)
            for replica in self.replicas:
                replica.watch.deliver(replica.take)
            writes = self.server.writes
            for namespace in {ns for ns, _ in self.server.quotas}:
                with suppress(ConflictError):
                    await self.counter.controller.reconcile(namespace)
            if not moved and writes == self.server.writes:
                return
        raise AssertionError("the controller does not come to rest")

    async def create(
        self, record: PodRecord, *, replica: int = 0, dry_run: bool = False, stored: bool = True
    ) -> Outcome:
        """What the API server does with a new pod; ``stored`` is False where it fails later."""
        outcome = await self.replicas[replica].review(record, dry_run=dry_run)
        if not outcome.refusals and not dry_run and stored:
            self.server.put_pod(record)
        return outcome

    async def create_claim(self, record: ClaimRecord, *, stored: bool = True) -> Outcome:
        """The same with a new claim."""
        outcome = await self.replicas[0].review_claim(record)
        if not outcome.refusals and stored:
            self.server.put_claim(record)
        return outcome

    def change(self, uid: str, **fields: object) -> None:
        """Change a pod's metadata or status."""
        old = self.server.pods[uid]
        if "phase" in fields:
            new = msgspec.structs.replace(old, status=Status(str(fields.pop("phase"))))
        else:
            new = msgspec.structs.replace(
                old, metadata=msgspec.structs.replace(old.metadata, **fields)
            )
        self.server.put_pod(new)

    def status(self, name: str = "team-a", namespace: str = NAMESPACE) -> StatusWire:
        """The quota's status as stored."""
        return self.server.quotas[namespace, name].status

    def used(self, key: str, name: str = "team-a") -> str:
        """One counted amount as stored; "0" where there is none."""
        used = self.status(name).used
        return str(getattr(used, key) if used else "0")

    def reserved(self, name: str = "team-a") -> list[str]:
        """The uids of the pods with a reservation."""
        return sorted(r.pod_uid for r in self.status(name).reserved or ())

    def condition(self, kind: str, name: str = "team-a") -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        found = next(c for c in self.status(name).conditions or () if c.type == kind)
        return found.status, found.reason, found.message
