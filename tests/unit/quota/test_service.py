"""Admission and controller together on the project's own API server, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from ruamel.yaml import YAML

from gpu_fraction.domain import keys
from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType
from gpu_fraction.kube.reflector import ReflectorSettings
from gpu_fraction.kube.resources import GPU_QUOTAS, PODS, REPLICA_SETS, RESOURCE_CLAIMS
from gpu_fraction.quota import admission
from gpu_fraction.quota.controller import ControllerSettings
from gpu_fraction.quota.decision import NotReadyError
from gpu_fraction.quota.ledger import RESERVATION_S
from gpu_fraction.quota.requeue import EventRecord, blocked
from gpu_fraction.quota.service import AdmissionService, Claims, ControllerService
from gpu_fraction.quota.wire import AmountsWire, ReservationWire, SpecWire, StatusWire
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Hang
from gpu_fraction.sandbox.apiserver.kinds import BUILT_IN, from_crd
from tests.support.access import fixed
from tests.support.quota_world import NOW

CRD = Path(__file__).parents[3] / "deploy" / "crd" / "gpuquotas.yaml"
POD_KIND = next(kind for kind in BUILT_IN if kind.resource is PODS)
CLAIM_KIND = next(kind for kind in BUILT_IN if kind.resource is RESOURCE_CLAIMS)
REPLICA_SET_KIND = next(kind for kind in BUILT_IN if kind.resource is REPLICA_SETS)
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs-1"}


class Sink(EventRecorder):
    """Keeps events."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, component="test")
        self.events: list[tuple[str, str, str]] = []

    def record(self, about: ObjectReference, kind: EventType, reason: str, message: str) -> None:
        """Keep an event."""
        assert kind in EventType
        self.events.append((about.kind, reason, message))


class Cluster:
    """The server and both services."""

    def __init__(self, server: ApiServer, client: Client, claims: Claims = "ignored") -> None:
        self.server = server
        self.client = client
        self.registry = CollectorRegistry()
        self.sink = Sink(client)
        sizes = CardSizes(81920)
        self.admission = AdmissionService(
            client,
            admission.Settings(),
            costs=BackendConfig(sizes),
            registry=self.registry,
            sink=self.sink,
        )

        self.controller = self.new_controller(self.registry, claims)

    def new_controller(
        self, registry: CollectorRegistry | None = None, claims: Claims = "ignored"
    ) -> ControllerService:
        """A controller that leads at once."""

        async def lead(work: Callable[[], Any]) -> None:
            await work()

        return ControllerService(
            self.client,
            ControllerSettings(),
            costs=BackendConfig(CardSizes(81920)),
            registry=registry or CollectorRegistry(),
            lead=lead,
            claims=claims,
        )

    async def create(self, name: str, milli: int, *, dry_run: bool = False, **meta: Any) -> bool:
        """What the API server does with a new pod; whether it was stored."""
        body = manifest(name, milli, **meta)
        raw = json.dumps(body).encode()
        outcome = await self.admission.admit("team", raw, dry_run=dry_run)
        if not outcome.refusals and not dry_run:
            # Past the server's own create, which would give the pod another uid than was reviewed.
            self.server.storage.put(POD_KIND, ("team", name), body)
        return not outcome.refusals

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The quota's status, once something holds of it."""
        async with asyncio.timeout(10):
            while True:
                found = await self.client.get(GPU_QUOTAS.at("q", namespace="team"), dict)
                if holds(found.get("status", {})):
                    return dict(found["status"])
                await asyncio.sleep(0.01)


def manifest(name: str, milli: int, **meta: Any) -> dict[str, Any]:
    """A pod that asks for compute."""
    limits = {"gpu-fraction.dev/slot": "1", "gpu-fraction.dev/core-milli": str(milli)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", **meta},
        "spec": {"containers": [{"name": "main", "resources": {"limits": limits}}]},
    }


@asynccontextmanager
async def cluster(claims: Claims = "ignored", **spec: Any) -> AsyncIterator[Cluster]:
    """A server with a counted quota, and both services running."""
    server = ApiServer()
    server.register(from_crd(YAML(typ="safe").load(CRD.read_text())))
    server.add_namespace("team")
    server.add(
        {
            "apiVersion": "gpu-fraction.dev/v1alpha1",
            "kind": "GPUQuota",
            "metadata": {"name": "q", "namespace": "team"},
            "spec": {"hard": {"cores": "1"}, **spec},
        }
    )
    async with server.serve(), connect(fixed(Access(server.url)), component="test") as client:
        made = Cluster(server, client, claims)
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(made.admission.run()),
                tasks.create_task(made.controller.run()),
            ]
            await made.until(lambda status: "used" in status)
            async with asyncio.timeout(5):
                while not await _ready(made):
                    await asyncio.sleep(0.01)
            yield made
            for task in work:
                task.cancel()


async def _ready(made: Cluster) -> bool:
    try:
        return await made.create("probe", 1, dry_run=True)
    except NotReadyError:
        return False


