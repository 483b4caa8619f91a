"""Certificates change under a live HTTPS server without a failed handshake."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gpu_fraction.certs import pki
from gpu_fraction.certs.certificate import Authority, Leaf
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.reading import PkiError
from gpu_fraction.certs.serving import ServingContext

NOW = datetime.now(UTC)
LIFETIMES = Lifetimes()
NAME = "webhook.ns.svc"
FIRST, SECOND = (pki.new_authority("webhook", NOW, LIFETIMES) for _ in range(2))


def leaf_of(authority: Authority) -> Leaf:
    """A leaf signed now."""
    return pki.issue_leaf(authority, [NAME, "127.0.0.1"], NOW, LIFETIMES)


class Server:
    """An echo server on loopback."""

    def __init__(self, serving: ServingContext, port: int) -> None:
        self.serving = serving
        self.port = port

    async def shake(self, authority: Authority, name: str | None = NAME) -> ssl.SSLObject:
        """A handshake that trusts this CA only; the connection is closed again."""
        reader, writer = await self.connect(authority, name)
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.close()
        await reader.read()
        return tls

    async def connect(
        self, authority: Authority, name: str | None = NAME
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that trusts this CA only."""
        context = ssl.create_default_context(cadata=authority.certificate.pem)
        async with asyncio.timeout(10):
            return await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context, server_hostname=name or "127.0.0.1"
            )


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that has no leaf yet."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    serving = ServingContext(NOW)
    listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=serving.context)
    async with listening:
        yield Server(serving, listening.sockets[0].getsockname()[1])


async def test_before_the_first_leaf_it_answers_but_is_not_trusted(server: Server) -> None:
    """A probe that checks no certificate works; an API server refuses."""
    with pytest.raises(ssl.SSLCertVerificationError):
        await server.shake(FIRST)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writer.close()


@pytest.mark.parametrize("name", [NAME, None])
async def test_a_swap_reaches_the_next_handshake(server: Server, name: str | None) -> None:
    """With and without a server name (an address is not sent as one)."""
    server.serving.swap(leaf_of(FIRST))
    await server.shake(FIRST, name)
    server.serving.swap(leaf_of(SECOND))
    await server.shake(SECOND, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        await server.shake(FIRST, name)


async def test_open_connections_keep_working(server: Server) -> None:
    """A swap, and a swap that fails, disturb nobody who is connected."""
    server.serving.swap(leaf_of(FIRST))
    reader, writer = await server.connect(FIRST)
    server.serving.swap(leaf_of(SECOND))
    with pytest.raises(PkiError):
        server.serving.swap(replace(leaf_of(FIRST), key_pem=leaf_of(FIRST).key_pem))
    writer.write(b"still here\n")
    async with asyncio.timeout(10):
        assert await reader.readline() == b"still here\n"
    writer.close()


@pytest.mark.parametrize("fault", ["other key", "no key", "no certificate", "garbage"])
async def test_a_failing_load_never_touches_the_live_one(server: Server, fault: str) -> None:
    """Whatever is wrong with the new pair, the old one is still served."""
    good, other = leaf_of(FIRST), leaf_of(FIRST)
    server.serving.swap(good)
    bad = {
        "other key": replace(other, key_pem=good.key_pem),
        "no key": replace(other, key_pem=""),
        "no certificate": replace(other, chain_pem=""),
        "garbage": replace(other, chain_pem="-----BEGIN CERTIFICATE-----\nAAAA\n"),
    }[fault]
    with pytest.raises(PkiError) as caught:
        server.serving.swap(bad)
    assert "PRIVATE" not in str(caught.value)
    assert server.serving.leaf == good
    for _ in range(3):
        await server.shake(FIRST)


async def test_no_handshake_fails_while_leaves_change(server: Server) -> None:
    """Twenty swaps against handshakes that never pause."""
    server.serving.swap(leaf_of(FIRST))
    done = 0

    async def client() -> None:
        nonlocal done
        while not stop.is_set():
            await server.shake(FIRST)
            done += 1

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(client(), name=f"client-{number}")
        for _ in range(20):
            await asyncio.sleep(0.01)
            await asyncio.to_thread(server.serving.swap, leaf_of(FIRST))
        stop.set()
    assert done > 0
