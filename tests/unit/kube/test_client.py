"""The client against a server that misbehaves."""

import asyncio
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.access import Access, user_agent
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind, Request, WriteOptions
from gpu_fraction.kube.resources import NAMESPACES, PODS
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Hang, Reset, Slow, Text
from tests.support.access import fixed

pytestmark = pytest.mark.usefixtures("no_blocking_calls")

Manifest = dict[str, Any]
POD = PODS.at("p", namespace="team-a")
TEAM_A = PODS.at(namespace="team-a")


def pod(name: str = "p", **labels: str) -> Manifest:
    """A small pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team-a", "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


async def test_a_round_of_every_verb(client: Client) -> None:
    """Create, get, replace, patch, apply, list and delete do what they say."""
    created = await client.create(TEAM_A, pod(), Manifest)
    assert (await client.get(POD, Manifest))["metadata"]["uid"] == created["metadata"]["uid"]
    created["metadata"]["labels"] = {"a": "1"}
    replaced = await client.replace(POD, created, Manifest)
    assert replaced["metadata"]["labels"] == {"a": "1"}
    merged = await client.patch(
        POD, PatchKind.MERGE, {"metadata": {"labels": {"b": "2"}}}, Manifest
    )
    assert merged["metadata"]["labels"] == {"a": "1", "b": "2"}
    jumped = await client.patch(
        POD, PatchKind.JSON, [{"op": "remove", "path": "/metadata/labels/a"}], Manifest
    )
    assert jumped["metadata"]["labels"] == {"b": "2"}
    owned = {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"c": "3"}}}
    applied = await client.apply(POD, owned, Manifest, field_manager="me")
    assert applied["metadata"]["labels"] == {"b": "2", "c": "3"}
    listing = await client.list(TEAM_A, Identity)
    assert [item.metadata.name for item in listing.items] == ["p"]
    await client.delete(POD, {"preconditions": {"uid": created["metadata"]["uid"]}})
    with pytest.raises(errors.NotFoundError):
        await client.get(POD, Identity)


async def test_stale_and_foreign_writes_are_conflicts(client: Client) -> None:
    """An old resourceVersion, a taken name and another's uid each have their error."""
    created = await client.create(TEAM_A, pod(), Manifest)
    await client.patch(POD, PatchKind.MERGE, {"metadata": {"labels": {"b": "2"}}}, Identity)
    with pytest.raises(errors.ConflictError, match="modified"):
        await client.replace(POD, created, Identity)
    with pytest.raises(errors.AlreadyExistsError):
        await client.create(TEAM_A, pod(), Identity)
    with pytest.raises(errors.ConflictError, match="UID"):
        await client.delete(POD, {"preconditions": {"uid": "another"}})


async def test_a_dry_run_stores_nothing(client: Client) -> None:
    """The answer looks like success and the pod is not there."""
    answer = await client.create(TEAM_A, pod(), Identity, WriteOptions(dry_run=True))
    assert answer.metadata.uid
    with pytest.raises(errors.NotFoundError):
        await client.get(POD, Identity)


async def test_lists_are_read_in_pages(api: ApiServer, client: Client) -> None:
    """Every object arrives once, whatever the size of the pages."""
    api.add(*(pod(f"p{number:02}") for number in range(25)))
    listing = await client.list(TEAM_A, Identity, page_size=10)
    assert [item.metadata.name for item in listing.items] == [f"p{n:02}" for n in range(25)]
    assert listing.resource_version == str(api.storage.revision)
    assert api.calls == [("list", "pods")] * 3


async def test_a_list_whose_version_expires_midway_starts_over(
    api: ApiServer, client: Client
) -> None:
    """A continuation that is too old leads to one request for everything."""
    api.add(*(pod(f"p{number:02}") for number in range(25)))
    api.faults.add(Fault(Answer(410), verb="list", skip=1))
    listing = await client.list(TEAM_A, Identity, page_size=10)
    assert len(listing.items) == 25
    assert len(api.calls) == 3


