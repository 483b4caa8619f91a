"""The transport: connections, credentials, deadlines, and answers as bytes."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from aiohttp.typedefs import Handler

from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access, AccessError, AccessSource
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.resources import NAMESPACES, NODES, PODS
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.sandbox.apiserver import ApiServer
from tests.support.access import fixed

pytestmark = pytest.mark.usefixtures("no_blocking_calls")

Manifest = dict[str, Any]
POD = PODS.at("p", namespace="team-a")


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
            await response.write(part)
            await asyncio.sleep(0.6)
        return response

    retry = RetryPolicy(attempt_timeout_s=1.0)
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
    assert not caught.value.started


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
        once = RetryPolicy(Backoff(initial_s=60, cap_s=60))
        async with connect(fixed(bad), component="test", retry=once) as client:
            with pytest.raises(errors.TransportError, match="certificate verify failed"):
                await client.get(NAMESPACES.at("default"), Identity)


async def test_objects_of_several_mebibytes_pass(api: ApiServer, client: Client) -> None:
    """An answer much larger than any buffer is read whole."""
    note = "x" * (5 * 2**20)
    api.add(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "annotations": {"a": note}}}
    )
    node = await client.get(NODES.at("n"), Manifest)
    assert node["metadata"]["annotations"]["a"] == note
