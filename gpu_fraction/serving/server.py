"""An HTTPS server that loses no request when it stops.

The API server keeps idle connections to webhooks for 90 s and never repeats a POST that was lost
on a closed connection (client-go transport/cache.go; rest/request.go). So this server keeps idle
connections longer than that, and answers with ``Connection: close`` while it stops, until no
client is connected.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import seconds

KEEPALIVE_S: Final = 120.0
"""Seconds that idle connections stay open: above the API server's 90 s."""

_CLOSE_S: Final = 5.0
"""Seconds for the last answers after the listening socket closes: chosen."""

_POLL_S: Final = 0.05

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Drain:
    """The drain of a stopping server.

    Attributes:
        least_s: Seconds until all clients have stopped using this replica (endpoint propagation).
        most_s: Seconds even if clients stay connected; the API server drops idle connections
            after 90.
    """

    least_s: float = setting(seconds(0, 600), 15.0, "minimum drain time after SIGTERM")
    most_s: float = setting(seconds(0, 600), 100.0, "maximum drain time after SIGTERM")


class HttpsServer:
    """One aiohttp application on one TLS port."""

    def __init__(
        self,
        app: web.Application,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        drain: Drain | None = None,
    ) -> None:
        """Prepare, without listening.

        Args:
            app: The application.
            host: Address to listen on.
            port: Port to listen on, 0 for any.
            tls: The server's certificate; may change through ``sni_callback``.
            drain: The drain times.
        """
        self._app = app
        self._host = host
        self._port = port
        self._tls = tls
        self._drain = drain or Drain()
        self.draining = False
        self.port = port
        app.on_response_prepare.append(self._close_when_draining)

    async def _close_when_draining(
        self, _request: web.BaseRequest, response: web.StreamResponse
    ) -> None:
        if self.draining:
            # The header too: aiohttp sets it before this signal, and a client loses the request
            # that it sends on a connection that closes without notice.
            response.headers["Connection"] = "close"
            response.force_close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["HttpsServer"]:
        """Listen while the block runs; ``port`` is the real one inside it."""
        runner = web.AppRunner(
            self._app,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=_CLOSE_S,
            auto_decompress=False,  # no client compresses, and unpacking costs the server
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port, ssl_context=self._tls, backlog=1024)
            await site.start()
            self.port = runner.addresses[0][1]
            log.info("server.listening", host=self._host, port=self.port)
            yield self
            await self._drained(runner)
        finally:
            async with asyncio.timeout(2 * _CLOSE_S):
                await runner.cleanup()

    async def _drained(self, runner: web.AppRunner) -> None:
        """Serve with ``Connection: close`` until no client is connected."""
        self.draining = True
        loop = asyncio.get_running_loop()
        started = loop.time()
        log.info("server.draining", least_s=self._drain.least_s, most_s=self._drain.most_s)
        while (waited := loop.time() - started) < self._drain.most_s:
            gone = runner.server is None or not runner.server.connections
            if gone and waited >= self._drain.least_s:
                break
            await asyncio.sleep(_POLL_S)
        left = len(runner.server.connections) if runner.server else 0
        log.info("server.stopped", connections_left=left)

    async def serve(self, stop: asyncio.Event) -> None:
        """Listen until ``stop`` is set, then drain."""
        async with self.listening():
            await stop.wait()
