"""The kubelet's calls: claims to prepare and to take back, each with an answer of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
import structlog

from gpu_fraction.kubelet_api import dra_v1_pb2 as api
from gpu_fraction.kubelet_api import dra_v1_pb2_grpc as api_grpc
from gpu_fraction.node_daemon.dra.claims import ClaimRef
from gpu_fraction.node_daemon.dra.preparer import Prepared, Preparer
from gpu_fraction.node_daemon.metrics import Metrics
from gpu_fraction.node_daemon.state.errors import NodeDaemonError, Reason, Refusal

_log = structlog.get_logger()
_Context = grpc.aio.ServicerContext[Any, Any]


class DraService(api_grpc.DRAPluginServicer):
    """Answers for every claim: one that cannot be prepared does not hold up the others."""

    def __init__(
        self,
        preparer: Preparer,
        given: Callable[[ClaimRef, Sequence[Prepared]], None],
        metrics: Metrics,
    ) -> None:
        """Answer by ``preparer``; ``given`` hears what each claim got."""
        self._preparer = preparer
        self._given = given
        self._metrics = metrics

    async def NodePrepareResources(  # noqa: N802 - the protocol's name
        self, request: api.NodePrepareResourcesRequest, context: _Context
    ) -> api.NodePrepareResourcesResponse:
        """Prepare each claim."""
        del context
        refs = _refs(request.claims)
        answers = await asyncio.gather(*(self._prepare(ref) for ref in refs))
        pairs = zip(refs, answers, strict=True)
        return api.NodePrepareResourcesResponse(claims={ref.uid: answer for ref, answer in pairs})

    async def NodeUnprepareResources(  # noqa: N802
        self, request: api.NodeUnprepareResourcesRequest, context: _Context
    ) -> api.NodeUnprepareResourcesResponse:
        """Take each claim back."""
        del context
        refs = _refs(request.claims)
        faults = await asyncio.gather(*(self._fault(self._preparer.unprepare(r)) for r in refs))
        return api.NodeUnprepareResourcesResponse(
            claims={
                ref.uid: api.NodeUnprepareResourceResponse(error=fault)
                for ref, fault in zip(refs, faults, strict=True)
            }
        )

    async def _prepare(self, ref: ClaimRef) -> api.NodePrepareResourceResponse:
        prepared: list[Prepared] = []

        async def work() -> None:
            prepared.extend(await self._preparer.prepare(ref))

        with self._metrics.pre_start_seconds.time():
            fault = await self._fault(work())
        if fault:
            return api.NodePrepareResourceResponse(error=fault)
        self._given(ref, prepared)
        return api.NodePrepareResourceResponse(devices=[_device(one) for one in prepared])

    async def _fault(self, work: Awaitable[None]) -> str:
        """Why it failed, as the kubelet shows it in the pod's Event; empty where it did not."""
        try:
            await work
        except Refusal as e:
            return self._refused(e.reason, str(e))
        except NodeDaemonError as e:
            return self._refused(Reason.ISOLATION_FAILED, str(e))
        except Exception:  # noqa: BLE001 - a bug in one claim must not take the others along
            _log.exception("internal_error")
            return self._refused(Reason.INTERNAL, "see the log of the node daemon")
        return ""

    def _refused(self, reason: Reason, message: str) -> str:
        self._metrics.refusals.labels(reason.value).inc()
        _log.warning("refused", reason=reason.value, message=message)
        return f"{reason}: {message}"


def _refs(claims: Iterable[api.Claim]) -> list[ClaimRef]:
    return [ClaimRef(claim.namespace, claim.name, claim.uid) for claim in claims]


def _device(one: Prepared) -> api.Device:
    return api.Device(
        request_names=[one.request],
        pool_name=one.pool,
        device_name=one.device,
        cdi_device_ids=one.cdi,
        share_id=one.share_id,
    )
