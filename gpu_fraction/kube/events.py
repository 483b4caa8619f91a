"""Events that people read in ``kubectl describe``, written beside the work and never before it.

:meth:`EventRecorder.record` only puts the event into a queue; where the queue is full the event
is dropped and counted. core/v1 Events are written rather than events.k8s.io/v1: one PATCH raises
a count, and ``kubectl describe`` shows both alike.
"""

import asyncio
import random
import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NoReturn, Self

import msgspec
import structlog

from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.event_limits import Correlator, Decision, Fate, ObjectReference, Occurrence
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import EVENTS, Resource
from gpu_fraction.kube.timestamps import time as api_time

_log = structlog.get_logger(__name__)

MESSAGE_LIMIT_BYTES: Final = 1024
"""Source: kubernetes pkg/apis/core/validation/events.go, NoteLengthLimit of events.k8s.io/v1."""

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NAME_ROOM: Final = 253 - len(".") - 16
"""Characters of the object's name in the event's: 253 in all, 16 for hexadecimal nanoseconds."""


class EventType(Enum):
    """Source: core/v1 Event.type."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class EventSettings:
    """How events are written.

    Source of the defaults: client-go tools/record/event.go.

    Attributes:
        queue_length: events that wait; more are dropped.
        tries: of one event, while the server cannot take it.
        retry_s: seconds between tries.
        call_timeout_s: seconds for one request.
        flush_timeout_s: seconds for what waits when :meth:`EventRecorder.run` is cancelled.
    """

    queue_length: int = 1000
    tries: int = 12
    retry_s: float = 10.0
    call_timeout_s: float = 5.0
    flush_timeout_s: float = 2.0


def reference(resource: Resource, meta: Meta) -> ObjectReference:
    """The reference to an object that was read."""
    return ObjectReference(
        resource.api_version, resource.kind, meta.name, meta.uid, meta.namespace
    )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event in the queue; the moment names its object and is unique in this process."""

    occurrence: Occurrence
    at_ns: int