async def test_pods_are_admitted_counted_and_released() -> None:
    """Over HTTP as in memory: reservation, count, refusal, release."""
    async with cluster() as made:
        assert await made.create("a", 600)
        status = await made.until(lambda s: s["used"]["cores"] == "600m")
        assert "reserved" not in status
        assert not await made.create("b", 600, ownerReferences=[{**OWNER, "controller": True}])
        made.server.remove(PODS, "a", "team")
        await made.until(lambda s: s["used"]["cores"] == "0")
        assert await made.create("b", 600)


async def test_claims_are_admitted_once_the_controller_counts_them() -> None:
    """Else their charge would end with the reservation; then over HTTP as in memory."""

    async def create(made: Cluster, name: str, milli: int) -> bool:
        amounts = {f"{keys.GROUP}/cores": str(milli)}
        one = {"deviceClassName": f"fraction.{keys.GROUP}", "capacity": {"requests": amounts}}
        body = {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}"},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": one}]}},
        }
        outcome = await made.admission.admit_claim(
            "team", json.dumps(body).encode(), dry_run=False
        )
        if not outcome.refusals:
            made.server.storage.put(CLAIM_KIND, ("team", name), body)
        return not outcome.refusals

    async with cluster() as made:
        with pytest.raises(NotReadyError, match="--hand-written-claims=charge"):
            await create(made, "a", 600)
    async with cluster("charged") as made:
        await made.until(lambda s: "claimsResourceVersion" in s)
        assert await create(made, "a", 600)
        status = await made.until(lambda s: s["used"]["cores"] == "600m")
        assert "reserved" not in status
        assert not await create(made, "b", 600)
        (_, _, message) = made.sink.events[-1]
        assert message.startswith("refused a claim of claim b: exceeded GPU quota: q, ")
        made.server.remove(RESOURCE_CLAIMS, "a", "team")
        await made.until(lambda s: s["used"]["cores"] == "0")
        assert await create(made, "b", 600)


async def test_creates_of_a_name_that_exists_take_no_room_from_other_pods() -> None:
    """The controller writes beside each reservation what the pod of its name costs already."""
    async with cluster(hard={"cores": "1"}) as on:
        assert await on.create("same", 500)
        await on.until(lambda status: status["used"]["cores"] == "500m")
        for number in range(3):
            again = json.dumps(manifest("same", 500, uid=f"again-{number}")).encode()
            assert (await on.admission.admit("team", again, dry_run=False)).final
            await on.until(
                lambda status: all(r.get("counted") for r in status.get("reserved", [{}]))
            )
        assert await on.create("other", 500)
        assert not await on.create("more", 500)


@pytest.mark.parametrize(
    ("stored", "path"),
    [
        (SpecWire, ("spec",)),
        (StatusWire, ("status",)),
        (ReservationWire, ("status", "reserved", "items")),
        (AmountsWire, ("status", "used")),
        (AmountsWire, ("status", "reserved", "items", "counted")),
    ],
)
def test_the_api_server_keeps_every_field_that_is_written(
    stored: type, path: tuple[str, ...]
) -> None:
    """It drops what the definition does not name."""
    found = YAML(typ="safe").load(CRD)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path:
        found = found[part] if part == "items" else found["properties"][part]
    written = {field.encode_name for field in msgspec.structs.fields(stored)}
    assert written == found["properties"].keys()


async def test_pods_of_one_owner_are_told_of_once() -> None:
    """They are alike; a pod without an owner has an Event of its own."""
    slices = [{"name": "main", "cards": 1, "coreMilli": 100, "memoryMilli": 100}]
    request = {"v": 1, "backend": "native", "containers": slices, "placement": "binpack"}
    annotations = {keys.REQUEST: json.dumps({**request, "isolation": "preferred"})}
    async with cluster() as made:
        for name in ("a", "b"):
            owners = [{**OWNER, "controller": True}]
            assert await made.create(name, 1, annotations=annotations, ownerReferences=owners)
            assert await made.create(f"{name}-alone", 1, annotations=annotations)
    about = [kind for kind, reason, _ in made.sink.events if reason == "GPUAssignedByAnnotation"]
    assert sorted(about) == ["Pod", "Pod", "ReplicaSet"]


async def test_what_happened_is_told_and_measured() -> None:
    """Events on the quota and the owner; used, hard and decisions as metrics."""
    async with cluster() as made:
        await made.create("a", 600)
        await made.create("dry", 600, dry_run=True)
        assert made.sink.events == []
        await made.create("b", 600, ownerReferences=[{**OWNER, "controller": True}])
        (about_quota, reason, message), (about_owner, _, sentence) = made.sink.events
        assert (about_quota, about_owner, reason) == ("GPUQuota", "ReplicaSet", "GPUQuotaExceeded")
        assert message == f"refused a pod of ReplicaSet web: {sentence}"
        await made.until(lambda s: s["used"]["cores"] == "600m")
        await asyncio.sleep(0.2)
        text = generate_latest(made.registry).decode()
        labels = '{namespace="team",quota="q",resource="cores"}'
        assert f"gpu_fraction_quota_used{labels} 0.6" in text
        assert f"gpu_fraction_quota_hard{labels} 1.0" in text
        assert 'gpu_fraction_quota_decisions_total{decision="refused",dry_run="false"} 1.0' in text


