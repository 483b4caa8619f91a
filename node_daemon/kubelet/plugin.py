"""The device plugin service, version v1beta1."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import grpc
import structlog

from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2 as api
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2_grpc as api_grpc
from gpu_fraction.node_daemon.metrics import Metrics
from gpu_fraction.node_daemon.state.allocation import Binding, Nonce, qualified
from gpu_fraction.node_daemon.state.concurrency import Observable, first_completed
from gpu_fraction.node_daemon.state.errors import PodRef, Reason, Refusal
from gpu_fraction.node_daemon.state.tokens import TokenState

HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"
"""Source: kubernetes deviceplugin/v1beta1/constants.go."""

_log = structlog.get_logger()
_T = TypeVar("_T")

_Context = grpc.aio.ServicerContext[Any, Any]

Refused = Callable[[PodRef, str, str], None]
"""Reports that a container of a pod may not start now: the pod, the reason and a message."""


class Stream:
    """One open ``ListAndWatch``."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.ended = asyncio.Event()


class DevicePlugin(api_grpc.DevicePluginServicer):
    """Answers the kubelet. At most one stream is open at a time."""

    def __init__(
        self,
        tokens: Observable[tuple[TokenState, ...]],
        allocate: Callable[[Sequence[str]], Awaitable[Nonce]],
        pre_start: Callable[[Sequence[str]], Awaitable[Binding]],
        refused: Refused,
        metrics: Metrics,
    ) -> None:
        """Show ``tokens``; answer by ``allocate`` and ``pre_start``, which raise Refusal."""
        self._tokens = tokens
        self._allocate = allocate
        self._pre_start = pre_start
        self._refused = refused
        self._metrics = metrics
        self._stream: Stream | None = None
        self._opened = asyncio.Event()

    async def GetDevicePluginOptions(  # noqa: N802 - the protocol's name
        self, request: api.Empty, context: _Context
    ) -> api.DevicePluginOptions:
        """Ask for a call before each container start."""
        del request, context
        return api.DevicePluginOptions(pre_start_required=True)

    async def ListAndWatch(  # noqa: N802
        self, request: api.Empty, context: _Context
    ) -> AsyncIterator[api.ListAndWatchResponse]:
        """All tokens, now and after each change."""
        del request, context
        await self.end_stream()
        self._stream = stream = Stream()
        self._opened.set()
        self._metrics.streams.set(1)
        try:
            while not stream.end.is_set():
                # Only a difference is sent: for each message the kubelet fsyncs its checkpoint.
                states = await self._tokens.wait()
                yield _response(states)
                await first_completed(
                    changed=self._tokens.changed_from(states), end=stream.end.wait()
                )
        finally:
            stream.ended.set()
            if self._stream is stream:
                self._stream = None
                self._metrics.streams.set(0)

    async def GetPreferredAllocation(  # noqa: N802
        self, request: api.PreferredAllocationRequest, context: _Context
    ) -> api.PreferredAllocationResponse:
        """Never asked for by the kubelet: tokens are alike."""
        del request, context
        return api.PreferredAllocationResponse()

    async def Allocate(  # noqa: N802
        self, request: api.AllocateRequest, context: _Context
    ) -> api.AllocateResponse:
        """Answer one fresh CDI name for each container; its content is written later."""
        with self._metrics.allocate_seconds.time():
            nonces = [
                await self._answer(self._allocate(list(r.devices_ids)), context)
                for r in request.container_requests
            ]
        names = [api.CDIDevice(name=qualified(nonce)) for nonce in nonces]
        return api.AllocateResponse(
            container_responses=[api.ContainerAllocateResponse(cdi_devices=[n]) for n in names]
        )

    async def PreStartContainer(  # noqa: N802
        self, request: api.PreStartContainerRequest, context: _Context
    ) -> api.PreStartContainerResponse:
        """Give the name its meaning; an error makes the kubelet ask again."""
        with self._metrics.pre_start_seconds.time():
            await self._answer(self._pre_start(list(request.devices_ids)), context)
        return api.PreStartContainerResponse()

    @property
    def streaming(self) -> bool:
        """True while the kubelet follows the list."""
        return self._stream is not None

    async def opened(self) -> None:
        """Return once the kubelet has opened a stream, from now or still open."""
        if self._stream is None:
            self._opened.clear()
            await self._opened.wait()

    async def closed(self) -> None:
        """Return once no stream is open."""
        while (stream := self._stream) is not None:
            await stream.ended.wait()

    async def end_stream(self) -> None:
        """End the open stream, where there is one, and wait until it has ended."""
        if self._stream is not None:
            self._stream.end.set()
            await self._stream.ended.wait()

    async def _answer(self, work: Awaitable[_T], context: _Context) -> _T:
        """The result, or its failure as the status that the kubelet shows."""
        try:
            return await work
        except Refusal as e:
            self._metrics.refusals.labels(e.reason.value).inc()
            _log.warning("refused", reason=e.reason.value, message=str(e))
            for pod in e.pods:
                self._refused(pod, e.reason.value, str(e))
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, f"{e.reason}: {e}")
        except Exception:  # noqa: BLE001 - a bug must not look like the kubelet's fault
            self._metrics.refusals.labels(Reason.INTERNAL.value).inc()
            _log.exception("internal_error")
            await _abort(context, grpc.StatusCode.INTERNAL, f"{Reason.INTERNAL}: see the log")


async def _abort(context: _Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort returned")


def _response(states: Sequence[TokenState]) -> api.ListAndWatchResponse:
    return api.ListAndWatchResponse(
        devices=[
            api.Device(ID=state.token, health=HEALTHY if state.healthy else UNHEALTHY)
            for state in states
        ]
    )