@dataclass(frozen=True, slots=True)
class _Writing:
    """An event on its way; tries that are repeated write the same object."""

    decision: Decision
    at: str
    name: str
    namespace: str

    @classmethod
    def of(cls, decision: Decision, at_ns: int) -> Self:
        """From a decision and the moment of its occurrence."""
        about = decision.occurrence.about
        at = api_time(datetime.fromtimestamp(at_ns // 10**9, UTC))
        known = _SUBDOMAIN.fullmatch(about.name) is not None
        prefix = about.name[:_NAME_ROOM].rstrip(".-") if known else str(uuid.uuid4())
        return cls(decision, at, f"{prefix}.{at_ns:x}", about.namespace or "default")


class EventRecorder:
    """Takes events at any time and writes them in the background."""

    def __init__(
        self,
        client: Client,
        *,
        component: str,
        instance: str = "",
        settings: EventSettings | None = None,
        correlator: Correlator | None = None,
        observer: KubeMetrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; :meth:`run` writes.

        Args:
            client: the API server.
            component: shown in the From column, such as ``gpu-fraction-webhook``.
            instance: name of the pod.
            settings: how events are written.
            correlator: joins and limits them.
            observer: learns what becomes of them; by default the client's.
            rng: the source of jitter.
        """
        self._client = client
        self._source = {"component": component, **_present("host", instance)}
        self._settings = settings or EventSettings()
        self._correlator = correlator or Correlator()
        self._observer = observer or client.observer
        self._rng = rng or random.SystemRandom()
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(self._settings.queue_length)
        self._writing: _Writing | None = None
        self._latest_ns = 0

    def record(self, about: ObjectReference, kind: EventType, reason: str, message: str) -> None:
        """Note an event. Returns at once and raises nothing.

        Args:
            about: the object.
            kind: Normal or Warning.
            reason: one CamelCase word.
            message: a sentence, the same each time for the same cause; cut to 1,024 bytes.
        """
        text = message.encode()[:MESSAGE_LIMIT_BYTES].decode(errors="ignore")
        occurrence = Occurrence(about, kind.value, reason, text)
        try:
            self._latest_ns = max(time.time_ns(), self._latest_ns + 1)
            self._queue.put_nowait(_Waiting(occurrence, self._latest_ns))
        except asyncio.QueueFull:
            self._note(Fate.QUEUE_FULL)

    async def run(self) -> NoReturn:
        """Write events until cancelled, then what still waits, within the flush deadline."""
        try:
            while True:
                await self._write_next(tries=self._settings.tries)
        finally:
            await self._flush()

    async def written(self) -> None:
        """Return when every event recorded so far has met its fate."""
        await self._queue.join()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(self._settings.flush_timeout_s):
                while self._writing is not None or not self._queue.empty():
                    await self._write_next(tries=1)
        except TimeoutError:
            _log.warning("kube.events_not_flushed", waiting=self._queue.qsize())

    async def _write_next(self, *, tries: int) -> None:
        if self._writing is None:
            waiting = await self._queue.get()
            now_s = asyncio.get_running_loop().time()
            decision = self._correlator.decide(waiting.occurrence, now_s)
            if decision is None:
                self._finish(Fate.SPAM)
                return
            self._writing = _Writing.of(decision, waiting.at_ns)
        self._finish(await self._try(self._writing, tries))

    def _finish(self, fate: Fate) -> None:
        self._writing = None
        self._queue.task_done()
        self._note(fate)

    async def _try(self, writing: _Writing, tries: int) -> Fate:
        wait_s = self._settings.retry_s * self._rng.random()  # the first is spread at random
        while True:
            try:
                return await self._write(writing)
            except errors.TransientError as error:
                tries -= 1
                if tries <= 0:
                    _log.warning("kube.event_given_up", error=str(error))
                    return Fate.TRIES_OVER
            except errors.KubeError as error:
                # Typical: the namespace is going away, or RBAC forbids it.
                _log.warning("kube.event_refused", error=str(error))
                return Fate.REFUSED
            await asyncio.sleep(wait_s)
            wait_s = self._settings.retry_s

    async def _write(self, writing: _Writing) -> Fate:
        decision = writing.decision
        if decision.name:
            try:
                await self._count(writing)
            except errors.NotFoundError:
                pass  # it has expired; a new object goes on with the count
            else:
                return Fate.COUNTED
        # It exists already where an earlier try came through and its answer was lost.
        with suppress(errors.AlreadyExistsError):
            await self._client.create(
                EVENTS.at(namespace=writing.namespace),
                self._manifest(writing),
                msgspec.Raw,
                timeout_s=self._settings.call_timeout_s,
            )
        first_at = decision.first_at or writing.at
        self._correlator.wrote(decision, name=writing.name, first_at=first_at)
        return Fate.CREATED

    async def _count(self, writing: _Writing) -> None:
        decision = writing.decision
        change = {
            "count": decision.count,
            "lastTimestamp": writing.at,
            "message": decision.occurrence.message,
        }
        await self._client.patch(
            EVENTS.at(decision.name, namespace=writing.namespace),
            PatchKind.MERGE,
            change,
            msgspec.Raw,
            timeout_s=self._settings.call_timeout_s,
        )

    def _manifest(self, writing: _Writing) -> dict[str, Any]:
        decision, occurrence = writing.decision, writing.decision.occurrence
        about = occurrence.about
        involved = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": writing.name, "namespace": writing.namespace},
            "involvedObject": {**involved, **_present("namespace", about.namespace)},
            "type": occurrence.type,
            "reason": occurrence.reason,
            "message": occurrence.message,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
            "firstTimestamp": decision.first_at or writing.at,
            "lastTimestamp": writing.at,
            "count": decision.count,
        }

    def _note(self, fate: Fate) -> None:
        if self._observer is not None:
            self._observer.event(fate)


def _present(name: str, value: str) -> dict[str, str]:
    return {name: value} if value else {}
