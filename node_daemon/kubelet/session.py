"""Keeps the plugin known to the kubelet.

The kubelet never dials a plugin again whose stream has ended, and removes all sockets of its
directory when it starts. A registration that comes while an earlier stream of ours is still
open is lost when that one ends, so the order is always: end the stream, then register.
Source: kubernetes pkg/kubelet/cm/devicemanager/plugin/v1beta1.
"""

import asyncio
from pathlib import Path
from typing import Final, NoReturn

import grpc
import structlog
from asyncinotify import Inotify, Mask

from gpu_fraction.domain import keys
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2 as api
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2_grpc as api_grpc
from node_daemon.first import first
from node_daemon.kubelet.plugin import DevicePlugin
from node_daemon.metrics import Metrics
from node_daemon.tuning import Waits

VERSION: Final = "v1beta1"
KUBELET_SOCKET: Final = "kubelet.sock"
SOCKET: Final = "gpu-fraction.sock"
GRACE_S: Final = 0.5
"""How long a call in progress may take to end when the server is stopped: chosen."""

__all__ = ["KUBELET_SOCKET", "SOCKET", "KubeletSession"]

_log = structlog.get_logger()

Identity = tuple[int, int]


class KubeletSession:
    """Serves the plugin on its socket and registers it, again whenever that is needed."""

    def __init__(
        self, directory: Path, plugin: DevicePlugin, metrics: Metrics, waits: Waits | None = None
    ) -> None:
        """Serve in ``directory``, which is the kubelet's ``device-plugins``."""
        self._directory = directory
        self._plugin = plugin
        self._metrics = metrics
        self._waits = waits or Waits()
        self._server: grpc.aio.Server | None = None
        self._served: Identity | None = None
        self._pause_s = self._waits.retry_s

    @property
    def serving(self) -> bool:
        """True while the plugin listens on its socket."""
        return self._server is not None

    async def run(self) -> NoReturn:
        """Stay registered until cancelled."""
        cause = "start"
        try:
            while True:
                try:
                    cause = await self._registered(cause)
                    self._pause_s = self._waits.retry_s
                    await asyncio.sleep(self._waits.again_s if cause == "stream_ended" else 0)
                except (grpc.aio.AioRpcError, TimeoutError, OSError, RuntimeError) as e:
                    _log.warning("registration_failed", error=_text(e), retry_s=self._pause_s)
                    cause = "retry"
                    await asyncio.sleep(self._pause_s)
                    self._pause_s = min(2 * self._pause_s, self._waits.retry_most_s)
        finally:
            await self._stop()

    async def _registered(self, cause: str) -> str:
        """One registration, from the kubelet's socket to the end of the stream.

        Returns:
            Why it ended.
        """
        kubelet = await self._kubelet()
        await self._plugin.end_stream()
        if self._served is None or await self._identity(SOCKET) != self._served:
            await self._serve()
        await self._register()
        self._metrics.registrations.labels(cause).inc()
        async with asyncio.timeout(self._waits.stream_s):
            await self._plugin.opened()
        _log.info("registered", cause=cause, resource=keys.SLOT)
        ended = await first(
            stream_ended=self._plugin.closed(),
            kubelet_restarted=self._differs(KUBELET_SOCKET, kubelet),
            socket_removed=self._differs(SOCKET, self._served),
        )
        _log.info("registration_ended", cause=ended)
        return ended

    async def _kubelet(self) -> Identity:
        """The kubelet's socket, once it is there."""
        while (identity := await self._identity(KUBELET_SOCKET)) is None:
            await self._differs(KUBELET_SOCKET, None)
        return identity

    async def _differs(self, name: str, identity: Identity | None) -> None:
        """Return once the file of that name is another one than ``identity``."""
        while await self._identity(name) == identity:
            with Inotify() as inotify:
                try:
                    inotify.add_watch(self._directory, Mask.CREATE | Mask.DELETE | Mask.MOVE)
                except OSError:
                    await asyncio.sleep(min(1.0, self._waits.poll_s))
                    continue
                if await self._identity(name) != identity:
                    return
                try:
                    async with asyncio.timeout(self._waits.poll_s):
                        await inotify.get()
                except TimeoutError:
                    continue

    async def _identity(self, name: str) -> Identity | None:
        return await asyncio.to_thread(_identity, self._directory / name)

    async def _serve(self) -> None:
        await self._stop()
        path = self._directory / SOCKET
        await asyncio.to_thread(path.unlink, missing_ok=True)
        server = grpc.aio.server()
        api_grpc.add_DevicePluginServicer_to_server(self._plugin, server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        self._server = server
        self._served = await self._identity(SOCKET)

    async def _stop(self) -> None:
        """End the stream first: a server that cancels it leaves a traceback for each."""
        await self._plugin.end_stream()
        server, self._server, self._served = self._server, None, None
        if server is not None:
            await server.stop(GRACE_S)

    async def _register(self) -> None:
        request = api.RegisterRequest(
            version=VERSION,
            endpoint=SOCKET,
            resource_name=keys.SLOT,
            options=api.DevicePluginOptions(pre_start_required=True),
        )
        socket = self._directory / KUBELET_SOCKET
        async with grpc.aio.insecure_channel(
            f"unix:{socket}", options=[("grpc.default_authority", "localhost")]
        ) as channel:
            stub = api_grpc.RegistrationStub(channel)
            await stub.Register(request, timeout=self._waits.register_s)


def _identity(path: Path) -> Identity | None:
    """What tells one file from a later one of the same name."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_ctime_ns


def _text(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