def block(made: Cluster) -> None:
    """ReplicaSets of which an event says that one lacks a pod."""
    for name in ("web", "other"):
        made.server.storage.put(
            REPLICA_SET_KIND,
            ("team", name),
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": name, "namespace": "team", "uid": f"rs-{name}"},
                "spec": {"replicas": 1},
            },
        )
    made.server.add(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "web.1", "namespace": "team"},
            "involvedObject": OWNER | {"uid": "rs-web"},
            "reason": "FailedCreate",
            "message": "Error creating: ... denied the request: exceeded GPU quota: q, ...",
        }
    )


async def only_web_is_woken(made: Cluster) -> None:
    """Wait for it."""
    async with asyncio.timeout(10):
        while True:
            found = await made.client.get(REPLICA_SETS.at("web", namespace="team"), dict)
            if keys.QUOTA_FREED in found["metadata"].get("annotations", {}):
                break
            await asyncio.sleep(0.02)
    other = await made.client.get(REPLICA_SETS.at("other", namespace="team"), dict)
    assert "annotations" not in other["metadata"]


async def test_blocked_owners_are_woken_when_there_is_room() -> None:
    """The ReplicaSet that the event names gets an annotation, and nobody else."""
    async with cluster() as made:
        await made.create("a", 1000)
        await made.until(lambda s: s["used"]["cores"] == "1")
        block(made)
        made.server.remove(PODS, "a", "team")
        await only_web_is_woken(made)


async def test_blocked_owners_are_woken_by_a_new_leader() -> None:
    """The one before may have made room and gone before it told anybody."""
    async with cluster() as made:
        await asyncio.sleep(1.5)  # until it has woken everybody for its own beginning
        block(made)
        successor = made.new_controller()
        task = asyncio.create_task(successor.run())
        await only_web_is_woken(made)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_call_that_hangs_is_repeated_while_the_caller_waits() -> None:
    """After one broken connection, reservations and confirmed refusals still arrive."""

    async def ask(verb: str) -> None:
        async with cluster() as made:
            made.server.faults.add(Fault(Hang(), verb=verb, resource=GPU_QUOTAS.qualified))
            assert await made.create("a", 600)
            assert not await made.create("b", 600)

    # At once, because each waits for as long as an attempt may take.
    async with asyncio.TaskGroup() as tasks:
        for verb in ("patch", "list"):
            tasks.create_task(ask(verb), name=verb)


async def test_the_default_share_comes_from_the_namespaces_quota() -> None:
    """The first quota that has one and counts the pod."""
    async with cluster(perPod={"defaultFraction": "0.1"}) as made:
        assert made.admission.default_fraction("team", None) == "0.1"
        assert made.admission.default_fraction("elsewhere", None) is None


async def test_nobody_is_admitted_on_a_watch_that_died() -> None:
    """A quota that was made since then is unknown, and asking for it would be the only way."""
    server = ApiServer()
    server.register(from_crd(YAML(typ="safe").load(CRD.read_text())))
    server.add_namespace("team")
    raw = json.dumps(manifest("a", 1)).encode()
    following = ReflectorSettings(
        backoff=Backoff(initial_s=0.01, cap_s=0.05), silence_s=0.1, stale_s=0.3
    )
    async with server.serve(), connect(fixed(Access(server.url)), component="test") as client:
        service = AdmissionService(
            client,
            admission.Settings(),
            costs=BackendConfig(CardSizes(81920)),
            registry=CollectorRegistry(),
            sink=Sink(client),
            following=following,
        )
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(10):
            work = tasks.create_task(service.run())
            while service.unsynced() is not None:
                await asyncio.sleep(0.01)
            assert (await service.admit("team", raw, dry_run=True)).final
            for verb in ("list", "watch"):
                server.faults.add(Fault(Answer(503), verb=verb, times=None))
            while service.unsynced() is None:
                await asyncio.sleep(0.01)
            with pytest.raises(NotReadyError, match="no answer of the API server"):
                await service.admit("team", raw, dry_run=False)
            work.cancel()


def test_reservations_outlive_every_request() -> None:
    """The API server works on one for at most 34 seconds."""
    assert RESERVATION_S > 34


@pytest.mark.parametrize(
    ("change", "woken"),
    [
        ({}, True),
        ({"reason": "SuccessfulCreate"}, False),
        ({"message": "exceeded quota: other"}, False),
        ({"lastTimestamp": "2031-05-05T00:00:00Z"}, False),
        ({"involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}}, False),
        ({"involvedObject": {"apiVersion": "batch/v1", "kind": "Job", "name": "j"}}, True),
    ],
)
def test_who_is_blocked(change: dict[str, Any], *, woken: bool) -> None:
    """Owners of pods that a GPU quota refused lately."""
    event = {
        "involvedObject": OWNER,
        "reason": "FailedCreate",
        "message": "exceeded GPU quota: q, requested: cores=1, used: cores=1, limited: cores=1",
        "lastTimestamp": "2031-05-05T23:59:00Z",
    } | change

    assert bool(blocked([msgspec.convert(event, EventRecord)], NOW)) == woken
