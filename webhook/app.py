"""The admission server, put together."""

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
        app: What is served; it is not ready any more once ``stop`` is set.
        settings: Where and how.
        tls: The certificate, which may change behind the context.
        stop: Begins the drain.
        *work: What runs for as long as the server serves.
    """
    app.checks = (lambda: "stopping" if stop.is_set() else None, *app.checks)
    server = HttpsServer(
        app.build(), host=settings.host, port=settings.port, tls=tls, drain=settings.drain
    )
    # What is loaded by now lives as long as the process; the collector need not look at it.
    gc.freeze()
    async with background(*work):
        await server.serve(stop)
