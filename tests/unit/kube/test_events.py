"""The recorder never holds anything up and loses as little as the server allows."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.event_limits import Fate, ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventSettings, EventType, reference
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.resources import EVENTS, NODES, PODS
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Hang, Reset

pytestmark = pytest.mark.usefixtures("no_blocking_calls")

Manifest = dict[str, Any]
POD = reference(PODS, Meta(name="p", namespace="team-a", uid="uid-1"))
SETTINGS = EventSettings(timeout_s=2.0, flush_timeout_s=0.5)


class Fates(KubeMetrics):
    """Counts what becomes of events."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self.seen: list[Fate] = []

    def event(self, fate: Fate) -> None:
        """Remember a fate."""
        self.seen.append(fate)


@pytest.fixture
def fates() -> Fates:
    """No fates yet."""
    return Fates()


@pytest.fixture
def recorder(hasty: Client, fates: Fates) -> EventRecorder:
    """A recorder with short waits."""
    hasty.observer = fates
    return EventRecorder(hasty, component="gpu-fraction-test", instance="pod-0", settings=SETTINGS)


async def write_all(recorder: EventRecorder) -> None:
    """Run the recorder until nothing waits."""
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(5):
        run = tasks.create_task(recorder.run())
        await recorder.written()
        run.cancel()


async def stored(client: Client, namespace: str = "team-a") -> list[Manifest]:
    """The event objects."""
    listing = await client.list(EVENTS.at(namespace=namespace), Manifest)
    return listing.items


async def test_an_event_is_what_describe_looks_for(
    client: Client, recorder: EventRecorder
) -> None:
    """Object with uid, type, reason, sentence, source and times are all there."""
    recorder.record(POD, EventType.WARNING, "Refused", "exceeded GPU quota")
    await write_all(recorder)
    [event] = await stored(client)
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p",
        "namespace": "team-a",
        "uid": "uid-1",
    }
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Warning",
        "Refused",
        "exceeded GPU quota",
        1,
    )
    assert event["source"] == {"component": "gpu-fraction-test", "host": "pod-0"}
    assert event["firstTimestamp"] == event["lastTimestamp"]
    assert event["metadata"]["name"].startswith("p.")


async def test_repeats_raise_the_count_of_one_object(
    client: Client, recorder: EventRecorder, fates: Fates
) -> None:
    """Ten refusals are one line in describe: x10."""
    for _ in range(10):
        recorder.record(POD, EventType.WARNING, "Refused", "exceeded GPU quota")
    await write_all(recorder)
    assert [event["count"] for event in await stored(client)] == [10]
    assert sorted(fates.seen, key=str) == [Fate.COUNTED] * 9 + [Fate.CREATED]


async def test_an_event_that_expired_is_written_anew_with_its_count(
    api: ApiServer, client: Client, recorder: EventRecorder
) -> None:
    """The server forgets events after an hour; the next one goes on counting."""
    recorder.record(POD, EventType.NORMAL, "Rewritten", "by backend native")
    await write_all(recorder)
    [event] = await stored(client)
    api.remove(EVENTS, event["metadata"]["name"], "team-a")
    recorder.record(POD, EventType.NORMAL, "Rewritten", "by backend native")
    await write_all(recorder)
    [again] = await stored(client)
    assert again["count"] == 2
    assert again["firstTimestamp"] == event["firstTimestamp"]


async def test_events_of_cluster_wide_objects_go_to_default(
    client: Client, recorder: EventRecorder
) -> None:
    """A Node has no namespace; its events are where kubectl looks for them."""
    node = reference(NODES, Meta(name="n1", uid="uid-n"))
    recorder.record(node, EventType.WARNING, "Sick", "XID 79")
    await write_all(recorder)
    [event] = await stored(client, "default")
    assert "namespace" not in event["involvedObject"]


@pytest.mark.parametrize("action", [Answer(503), Answer(429), Hang(), Reset(), Reset(done=True)])
async def test_passing_faults_lose_and_double_nothing(
    api: ApiServer, client: Client, recorder: EventRecorder, action: Any
) -> None:
    """Also where the server wrote the event and its answer was lost."""
    api.faults.add(Fault(action, resource="events", times=2))
    for _ in range(3):
        recorder.record(POD, EventType.WARNING, "Refused", "exceeded GPU quota")
    await write_all(recorder)
    assert [event["count"] for event in await stored(client)] == [3]


