"""An extender over TLS beside a sandbox API server."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
import trustme
from aiohttp import web
from prometheus_client import CollectorRegistry

from gpu_fraction.domain import keys
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.sandbox.apiserver import ApiServer
from gpu_fraction.scheduler.app import ExtenderService
from gpu_fraction.scheduler.auth import Callers, server_tls
from gpu_fraction.scheduler.model_quota import NO_LIMITS, ModelLimits
from tests.builders import pods
from tests.builders.clusters import node_cards
from tests.support.access import fixed

TOKEN = "let-the-scheduler-in"


@dataclass(frozen=True)
class Certificates:
    """The extender's and its callers'."""

    server: ssl.SSLContext
    known: ssl.SSLContext
    unknown: ssl.SSLContext
    bare: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One CA for the server and one for its clients."""
    folder = tmp_path_factory.mktemp("tls")
    ca, clients = trustme.CA(), trustme.CA()
    certificate, key, client_ca = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
    leaf = ca.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    clients.cert_pem.write_to_path(client_ca)

    def client(name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        if name is not None:
            clients.issue_cert(name, common_name=name).configure_cert(context)
        return context

    return Certificates(
        server=server_tls(Path(certificate), Path(key), Path(client_ca)),
        known=client("gpu-fraction-scheduler"),
        unknown=client("somebody"),
        bare=client(None),
    )


@dataclass
class Running:
    """An extender that serves."""

    service: ExtenderService
    url: str
    session: aiohttp.ClientSession
    certificates: Certificates
    registry: CollectorRegistry

    async def call(
        self,
        verb: str,
        body: object,
        *,
        tls: ssl.SSLContext | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """POST to a verb; the status and the decoded answer."""
        context = tls or self.certificates.known
        data = body if isinstance(body, bytes) else None
        async with (
            asyncio.timeout(5),
            self.session.post(
                f"{self.url}/{verb}",
                json=None if data is not None else body,
                data=data,
                ssl=context,
                headers=headers,
            ) as answer,
        ):
            return answer.status, (await answer.json() if answer.ok else await answer.text())

    async def get(self, path: str) -> tuple[int, str]:
        """GET without any proof of who we are."""
        async with (
            asyncio.timeout(5),
            self.session.get(f"{self.url}{path}", ssl=self.certificates.bare) as answer,
        ):
            return answer.status, await answer.text()

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait for the watch."""
        async with asyncio.timeout(5):
            while not met():
                await asyncio.sleep(0.005)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """Two nodes with two cards each."""
    server = ApiServer()
    server.add_namespace("team")
    for name in ("a", "b"):
        annotations = {keys.INVENTORY: pods.inventory_of(node_cards(name, 2))}
        metadata = {"name": name, "annotations": annotations}
        server.add({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
    async with server.serve():
        yield server


class Extend(Protocol):
    """Starts an extender."""

    def __call__(self, limits: ModelLimits = NO_LIMITS) -> AbstractAsyncContextManager[Running]:
        """With these limits on GPU models."""
        ...


@pytest.fixture
def extend(api: ApiServer, certificates: Certificates) -> Extend:
    """Start an extender; each start is a new one that knows nothing."""

    @asynccontextmanager
    async def started(limits: ModelLimits = NO_LIMITS) -> AsyncIterator[Running]:
        retry = RetryPolicy(Backoff(initial_s=0.01, cap_s=0.05), attempt_timeout_s=1.0)
        callers = Callers(frozenset(["gpu-fraction-scheduler"]), TOKEN)
        registry = CollectorRegistry()
        source = fixed(Access(server=api.url))
        async with connect(source, component="test", retry=retry) as client:
            service = ExtenderService(client, callers, limits, registry)
            async with (
                _served(service.app, certificates.server) as url,
                _run(service.run),
                aiohttp.ClientSession() as session,
            ):
                yield Running(service, url, session, certificates, registry)

    return started


@asynccontextmanager
async def _served(app: web.Application, tls: ssl.SSLContext) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _run(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async def run() -> None:
        await work()

    task = asyncio.create_task(run(), name="extender")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def extender(extend: Extend) -> AsyncIterator[Running]:
    """One extender, loaded."""
    async with extend() as running:
        async with asyncio.timeout(5):
            await running.service.synced()
        yield running
