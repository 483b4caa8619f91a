"""Pods that the scheduler overlooked are shown to it again.

While a claim is bound, kube-scheduler counts its amounts twice for a moment: its allocation is
in the cache of claims already, and still among those in flight (kubernetes 1.37.2,
pkg/scheduler/framework/plugins/dynamicresources/dra_manager.go, GatherAllocatedState). A pod whose
turn comes in that moment is told that it "cannot allocate all claims" although its card has room,
and no event wakes it: it waits for the scheduler's own second look after five minutes. A burst
that fills the cards exactly meets this.

A change of a DeviceClass makes the scheduler look at all pods that wait for claims (the same
package, EventsToRegister). So a waiting pod is looked at after 5, 10, 20, ... seconds, and where
the books show room for its claim, the class is changed.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
import structlog

from gpu_fraction.claims.metrics import OverlookedMetrics
from gpu_fraction.claims.room import Claim, Slice, fitting
from gpu_fraction.domain import dra, keys
from gpu_fraction.domain.pod import ResourceClaim
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.requests import PatchKind, Selection
from gpu_fraction.kube.resources import DEVICE_CLASSES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from gpu_fraction.kube.store import Change
from gpu_fraction.kube.timestamps import micro_time, utc_now

FIRST_LOOK_S: Final = 5.0
"""Seconds that a pod waits before the first look: chosen, longer than most pods wait."""

LAST_LOOK_S: Final = 300.0
"""From this age on the scheduler looks by itself. Source: kubernetes pkg/scheduler/backend/queue,
DefaultPodMaxInUnschedulablePodsDuration."""

PAUSE_S: Final = 5.0
"""Seconds between two looks: chosen; each reads all claims."""

ASKED: Final = 20
"""Pods whose condition is read in one look: chosen; one that waits for its claim is enough."""

_NEVER: Final = float("inf")

LOOK_AGAIN: Final = keys.GROUP + "/look-again"
"""Annotation of the DeviceClass: when the scheduler was made to look."""

_OURS: Final = Selection(fields=f"spec.driver={dra.DRIVER}")

log = structlog.get_logger()


class _Condition(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _Status(msgspec.Struct, frozen=True):
    conditions: list[_Condition] | None = None


class _Judged(msgspec.Struct, frozen=True, kw_only=True):
    status: _Status = _Status()

    @property
    def lacks_claims(self) -> bool:
        return any(
            c.reason == "Unschedulable" and "cannot allocate all claims" in c.message
            for c in self.status.conditions or ()
        )


class _Spec(Protocol):
    @property
    def resource_claims(self) -> list[ResourceClaim] | None: ...
    @property
    def node_name(self) -> str | None: ...


class WaitingPod(Protocol):
    """The fields of a pod that tell whether it waits for its claims."""

    @property
    def metadata(self) -> Meta:
        """Its identity."""

    @property
    def spec(self) -> _Spec:
        """Its claims, and its node."""


@dataclass(slots=True)
class _Waiting:
    namespace: str
    name: str
    since_s: float
    next_s: float


class Overlooked:
    """Watches for pods that wait although there is room."""

    def __init__(
        self,
        client: Client,
        metrics: OverlookedMetrics,
        *,
        first_look_s: float = FIRST_LOOK_S,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            metrics: Counts the changes of the class.
            first_look_s: Age of a waiting pod at the first look, in seconds.
            now: The clock that the annotation is written by.
        """
        self._client = client
        self._metrics = metrics
        self._first_look_s = first_look_s
        self._now = now
        self._clock = asyncio.get_running_loop().time
        self._waiting: dict[str, _Waiting] = {}
        self._wake = asyncio.Event()

    def pod(self, change: Change[Any]) -> None:
        """A pod, a ``WaitingPod``, appeared, changed or vanished."""
        record: WaitingPod | None = change.new or change.old
        if record is None:
            return
        meta = record.metadata
        if change.new is None or record.spec.node_name or not record.spec.resource_claims:
            self._waiting.pop(meta.uid, None)
        elif meta.uid not in self._waiting:
            now_s = self._clock()
            self._waiting[meta.uid] = _Waiting(
                meta.namespace, meta.name, now_s, now_s + self._first_look_s
            )
            self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._wake.clear()
            next_s = min((pod.next_s for pod in self._waiting.values()), default=_NEVER)
            try:
                async with asyncio.timeout_at(None if next_s == _NEVER else next_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            if due := self._take_due():
                try:
                    await self._look(due)
                except errors.KubeError as e:
                    log.warning("claims.look_failed", error=str(e))
                await asyncio.sleep(min(PAUSE_S, self._first_look_s))

    def _take_due(self) -> dict[str, _Waiting]:
        now_s = self._clock()
        due = {uid: pod for uid, pod in self._waiting.items() if pod.next_s <= now_s}
        for pod in due.values():
            age_s = now_s - pod.since_s
            pod.next_s = now_s + age_s if age_s < LAST_LOOK_S else _NEVER
        return due

    async def _look(self, due: Mapping[str, _Waiting]) -> None:
        slices = await self._client.list(RESOURCE_SLICES.at(), Slice, _OURS)
        claims = await self._client.list(RESOURCE_CLAIMS.at(), Claim)
        owners = (uid for claim in fitting(claims.items, slices.items) for uid in claim.owners)
        for pod in [due[uid] for uid in dict.fromkeys(owners) if uid in due][:ASKED]:
            if await self._overlooked(pod.namespace, pod.name):
                await self._show_again(pod.namespace, pod.name)
                return

    async def _overlooked(self, namespace: str, name: str) -> bool:
        try:
            pod = await self._client.get(PODS.at(name, namespace=namespace), _Judged)
        except errors.NotFoundError:
            return False
        return pod.lacks_claims

    async def _show_again(self, namespace: str, name: str) -> None:
        body = {"metadata": {"annotations": {LOOK_AGAIN: micro_time(self._now())}}}
        address = DEVICE_CLASSES.at(dra.FRACTION_CLASS)
        await self._client.patch(address, PatchKind.MERGE, body, Identity)
        self._metrics.shown.inc()
        log.info("claims.scheduler_looks_again", namespace=namespace, pod=name)
