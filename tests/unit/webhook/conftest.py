"""A running server, and a watch on blocking calls."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from blockbuster import blockbuster_ctx
from prometheus_client import CollectorRegistry

from gpu_fraction.serving.server import Drain, HttpsServer
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.endpoints import AdmissionApp, Check, Decide
from gpu_fraction.webhook.review import AdmissionRequest, Answer
from tests.support.reviews import rewriting
from tests.support.tls import Tls


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[None]:
    """A blocking call of ours inside the event loop fails the test."""
    with blockbuster_ctx(scanned_modules=["gpu_fraction"]):
        yield


async def decided(request: AdmissionRequest) -> Answer:
    """The real verdict of ``/mutate``."""
    return Decider(rewriting()).mutate(request)


async def validated(request: AdmissionRequest) -> Answer:
    """The real verdict of ``/validate``."""
    return Decider(rewriting()).validate(request)


@dataclass(frozen=True)
class Running:
    """A server that listens, and a client that trusts it."""

    server: HttpsServer
    client: aiohttp.ClientSession
    registry: CollectorRegistry


@dataclass(frozen=True)
class Launcher:
    """Starts admission servers on loopback."""

    tls: Tls

    @asynccontextmanager
    async def __call__(
        self,
        mutate: Decide = decided,
        validate: Decide = validated,
        checks: tuple[Check, ...] = (),
    ) -> AsyncIterator[Running]:
        """Serve while the block runs."""
        registry = CollectorRegistry()
        app = AdmissionApp(mutate, validate, registry, checks).build()
        server = HttpsServer(
            app, host="127.0.0.1", port=0, tls=self.tls.server, drain=Drain(0.0, 5.0)
        )
        async with server.listening():
            connector = aiohttp.TCPConnector(ssl=self.tls.client)
            base = f"https://127.0.0.1:{server.port}"
            async with aiohttp.ClientSession(base, connector=connector) as client:
                yield Running(server, client, registry)


@pytest.fixture
def launch(tls: Tls) -> Launcher:
    """Starts admission servers."""
    return Launcher(tls)