async def test_a_server_that_stays_away_costs_a_bounded_time(
    api: ApiServer, hasty: Client, fates: Fates
) -> None:
    """After the deadline the event is dropped and counted, and the next one is written."""
    hasty.observer = fates
    recorder = EventRecorder(hasty, component="t", settings=EventSettings(timeout_s=0.3))
    fault = Fault(Answer(503), resource="events", times=None)
    api.faults.add(fault)
    recorder.record(POD, EventType.NORMAL, "Rewritten", "x")
    await write_all(recorder)
    assert fates.seen == [Fate.TRIES_OVER]
    assert len(api.calls) > 1
    api.faults.clear()
    recorder.record(POD, EventType.NORMAL, "Rewritten", "x")
    await write_all(recorder)
    assert [event["count"] for event in await stored(hasty)] == [2]


async def test_what_the_server_refuses_is_not_repeated(
    api: ApiServer, recorder: EventRecorder, fates: Fates
) -> None:
    """A namespace that is gone, or missing rights, cost one try."""
    elsewhere = reference(PODS, Meta(name="p", namespace="gone", uid="u"))
    recorder.record(elsewhere, EventType.NORMAL, "Rewritten", "x")
    api.faults.add(Fault(Answer(403), namespace="team-a"))
    recorder.record(POD, EventType.NORMAL, "Rewritten", "x")
    await write_all(recorder)
    assert fates.seen == [Fate.REFUSED, Fate.REFUSED]
    assert len(api.calls) == 2


async def test_a_full_queue_drops_and_counts(client: Client, fates: Fates) -> None:
    """Recording never waits, even where nothing is written at all."""
    settings = EventSettings(queue_length=3)
    client.observer = fates
    recorder = EventRecorder(client, component="t", settings=settings)
    for number in range(5):
        recorder.record(POD, EventType.NORMAL, "Rewritten", str(number))
    assert fates.seen == [Fate.QUEUE_FULL] * 2


async def test_spam_is_dropped_and_counted(
    client: Client, recorder: EventRecorder, fates: Fates
) -> None:
    """The 26th event about one object within minutes is not written, only counted."""
    for _ in range(30):
        recorder.record(POD, EventType.WARNING, "Refused", "x")
    await write_all(recorder)
    assert fates.seen.count(Fate.SPAM) == 5
    assert [event["count"] for event in await stored(client)] == [30]


async def test_what_waits_is_written_on_the_way_out(
    client: Client, recorder: EventRecorder
) -> None:
    """A process that ends says its last words, also the one it was about to say."""
    run = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    for number in range(5):
        recorder.record(POD, EventType.NORMAL, "Rewritten", str(number))
    await asyncio.sleep(0.002)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert sorted(event["message"] for event in await stored(client)) == list("01234")


async def test_the_way_out_has_a_deadline(api: ApiServer, recorder: EventRecorder) -> None:
    """A server that hangs does not keep the process."""
    api.faults.add(Fault(Hang(), resource="events", times=None))
    recorder.record(POD, EventType.NORMAL, "Rewritten", "x")
    run = asyncio.create_task(recorder.run())
    await asyncio.sleep(0.01)
    run.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await run


@pytest.mark.parametrize("name", ["x" * 253, "Not.A.Subdomain_", "a" * 235 + ".b"])
async def test_any_object_name_makes_a_legal_event_name(
    client: Client, recorder: EventRecorder, name: str
) -> None:
    """Long names are cut, odd ones replaced."""
    about = ObjectReference("v1", "Odd", name, "u", "team-a")
    recorder.record(about, EventType.NORMAL, "Rewritten", "x" * 5000)
    await write_all(recorder)
    [event] = await stored(client)
    assert len(event["metadata"]["name"]) <= 253
    assert len(event["message"]) == 1024


async def test_an_event_that_was_lost_is_in_the_next_count(
    api: ApiServer, client: Client, recorder: EventRecorder, fates: Fates
) -> None:
    """A refused write stops nothing, and the object that follows shows both."""
    api.faults.add(Fault(Answer(403), resource="events", times=1))
    for _ in range(2):
        recorder.record(POD, EventType.WARNING, "Refused", "exceeded GPU quota")
        await write_all(recorder)
    assert [event["count"] for event in await stored(client)] == [2]
    assert fates.seen == [Fate.REFUSED, Fate.CREATED]


async def test_repeats_that_wait_together_are_one_write(
    api: ApiServer, client: Client, recorder: EventRecorder
) -> None:
    """A burst of equal events costs one request; one that comes later costs another."""
    for _ in range(2):
        for _ in range(5):
            recorder.record(POD, EventType.WARNING, "Refused", "exceeded GPU quota")
        await write_all(recorder)
    assert len(api.calls) == 2
    assert [event["count"] for event in await stored(client)] == [10]
