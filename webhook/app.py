"""The composition of the admission server."""

import asyncio
import gc
import ssl

from gpu_fraction.serving.background import Work, background
from gpu_fraction.serving.server import HttpsServer
from gpu_fraction.webhook.endpoints import AdmissionApp
from gpu_fraction.webhook.settings import WebhookSettings


async def serve(
    app: AdmissionApp,
    settings: WebhookSettings,
    tls: ssl.SSLContext,
    stop: asyncio.Event,
    *work: Work,
) -> None:
    """Serve until ``stop`` is set, then drain.

    Args:
        app: The routes; ``/readyz`` fails once ``stop`` is set.
        settings: Address and shutdown.
        tls: The server's certificate, which may rotate behind the context.
        stop: Starts the drain.
        *work: Coroutines to run while the server serves.
    """
    app.checks = (lambda: "stopping" if stop.is_set() else None, *app.checks)
    server = HttpsServer(
        app.build(), host=settings.host, port=settings.port, tls=tls, drain=settings.drain
    )
    # Objects loaded so far live as long as the process; exclude them from collections.
    gc.freeze()
    async with background(*work):
        await server.serve(stop)
