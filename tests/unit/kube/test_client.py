"""The client against a server that misbehaves."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from aiohttp import web
from aiohttp.typedefs import Handler

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.access import Access, AccessError, AccessSource, fixed
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, ListOptions, connect, user_agent
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind, Request, WriteOptions
from gpu_fraction.kube.resources import NAMESPACES, NODES, PODS
from gpu_fraction.kube.retry import RetryPolicy
from sandbox.apiserver import Answer, ApiServer, Fault, Hang, Reset, Slow, Text

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
    await client.delete(POD, uid=created["metadata"]["uid"])
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
        await client.delete(POD, uid="another")


async def test_a_dry_run_stores_nothing(client: Client) -> None:
    """The answer looks like success and the pod is not there."""
    answer = await client.create(TEAM_A, pod(), Identity, WriteOptions(dry_run=True))
    assert answer.metadata.uid
    with pytest.raises(errors.NotFoundError):
        await client.get(POD, Identity)


async def test_lists_are_read_in_pages(api: ApiServer, client: Client) -> None:
    """Every object arrives once, whatever the size of the pages."""
    api.add(*(pod(f"p{number:02}") for number in range(25)))
    listing = await client.list(TEAM_A, Identity, ListOptions(page_size=10))
    assert [item.metadata.name for item in listing.items] == [f"p{n:02}" for n in range(25)]
    assert listing.resource_version == str(api.storage.revision)
    assert api.calls == [("list", "pods")] * 3


async def test_a_list_whose_version_expires_midway_starts_over(
    api: ApiServer, client: Client
) -> None:
    """A continuation that is too old leads to one request for everything."""
    api.add(*(pod(f"p{number:02}") for number in range(25)))
    api.faults.add(Fault(Answer(410), verb="list", skip=1))
    listing = await client.list(TEAM_A, Identity, ListOptions(page_size=10))
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
    assert caught.value.sent
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


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[Access]:
    """A server with one handler."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Access(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


async def test_a_long_answer_may_take_longer_than_a_try_may_take_to_begin() -> None:
    """A large list on a slow network is not begun again and again."""
    tries = 0

    async def slowly(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b'{"metadata":', b'{"name":', b'"x"}}'):
            await asyncio.sleep(0.2)
            await response.write(part)
        return response

    retry = RetryPolicy(attempt_timeout_s=0.25)
    async with (
        answering(slowly) as access,
        connect(fixed(access), component="test", retry=retry) as client,
    ):
        assert (await client.get(POD, Identity)).metadata.name == "x"
        assert tries == 1
        with pytest.raises(errors.DeadlineError):
            await client.get(POD, Identity, timeout_s=0.4)


