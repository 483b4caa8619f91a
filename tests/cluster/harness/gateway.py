"""Lets pods reach the API server, which listens on a loopback address alone.

Usage: python -m tests.cluster.harness.gateway ADDRESS SERVER_ADDRESS SERVER_PORT
It listens on port 443 of the Service ``kubernetes``, whose address is that of the pods' gateway,
and passes connections on as they are: TLS is between pod and API server.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.harness.balancer import pump
from tests.cluster.harness.control_plane import ControlPlane

_PORT = 443
_IP_FREEBIND = 15
"""The gateway's address is there only while a pod is. Source: ip(7), linux/in.h."""
_REPOSITORY = Path(__file__).parents[3]
_START_TIMEOUT_S = 60


@contextlib.contextmanager
def reachable_from_pods(plane: ControlPlane) -> Iterator[None]:
    """For as long as the context lasts, pods of node 0 reach the API server."""
    server = urlsplit(plane.access.server)
    words = [plane.run.gateway, str(server.hostname), str(server.port)]
    process = plane.process(
        "gateway",
        [sys.executable, "-m", __name__, *words],
        PYTHONPATH=str(_REPOSITORY),
    )
    process.start()
    try:
        process.wait_until(
            lambda: "listening" in process.log.read_text(), _START_TIMEOUT_S, "listening"
        )
        yield
    finally:
        process.kill()


async def main() -> None:
    """Serve until killed."""
    address, far_address, far_port = sys.argv[1:]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(far_address, int(far_port))
        except OSError:  # the API server is down
            writer.close()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump(reader, far_writer), name="to API server")
            tasks.create_task(pump(far_reader, writer), name="to pod")

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    listening.bind((address, _PORT))
    async with await asyncio.start_server(handle, sock=listening) as server:
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
