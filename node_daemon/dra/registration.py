"""The driver's sockets: one that the kubelet finds, and one that it then calls.

The kubelet watches ``plugins_registry`` and calls whoever listens there; it looks there again
whenever it starts, so that nothing has to be made anew. To remove the socket is to leave.
Source: kubernetes pkg/kubelet/pluginmanager; k8s.io/kubelet pkg/apis/pluginregistration/v1.
"""

import asyncio
import socket as socketlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import structlog

from gpu_fraction.domain import dra
from gpu_fraction.kubelet_api import pluginregistration_v1_pb2 as api
from gpu_fraction.kubelet_api import pluginregistration_v1_pb2_grpc as api_grpc
from gpu_fraction.node_daemon.kubelet.session import GRACE_S
from gpu_fraction.node_daemon.metrics import Metrics
from gpu_fraction.node_daemon.state.errors import StoreError

TYPE: Final = "DRAPlugin"
VERSIONS: Final = ("v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth")
"""The services, of each kind the newest first. Source: kubelet, cm/dra/plugin."""

PATH_BYTES: Final = 107
"""Source: sockaddr_un, unix(7)."""

_log = structlog.get_logger()
_Context = grpc.aio.ServicerContext[Any, Any]


class Registration(api_grpc.RegistrationServicer):
    """Names the driver to the kubelet."""

    def __init__(self, endpoint: Path, metrics: Metrics) -> None:
        self._endpoint = endpoint
        self._metrics = metrics
        self.problem = "the kubelet has not registered the driver yet"
        """Why the kubelet does not know the driver; empty where it does."""

    async def GetInfo(  # noqa: N802 - the protocol's name
        self, request: api.InfoRequest, context: _Context
    ) -> api.PluginInfo:
        """The driver, its socket, its services."""
        del request, context
        return api.PluginInfo(
            type=TYPE,
            name=dra.DRIVER,
            endpoint=str(self._endpoint),
            supported_versions=VERSIONS,
        )

    async def NotifyRegistrationStatus(  # noqa: N802
        self, request: api.RegistrationStatus, context: _Context
    ) -> api.RegistrationStatusResponse:
        """Hear whether the kubelet took the driver; if not, it tries again by itself."""
        del context
        if request.plugin_registered:
            self.problem = ""
            self._metrics.registrations.labels("kubelet").inc()
            _log.info("registered", driver=dra.DRIVER)
        else:
            self.problem = f"the kubelet refuses the driver: {request.error}"
            _log.error("registration_failed", error=request.error)
        return api.RegistrationStatusResponse()


@asynccontextmanager
async def listening(
    socket: Path, add: Callable[[grpc.aio.Server], None], grace_s: float = GRACE_S
) -> AsyncIterator[None]:
    """A server on a socket, which is there while the block runs.

    Args:
        socket: Where.
        add: Adds the services.
        grace_s: How long calls in progress may go on when the block ends.

    Raises:
        StoreError: the socket cannot be made.
    """
    await asyncio.to_thread(_make_room, socket)
    server = grpc.aio.server()
    add(server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace_s)
        await asyncio.to_thread(socket.unlink, missing_ok=True)


def _make_room(socket: Path) -> None:
    """Make the folder, and remove what an earlier process has left."""
    if len(str(socket).encode()) > PATH_BYTES:
        raise StoreError(f"{socket} is longer than the {PATH_BYTES} bytes of a socket's path")
    try:
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
    except OSError as e:
        raise StoreError(f"{socket}: {e.strerror}") from e


def remove_deserted(folder: Path, pattern: str) -> None:
    """Remove sockets at which nobody listens, left by daemons that were killed; blocking."""
    for path in folder.glob(pattern):
        with socketlib.socket(socketlib.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                _log.info("deserted_socket_removed", socket=path.name)
            except OSError as e:
                _log.warning("socket_not_examined", socket=path.name, error=str(e))


async def get_info(channel: grpc.aio.Channel) -> api.PluginInfo:
    """What the kubelet asks first."""
    return await api_grpc.RegistrationStub(channel).GetInfo(api.InfoRequest())