async def test_a_list_reports_objects_that_do_not_decode(api: ApiServer, client: Client) -> None:
    """One odd object is named and left out; without a callback the list fails."""

    class Numbered(msgspec.Struct):
        metadata: Identity
        number: int = 0

    odd = {**pod("odd"), "number": "seven"}
    api.add(pod("even"), odd)
    seen: list[str] = []
    listing = await client.list(
        TEAM_A, Numbered, on_malformed=lambda identity, _: seen.append(identity.metadata.name)
    )
    assert (len(listing.items), seen) == (1, ["odd"])
    with pytest.raises(errors.MalformedAnswerError, match=r"number"):
        await client.list(TEAM_A, Numbered)


@pytest.mark.parametrize("action", [Answer(429), Answer(503), Text(502), Reset(), Answer(504)])
async def test_reads_survive_passing_faults(api: ApiServer, client: Client, action: Any) -> None:
    """A read is tried again until it succeeds within the caller's time."""
    api.faults.add(Fault(action, verb="get", times=2))
    assert (await client.get(NAMESPACES.at("team-a"), Identity)).metadata.name == "team-a"
    assert len(api.calls) == 3


async def test_reads_survive_connections_that_hang(api: ApiServer, hasty: Client) -> None:
    """A try that gets no answer leaves time for another."""
    api.faults.add(Fault(Hang(), verb="get", times=2))
    assert (await hasty.get(NAMESPACES.at("team-a"), Identity)).metadata.name == "team-a"


async def test_a_create_is_not_repeated_after_a_lost_answer(
    api: ApiServer, client: Client
) -> None:
    """The pod may be there; only the caller can know what to do about it."""
    api.faults.add(Fault(Reset(done=True), verb="create"))
    with pytest.raises(errors.TransportError) as caught:
        await client.create(TEAM_A, pod(), Identity)
    assert caught.value.started
    assert api.calls == [("create", "pods")]
    assert (await client.get(POD, Identity)).metadata.name == "p"


async def test_a_create_is_repeated_when_the_server_asks_for_it(
    api: ApiServer, client: Client
) -> None:
    """429 and 503 with Retry-After say that nothing was done yet."""
    api.faults.add(Fault(Answer(503, retry_after_s=0), verb="create"))
    api.faults.add(Fault(Answer(429), verb="create"))
    await client.create(TEAM_A, pod(), Identity)
    assert len(api.calls) == 3


async def test_an_error_tells_whether_any_try_may_have_done_something(
    api: ApiServer, client: Client
) -> None:
    """What the last try met says nothing of a try before it."""
    api.faults.add(Fault(Answer(429, retry_after_s=60), verb="create", times=None))
    with pytest.raises(errors.TooManyRequestsError) as caught:
        await client.create(TEAM_A, pod(), Identity)
    assert not caught.value.started
    api.faults.clear()
    api.faults.add(Fault(Answer(503, retry_after_s=0), verb="create"))
    api.faults.add(Fault(Answer(429, retry_after_s=60), verb="create", times=None))
    with pytest.raises(errors.TooManyRequestsError) as caught:
        await client.create(TEAM_A, pod(), Identity)
    assert caught.value.started


async def test_a_lost_answer_to_a_replace_shows_as_a_conflict(
    api: ApiServer, client: Client
) -> None:
    """The repeat meets the version that the first try made."""
    created = await client.create(TEAM_A, pod(), Manifest)
    api.faults.add(Fault(Reset(done=True), verb="update"))
    created["metadata"]["labels"] = {"a": "1"}
    with pytest.raises(errors.ConflictError):
        await client.replace(POD, created, Identity)
    assert (await client.get(POD, Manifest))["metadata"]["labels"] == {"a": "1"}


