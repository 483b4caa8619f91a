"""A server that loses no request when it stops."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from gpu_fraction.serving.server import KEEPALIVE_S, Drain, HttpsServer
from tests.support.tls import Tls


@dataclass
class Service:
    """A server under test: it answers at once, or when it is told to."""

    server: HttpsServer
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, _request: web.Request) -> web.Response:
        """At once."""
        return web.Response(text="ok")

    async def answer_later(self, _request: web.Request) -> web.Response:
        """When told to."""
        self.entered.set()
        await self.go_on.wait()
        return web.Response(text="late")


@contextlib.asynccontextmanager
async def serving(tls: Tls, drain: Drain) -> AsyncIterator[tuple[Service, asyncio.Task[None]]]:
    """A server that serves until its event is set; ended with the block at the latest."""
    app = web.Application()
    server = HttpsServer(app, host="127.0.0.1", port=0, tls=tls.server, drain=drain)
    service = Service(server)
    app.router.add_post("/", service.answer)
    app.router.add_post("/later", service.answer_later)
    async with asyncio.timeout(30):
        task = asyncio.create_task(server.serve(service.stop))
        while server.port == 0:
            await asyncio.sleep(0.01)
        try:
            yield service, task
        finally:
            service.stop.set()
            service.go_on.set()
            await task


@contextlib.asynccontextmanager
async def connected(service: Service, tls: Tls) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with one connection that it keeps."""
    connector = aiohttp.TCPConnector(ssl=tls.client, limit=1)
    base = f"https://127.0.0.1:{service.server.port}"
    async with aiohttp.ClientSession(base, connector=connector) as client:
        yield client


async def call(client: aiohttp.ClientSession, path: str = "/") -> tuple[str, str | None]:
    """The text, and what is said about the connection."""
    async with client.post(path) as answer:
        assert answer.status == 200
        return await answer.text(), answer.headers.get("Connection")


async def test_connections_are_kept(tls: Tls) -> None:
    """Longer than the API server keeps idle ones, or it would reuse one that is just closed."""
    assert KEEPALIVE_S > 90
    async with (
        serving(tls, Drain(0, 5)) as (service, _),
        connected(service, tls) as client,
    ):
        assert [await call(client) for _ in range(3)] == [("ok", None)] * 3


async def test_a_stopping_server_sends_its_clients_elsewhere(tls: Tls) -> None:
    """It answers on and says so in each answer: a closed connection alone would come too late."""
    async with (
        serving(tls, Drain(0, 20)) as (service, task),
        connected(service, tls) as kept,
        connected(service, tls) as idle,
        connected(service, tls) as busy,
    ):
        for client in (kept, idle, busy):
            assert await call(client) == ("ok", None)
        late = asyncio.create_task(call(busy, "/later"))
        await service.entered.wait()
        service.stop.set()
        while not service.server.draining:
            await asyncio.sleep(0.01)
        assert await call(kept) == ("ok", "close")
        assert await call(kept) == ("ok", "close")  # a new connection, still taken
        service.go_on.set()
        assert await late == ("late", "close")
        assert not task.done()  # the idle one has not been told yet
        assert await call(idle) == ("ok", "close")
        await task


async def test_errors_say_so_too(tls: Tls) -> None:
    """Every answer does, whoever made it."""
    async with (
        serving(tls, Drain(0, 20)) as (service, _),
        connected(service, tls) as client,
    ):
        assert await call(client) == ("ok", None)
        service.stop.set()
        while not service.server.draining:
            await asyncio.sleep(0.01)
        async with client.post("/nowhere") as answer:
            assert (answer.status, answer.headers.get("Connection")) == (404, "close")


async def test_a_client_that_stays_does_not_hold_the_server_up_for_ever(tls: Tls) -> None:
    """It ends when its time is up, idle connections or not."""
    async with (
        serving(tls, Drain(0, 0.2)) as (service, task),
        connected(service, tls) as client,
    ):
        await call(client)
        service.stop.set()
        await task
        with pytest.raises(aiohttp.ClientConnectionError):
            await call(client)


async def test_it_serves_on_for_a_while_even_when_nobody_is_there(tls: Tls) -> None:
    """Clients that have not heard yet still come."""
    async with serving(tls, Drain(0.5, 20)) as (service, task):
        service.stop.set()
        while not service.server.draining:
            await asyncio.sleep(0.01)
        async with connected(service, tls) as client:
            assert await call(client) == ("ok", "close")
        await task


async def test_plain_http_is_not_answered(tls: Tls) -> None:
    """And does not disturb the others."""
    async with serving(tls, Drain(0, 5)) as (service, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        async with connected(service, tls) as client:
            assert await call(client) == ("ok", None)


async def test_a_client_that_does_not_trust_the_certificate(tls: Tls) -> None:
    """Goes away, and does not disturb the others."""
    async with serving(tls, Drain(0, 5)) as (service, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1", service.server.port, ssl=ssl.create_default_context()
            )
        async with connected(service, tls) as client:
            assert await call(client) == ("ok", None)
