"""An extender as a process of its own, for tests that kill it.

The command line's own wiring, but for the reader of request annotations, which is the tests'.
"""

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import connect
from quota.model_limits import ModelLimitsWatch
from scheduler.auth import Callers, server_tls
from scheduler.pod_tls import CLIENT_NAME
from scheduler.service import ExtenderService, Wiring
from tests.builders import pods


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tls = server_tls(
        arguments.tls / "tls.crt", arguments.tls / "tls.key", arguments.tls / "ca.crt"
    )
    source = kubeconfig(str(arguments.kubeconfig))
    async with connect(source, component="scheduler-extender") as client:
        limits = ModelLimitsWatch(client)
        wiring = Wiring(Callers(frozenset([CLIENT_NAME])), pods.read_request, limits)
        service = ExtenderService(client, wiring, CollectorRegistry())
        runner = web.AppRunner(service.app, access_log=None, keepalive_timeout=120)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", arguments.port, ssl_context=tls)
        await site.start()
        work = [
            asyncio.create_task(service.run(), name="extender"),
            asyncio.create_task(limits.run(), name="model-limits"),
        ]
        try:
            await stop.wait()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await runner.cleanup()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--tls", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
