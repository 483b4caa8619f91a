"""What happens shows in the metrics, under bounded labels."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.election import Election
from gpu_fraction.kube.errors import NotFoundError
from gpu_fraction.kube.events import EventRecorder, EventType, reference
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import NAMESPACES, PODS
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault
from tests.support.access import fixed


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of the test's own."""
    return CollectorRegistry()


async def test_requests_are_counted_by_verb_resource_and_code(
    api: ApiServer, registry: CollectorRegistry
) -> None:
    """Each try by itself; a subresource is told from its resource."""
    metrics = KubeMetrics(registry)
    api.faults.add(Fault(Answer(503, retry_after_s=0)))
    source = fixed(Access(server=api.url))
    async with connect(source, component="t", observer=metrics) as client:
        await client.get(NAMESPACES.at("default"), Identity)
        with pytest.raises(NotFoundError):
            await client.get(PODS.at("p", namespace="default", subresource="status"), Identity)
        await client.server_version()

    def value(verb: str, resource: str, code: str) -> float | None:
        labels = {"verb": verb, "resource": resource, "code": code}
        return registry.get_sample_value("gpu_fraction_kube_requests_total", labels)

    assert value("get", "namespaces", "503") == 1
    assert value("get", "namespaces", "200") == 1
    assert value("get", "pods/status", "404") == 1
    assert value("get", "/version", "200") == 1
    count = "gpu_fraction_kube_request_duration_seconds_count"
    assert registry.get_sample_value(count, {"verb": "get"}) == 4


async def test_reflector_election_and_events_show(
    api: ApiServer, registry: CollectorRegistry
) -> None:
    """One object observes them all."""
    metrics = KubeMetrics(registry)
    source = fixed(Access(server=api.url))
    async with connect(source, component="t", observer=metrics) as client:
        reflector = Reflector(client, NAMESPACES.at(), Identity)
        recorder = EventRecorder(client, component="t")
        election = Election(client, name="l", namespace="team-a", identity="a")
        seen: list[float | None] = []

        async def work() -> None:
            labels = {"lease": "l"}
            seen.append(registry.get_sample_value("gpu_fraction_leader", labels))

        async with asyncio.TaskGroup() as tasks, asyncio.timeout(5):
            running = [
                tasks.create_task(reflector.run()),
                tasks.create_task(recorder.run()),
            ]
            await reflector.synced.wait()
            about = reference(NAMESPACES, Meta(name="default", uid="u"))
            recorder.record(about, EventType.NORMAL, "Tried", "x")
            await recorder.written()
            await election.run(work)
            for task in running:
                task.cancel()
    assert seen == [1.0]
    assert registry.get_sample_value("gpu_fraction_leader", {"lease": "l"}) == 0.0
    lists = {"resource": "namespaces"}
    assert registry.get_sample_value("gpu_fraction_kube_lists_total", lists) == 1
    assert registry.get_sample_value("gpu_fraction_events_total", {"fate": "created"}) == 1
