"""Spreads connections over replicas by their readiness, as a Service does.

Usage: python -m tests.cluster.harness.balancer PORT BACKEND_PORT...
It stands in for kube-proxy: a connection goes to a replica whose ``/readyz`` answered 200 at
the last look, and stays there until one side closes it.
"""

import asyncio
import contextlib
import itertools
import ssl
import sys

_ADDRESS = "127.0.0.1"
_LOOK_EVERY_S = 0.1
_LOOK_TIMEOUT_S = 1.0
_CHUNK = 1 << 16


class Balancer:
    """Connections in, connections out."""

    def __init__(self, backends: list[int]) -> None:
        self._backends = backends
        self._ready: set[int] = set()
        self._turn = itertools.count()
        self._trust = ssl.create_default_context()
        self._trust.check_hostname = False
        self._trust.verify_mode = ssl.CERT_NONE  # readiness, as the kubelet probes it

    async def watch(self, backend: int) -> None:
        """Keep one replica's readiness up to date."""
        while True:
            if await self._is_ready(backend):
                self._ready.add(backend)
            else:
                self._ready.discard(backend)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _is_ready(self, backend: int) -> bool:
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(_ADDRESS, backend, ssl=self._trust)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                status = await reader.readline()
                writer.close()
                return b" 200 " in status
        except (OSError, TimeoutError):
            return False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client to a replica until one of them is done."""
        far = await self._connect()
        if far is None:
            writer.close()
            return
        far_reader, far_writer = far
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump(reader, far_writer), name="to replica")
            tasks.create_task(pump(far_reader, writer), name="to client")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The next ready replica, or one after it if it has just stopped listening."""
        ready = sorted(self._ready) or self._backends
        first = next(self._turn)
        for step in range(len(ready)):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(_ADDRESS, ready[(first + step) % len(ready)])
        return None


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what is read until it ends, and the end too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until killed."""
    port, *backends = (int(word) for word in sys.argv[1:])
    balancer = Balancer(backends)
    server = await asyncio.start_server(balancer.handle, _ADDRESS, port)
    async with asyncio.TaskGroup() as tasks, server:
        for backend in backends:
            tasks.create_task(balancer.watch(backend), name=f"watch {backend}")
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