async def test_an_answer_that_is_cut_off_is_asked_for_again() -> None:
    """A connection that breaks midway is no answer."""
    tries = 0

    async def cut(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        body = b'{"metadata":{"name":"x"}}'
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        if tries < 3:
            await response.write(body[:10])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response

    retry = RetryPolicy(Backoff(initial_s=0.01))
    async with (
        answering(cut) as access,
        connect(fixed(access), component="test", retry=retry) as client,
    ):
        assert (await client.get(POD, Identity)).metadata.name == "x"
    assert tries == 3


async def test_a_redirect_is_not_followed() -> None:
    """The token must not go to another host."""

    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://127.0.0.1:1/")

    async with answering(elsewhere) as access, connect(fixed(access), component="t") as client:
        with pytest.raises(errors.MalformedAnswerError, match="302"):
            await client.get(POD, Identity)


@pytest.mark.parametrize(
    ("minor", "expected"), [("36", (1, 36)), ("28+", (1, 28)), ("", None), ("x", None)]
)
async def test_the_version_of_the_server(minor: str, expected: tuple[int, int] | None) -> None:
    """Managed clusters append to the minor version."""

    async def version(_: web.Request) -> web.StreamResponse:
        return web.json_response({"major": "1", "minor": minor})

    async with answering(version) as access, connect(fixed(access), component="t") as client:
        if expected is None:
            with pytest.raises(errors.MalformedAnswerError, match="/version"):
                await client.server_version()
        else:
            assert await client.server_version() == expected


async def test_no_server_at_all_is_a_transport_error() -> None:
    """A refused connection was certainly not used, and the message carries no path."""
    retry = RetryPolicy(Backoff(initial_s=60.0, cap_s=60.0))
    async with connect(
        fixed(Access(server="http://127.0.0.1:1")), component="test", retry=retry
    ) as client:
        with pytest.raises(errors.TransportError) as caught:
            await client.get(POD, Identity, timeout_s=5.0)
    assert not caught.value.sent


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

    class Observer:
        def answered(self, request: Request, code: int, duration_s: float) -> None:
            assert duration_s >= 0
            tries.append((request.verb, code))

    api.faults.add(Fault(Reset(), times=2))  # aiohttp itself repeats a read once
    api.faults.add(Fault(Answer(503)))
    async with connect(
        fixed(Access(server=api.url)),
        component="test",
        retry=RetryPolicy(Backoff(initial_s=0.01)),
        observer=Observer(),
    ) as client:
        await client.get(NAMESPACES.at("team-a"), Identity)
    assert tries == [("get", 0), ("get", 503), ("get", 200)]


async def test_expired_credentials_are_read_again_once() -> None:
    """A 401 leads to new credentials and one more try; a second 401 is the answer."""
    api = ApiServer(tokens={"new": "me"})
    handed_out: list[str] = []

    async def find() -> Access:
        handed_out.append("old" if not handed_out else "new")
        return Access(server=api.url, authorization=f"Bearer {handed_out[-1]}")

    async with api.serve(), connect(AccessSource(find), component="test") as client:
        found = await asyncio.gather(
            *(client.get(NAMESPACES.at("default"), Identity) for _ in range(5))
        )
        assert [item.metadata.name for item in found] == ["default"] * 5
        assert handed_out == ["old", "new"]
        api.tokens = {}
        with pytest.raises(errors.UnauthorizedError):
            await client.get(NAMESPACES.at("default"), Identity)
        assert handed_out == ["old", "new", "new"]


async def test_credentials_outlive_a_moment_without_their_file() -> None:
    """Where the refresh fails, the credentials at hand are used on."""
    api = ApiServer(tokens={"t": "me"})
    asked = 0

    async def find() -> Access:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise AccessError("gone")
        return Access(server=api.url, authorization="Bearer t")

    async with api.serve(), connect(AccessSource(find, max_age_s=0.0), component="t") as client:
        assert (await client.get(NAMESPACES.at("default"), Identity)).metadata.name == "default"
    assert asked > 1


@pytest.fixture
def authority() -> trustme.CA:
    """A private CA."""
    return trustme.CA()


@pytest.fixture
def demanding(authority: trustme.CA) -> ssl.SSLContext:
    """For a server that demands a client certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def certified(authority: trustme.CA, tmp_path: Path) -> Access:
    """Credentials of a client certificate, without a server yet."""
    pair = authority.issue_cert("me@test")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    pair.cert_chain_pems[0].write_to_path(str(cert))
    pair.private_key_pem.write_to_path(str(key))
    ca_pem = authority.cert_pem.bytes().decode()
    return Access(server="", ca_pem=ca_pem, cert_file=str(cert), key_file=str(key))


async def test_client_certificates_and_private_authorities(
    demanding: ssl.SSLContext, certified: Access
) -> None:
    """The client's certificate is sent, and a server that the CA does not know is refused."""
    server = ApiServer()
    stranger = trustme.CA().cert_pem.bytes().decode()
    async with server.serve(tls=demanding):
        good = replace(certified, server=server.url)
        async with connect(fixed(good), component="test") as client:
            assert (await client.get(NAMESPACES.at("default"), Identity)).metadata.uid
        bad = replace(good, ca_pem=stranger)
        async with connect(fixed(bad), component="test") as client:
            with pytest.raises(errors.TransportError, match="certificate verify failed"):
                await client.get(NAMESPACES.at("default"), Identity, timeout_s=0.3)


async def test_objects_of_several_mebibytes_pass(api: ApiServer, client: Client) -> None:
    """An answer much larger than any buffer is read whole."""
    note = "x" * (5 * 2**20)
    api.add(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "annotations": {"a": note}}}
    )
    node = await client.get(NODES.at("n"), Manifest)
    assert node["metadata"]["annotations"]["a"] == note


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
