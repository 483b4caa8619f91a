"""The kubelet's calls to a daemon that waits for its turn go to the one whose turn it is.

The kubelet calls the driver that has registered last, so an update misses no call where the new
daemon is registered before the old one ends.
Source: kubernetes, pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
import structlog

from gpu_fraction.kubelet_api import dra_v1_pb2 as api
from gpu_fraction.kubelet_api import dra_v1_pb2_grpc as api_grpc
from gpu_fraction.node_daemon.dra.preparer import DEADLINE_S
from gpu_fraction.node_daemon.dra.service import DraService
from gpu_fraction.node_daemon.state.concurrency import first_completed
from gpu_fraction.node_daemon.state.turn import Turn

AGAIN_S: Final = 0.1
"""Pause before a predecessor that did not answer is asked again: chosen."""

_log = structlog.get_logger()
_Context = grpc.aio.ServicerContext[Any, Any]
_Answer = TypeVar("_Answer")


class Relay(api_grpc.DRAPluginServicer):
    """Serves by ``own`` in the daemon's turn, and by the daemon whose turn it is before.

    A call that is sent to both does no harm, because it may be repeated.
    """

    def __init__(self, own: DraService, turn: Turn, deadline_s: float = DEADLINE_S) -> None:
        """Relay until the daemon has its turn; a call has so many seconds for that."""
        self._own = own
        self._turn = turn
        self._deadline_s = deadline_s

    async def NodePrepareResources(  # noqa: N802 - the protocol's name
        self, request: api.NodePrepareResourcesRequest, context: _Context
    ) -> api.NodePrepareResourcesResponse:
        """Prepare each claim."""
        answer = await self._before(
            lambda to: api_grpc.DRAPluginStub(to).NodePrepareResources(request), context
        )
        if answer is None:
            return await self._own.NodePrepareResources(request, context)
        return answer

    async def NodeUnprepareResources(  # noqa: N802
        self, request: api.NodeUnprepareResourcesRequest, context: _Context
    ) -> api.NodeUnprepareResourcesResponse:
        """Take each claim back."""
        answer = await self._before(
            lambda to: api_grpc.DRAPluginStub(to).NodeUnprepareResources(request), context
        )
        if answer is None:
            return await self._own.NodeUnprepareResources(request, context)
        return answer

    async def _before(
        self, call: Callable[[grpc.aio.Channel], Awaitable[_Answer]], context: _Context
    ) -> _Answer | None:
        """The predecessor's answer; None once it is the turn of this daemon."""
        why = "it is not known where it serves"
        try:
            async with asyncio.timeout(self._deadline_s):
                while not self._turn.begun.is_set():
                    if socket := await self._turn.predecessor():
                        try:
                            return await _ask(socket, call)
                        except grpc.aio.AioRpcError as e:
                            why = e.details() or e.code().name
                    await first_completed(
                        begun=self._turn.begun.wait(), again=asyncio.sleep(AGAIN_S)
                    )
        except TimeoutError:
            message = f"the node daemon whose turn it is has neither answered nor ended: {why}"
            _log.error("predecessor_silent", why=why)
            await context.abort(grpc.StatusCode.UNAVAILABLE, message)
        return None


async def _ask(socket: str, call: Callable[[grpc.aio.Channel], Awaitable[_Answer]]) -> _Answer:
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        return await call(channel)
