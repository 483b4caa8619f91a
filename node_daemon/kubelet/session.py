"""Keeps the plugin known to the kubelet.

The kubelet never dials a plugin again whose stream has ended, and removes all sockets of its
directory when it starts. Up to 1.36, a registration that comes while an earlier stream of ours is
still open is lost when that one ends, so the order is always: end the stream, then register. From
1.37 on, a registration under the name of a socket whose end the kubelet has not noticed yet is
refused, and makes it forget the socket without ever giving the name free: so each registration
has a socket of a name of its own.
Source: kubernetes pkg/kubelet/cm/devicemanager: manager.go (PluginConnected), plugin/v1beta1.
"""

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import grpc
import structlog
from asyncinotify import Inotify, Mask

from gpu_fraction.domain import keys
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2 as api
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2_grpc as api_grpc
from gpu_fraction.node_daemon.kubelet.plugin import DevicePlugin
from gpu_fraction.node_daemon.metrics import Metrics
from gpu_fraction.node_daemon.state.concurrency import first_completed

VERSION: Final = "v1beta1"
KUBELET_SOCKET: Final = "kubelet.sock"
SOCKETS: Final = "gpu-fraction*.sock"
"""Our own in the kubelet's directory, those that an earlier process left among them."""
GRACE_S: Final = 0.5
"""Time for calls in progress when the server is stopped: chosen."""

_log = structlog.get_logger()

FileId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits for the kubelet, seconds.

    Attributes:
        register_s: For the answer to a registration; the kubelet dials back within it for up
            to 10 s. Source: devicemanager/plugin/v1beta1/client.go.
        stream_s: For the first ``ListAndWatch`` after a registration.
        again_s: After a stream ended while the kubelet lives, so that it notices before the
            next registration.
        retry_s: First pause after a failure; doubles up to ``retry_most_s``.
        poll_s: Between two looks at the sockets, where inotify reports nothing.
    """

    register_s: float = 15.0
    stream_s: float = 15.0
    again_s: float = 0.2
    retry_s: float = 0.1
    retry_most_s: float = 5.0
    poll_s: float = 5.0


class KubeletSession:
    """Serves the plugin on a socket and registers it, again whenever that is needed."""

    def __init__(
        self, directory: Path, plugin: DevicePlugin, metrics: Metrics, waits: Waits | None = None
    ) -> None:
        """Serve in ``directory``, which is the kubelet's ``device-plugins``."""
        self._directory = directory
        self._plugin = plugin
        self._metrics = metrics
        self._waits = waits or Waits()
        self._server: grpc.aio.Server | None = None
        self._socket: Path | None = None
        self._kubelet: FileId | None = None
        self._pause_s = self._waits.retry_s

    @property
    def socket(self) -> Path | None:
        """The plugin's socket; None while it does not listen."""
        return self._socket

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
                    cause = await self._pause()
        finally:
            await self._stop()

    async def _registered(self, cause: str) -> str:
        """One registration, from the kubelet's socket to the end of the stream.

        Returns:
            Why it ended.
        """
        self._kubelet = kubelet = await self._present()
        socket = await self._serve()
        served = await self._file_id(socket.name)
        if served is None:
            return "socket_removed"
        # A kubelet that starts removes our socket, then listens: one made in the instant before
        # is dialled in vain for ten seconds, while the kubelet refuses pods for good.
        ended = await first_completed(
            registered=self._register(socket.name),
            kubelet_restarted=self._differs(KUBELET_SOCKET, kubelet),
            socket_removed=self._differs(socket.name, served),
        )
        if ended == "registered":
            self._metrics.registrations.labels(cause).inc()
            async with asyncio.timeout(self._waits.stream_s):
                await self._plugin.opened()
            _log.info("registered", cause=cause, resource=keys.SLOT)
            ended = await first_completed(
                stream_ended=self._plugin.closed(),
                kubelet_restarted=self._differs(KUBELET_SOCKET, kubelet),
                socket_removed=self._differs(socket.name, served),
            )
        _log.info("registration_ended", cause=ended)
        return ended

    async def _pause(self) -> str:
        """Wait after a failure, or until another kubelet listens.

        A kubelet that was killed leaves its socket, and the next one refuses for good the pods
        that it admits before it has our tokens.

        Returns:
            What makes the next registration needed.
        """
        try:
            async with asyncio.timeout(self._pause_s):
                await self._differs(KUBELET_SOCKET, self._kubelet)
        except TimeoutError:
            self._pause_s = min(2 * self._pause_s, self._waits.retry_most_s)
            return "retry"
        self._pause_s = self._waits.retry_s
        return "kubelet_restarted"

    async def _present(self) -> FileId:
        """The kubelet's socket, once it is there."""
        while (file_id := await self._file_id(KUBELET_SOCKET)) is None:
            await self._differs(KUBELET_SOCKET, None)
        return file_id

    async def _differs(self, name: str, file_id: FileId | None) -> None:
        """Return once the file of that name is another one than ``file_id``."""
        while await self._file_id(name) == file_id:
            with Inotify() as inotify:
                try:
                    inotify.add_watch(self._directory, Mask.CREATE | Mask.DELETE | Mask.MOVE)
                except OSError:
                    await asyncio.sleep(min(1.0, self._waits.poll_s))
                    continue
                if await self._file_id(name) != file_id:
                    return
                try:
                    async with asyncio.timeout(self._waits.poll_s):
                        await inotify.get()
                except TimeoutError:
                    continue

    async def _file_id(self, name: str) -> FileId | None:
        return await asyncio.to_thread(_file_id, self._directory / name)

    async def _serve(self) -> Path:
        """Listen on a new socket, after the previous server has ended."""
        await self._stop()
        await asyncio.to_thread(_remove, self._directory)
        socket = self._directory / f"gpu-fraction-{secrets.token_hex(4)}.sock"
        server = grpc.aio.server()
        api_grpc.add_DevicePluginServicer_to_server(self._plugin, server)
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        self._server, self._socket = server, socket
        return socket

    async def _stop(self) -> None:
        """End the stream first: a server that cancels it leaves a traceback for each."""
        await self._plugin.end_stream()
        server, self._server, self._socket = self._server, None, None
        if server is not None:
            await server.stop(GRACE_S)

    async def _register(self, endpoint: str) -> None:
        request = api.RegisterRequest(
            version=VERSION,
            endpoint=endpoint,
            resource_name=keys.SLOT,
            options=api.DevicePluginOptions(pre_start_required=True),
        )
        socket = self._directory / KUBELET_SOCKET
        # Channels of one address share their failures: without a pool of its own, this one would
        # fail for a second after the last kubelet's socket has refused it.
        options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
            stub = api_grpc.RegistrationStub(channel)
            await stub.Register(request, timeout=self._waits.register_s)


def _remove(directory: Path) -> None:
    """Our sockets, on which nothing listens any more; blocking."""
    for path in directory.glob(SOCKETS):
        path.unlink(missing_ok=True)


def _file_id(path: Path) -> FileId | None:
    """Distinguishes a file from a later one of the same name."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_ctime_ns


def _text(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