async def test_a_wait_beyond_the_deadline_is_not_begun(api: ApiServer, client: Client) -> None:
    """Retry-After of a minute with a second left: the caller hears of it now."""
    api.faults.add(Fault(Answer(429, retry_after_s=60), times=None))
    with pytest.raises(errors.TooManyRequestsError) as caught:
        await client.get(NAMESPACES.at("team-a"), Identity, timeout_s=1.0)
    assert caught.value.retry_after_s == 60
    assert len(api.calls) == 1


@pytest.mark.parametrize("action", [Hang(), Slow(5)])
async def test_a_server_that_does_not_answer_meets_the_deadline(
    api: ApiServer, client: Client, action: Any
) -> None:
    """No call outlives its deadline, however the server hangs."""
    api.faults.add(Fault(action, times=None))
    with pytest.raises(errors.DeadlineError):
        await client.get(NAMESPACES.at("team-a"), Identity, timeout_s=0.2)


async def test_a_deadline_tells_what_failed_before(api: ApiServer, client: Client) -> None:
    """Whoever reads the error learns that the server was not just slow."""
    api.faults.add(Fault(Answer(503, "etcd is away")))
    api.faults.add(Fault(Hang(), times=None))
    with pytest.raises(errors.DeadlineError, match=r"the try before: etcd is away"):
        await client.get(NAMESPACES.at("team-a"), Identity, timeout_s=1.0)


async def test_cancellation_passes_through(api: ApiServer, client: Client) -> None:
    """A cancelled call ends at once and is not mistaken for a failure."""
    api.faults.add(Fault(Hang(), times=None))
    task = asyncio.create_task(client.get(NAMESPACES.at("team-a"), Identity))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_pages_of_proxies_do_not_reach_messages(api: ApiServer, client: Client) -> None:
    """A body that is no Status stays out of the error."""
    api.faults.add(Fault(Text(403, "<html>secret</html>")))
    with pytest.raises(errors.ForbiddenError) as caught:
        await client.get(NAMESPACES.at("team-a"), Identity)
    assert "secret" not in str(caught.value)


async def test_an_answer_of_the_wrong_shape_is_reported_with_its_path(client: Client) -> None:
    """The message names where in the object, and not what stood there."""

    class Wrong(msgspec.Struct):
        metadata: int

    with pytest.raises(errors.MalformedAnswerError, match=r"\$\.metadata"):
        await client.get(NAMESPACES.at("team-a"), Wrong)


async def test_the_observer_sees_each_try(api: ApiServer) -> None:
    """Metrics count tries with their codes, 0 where no answer came."""
    tries: list[tuple[str, int]] = []

    class Observer(KubeMetrics):
        def answered(self, request: Request, code: int, duration_s: float) -> None:
            assert duration_s >= 0
            tries.append((request.verb, code))

    api.faults.add(Fault(Reset(), times=2))  # aiohttp itself repeats a read once
    api.faults.add(Fault(Answer(503)))
    async with connect(
        fixed(Access(server=api.url)),
        component="test",
        retry=RetryPolicy(Backoff(initial_s=0.01)),
        observer=Observer(CollectorRegistry()),
    ) as client:
        await client.get(NAMESPACES.at("team-a"), Identity)
    assert tries == [("get", 0), ("get", 503), ("get", 200)]


def test_the_user_agent_names_product_component_and_version() -> None:
    """Audit logs and field managers tell the components apart."""
    assert user_agent("webhook").startswith("gpu-fraction-webhook/0.")


async def test_raw_bytes_may_be_asked_for(client: Client) -> None:
    """Raw hands the answer on undecoded."""
    raw = await client.get(NAMESPACES.at("team-a"), msgspec.Raw)
    assert b'"team-a"' in bytes(raw)


async def test_a_request_may_be_sent_as_it_is(client: Client) -> None:
    """What has no method of its own goes through send."""
    body = await client.send(requests.get(NAMESPACES.at("team-a")))
    assert b'"team-a"' in body
