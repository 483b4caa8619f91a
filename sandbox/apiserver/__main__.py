"""Run the server as a process: ``python -m gpu_fraction.sandbox.apiserver --port 0``."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from gpu_fraction.sandbox.apiserver.server import BOOKMARK_PERIOD_S, ApiServer

KUBECONFIG: Final = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "sandbox",
    "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
    "users": [{"name": "sandbox", "user": {}}],
}


def main() -> None:
    """Serve until SIGTERM or SIGINT; the first line on stdout is the URL."""
    parser = argparse.ArgumentParser(
        prog="python -m gpu_fraction.sandbox.apiserver",
        description="A small API server on loopback.",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 takes a free one")
    parser.add_argument("--kubeconfig", type=Path, help="write a kubeconfig to this file")
    parser.add_argument(
        "--bookmark-period-s", type=float, default=BOOKMARK_PERIOD_S, help="seconds"
    )
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.kubeconfig, arguments.bookmark_period_s))


async def _serve(port: int, kubeconfig: Path | None, bookmark_period_s: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = ApiServer(bookmark_period_s=bookmark_period_s)
    async with server.serve(port=port):
        if kubeconfig is not None:
            clusters = [{"name": "sandbox", "cluster": {"server": server.url}}]
            content = msgspec.json.encode({**KUBECONFIG, "clusters": clusters})
            await asyncio.to_thread(kubeconfig.write_bytes, content)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
