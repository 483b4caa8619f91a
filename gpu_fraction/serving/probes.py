"""``/livez``, ``/readyz`` and ``/metrics``, for the kubelet and Prometheus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str | Awaitable[str | None] | None]
"""The fault; None or an empty text for none."""

_log = structlog.get_logger(__name__)


def _fine() -> None:
    """Report no fault: a process that answers is alive."""


def add_probes(
    app: web.Application, registry: CollectorRegistry, *, ready: Check, live: Check = _fine
) -> None:
    """Add the three pages to an application.

    Args:
        app: The application.
        registry: The metrics.
        ready: Why this process is not ready; its text is the body of a 503.
        live: Why the kubelet should restart this process.
    """

    async def metrics(_request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/livez", _page(live))
    app.router.add_get("/readyz", _page(ready))
    app.router.add_get("/metrics", metrics)


def _page(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        found = check()
        reason = found if found is None or isinstance(found, str) else await found
        return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")

    return answer


@asynccontextmanager
async def serve_probes(
    host: str, port: int, registry: CollectorRegistry, *, ready: Check, live: Check = _fine
) -> AsyncIterator[None]:
    """Serve the three pages over plain HTTP while the block runs."""
    app = web.Application()
    add_probes(app, registry, ready=ready, live=live)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        _log.info("probes.listening", host=host, port=runner.addresses[0][1])
        yield
    finally:
        await runner.cleanup()
