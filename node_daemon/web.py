"""Metrics and probes over plain HTTP, for the node's own network."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["Check", "serve"]

_log = structlog.get_logger()

Check = Callable[[], Awaitable[str]]
"""What is wrong, empty where nothing is."""


@asynccontextmanager
async def serve(
    host: str, port: int, registry: CollectorRegistry, live: Check, ready: Check
) -> AsyncIterator[int]:
    """Serve ``/metrics``, ``/livez`` and ``/readyz`` while the block runs; yields the port."""

    async def metrics(_request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", _probe(live))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound: int = runner.addresses[0][1]
        _log.info("http_listening", host=host, port=bound)
        yield bound
    finally:
        await runner.cleanup()


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        problem = await check()
        return web.Response(status=503 if problem else 200, text=problem or "ok")

    return answer
