"""Writes Events, as ``kubectl describe`` shows them, in the background.

:meth:`EventRecorder.record` only puts the event into a queue; where the queue is full the event
is dropped and counted. core/v1 Events are written rather than events.k8s.io/v1, because their
count shows in ``kubectl describe``. The first write creates the object, under a name of its own,
so that it may be repeated. Later ones raise its count by server-side apply, which costs the server
more, and writes an expired event anew.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, NoReturn

import msgspec
import structlog

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.event_limits import Event, EventLimiter, Fate, ObjectReference, Series
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.resources import EVENTS, Resource
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.kube.timestamps import utc_now

_log = structlog.get_logger(__name__)

MESSAGE_LIMIT_BYTES: Final = 1024
"""Source: kubernetes pkg/apis/core/validation/events.go, NoteLengthLimit of events.k8s.io/v1."""


class EventType(Enum):
    """Source: core/v1 Event.type."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class EventSettings:
    """Limits of an EventRecorder.

    Attributes:
        queue_length: events that wait; more are dropped. Source: client-go
            tools/record/event.go, maxQueuedEvents.
        timeout_s: seconds for one event, while the server cannot take it. Chosen: as long as
            client-go's 12 tries, one each 10 s.
        flush_timeout_s: seconds to write waiting events when :meth:`EventRecorder.run` is
            cancelled.
    """

    queue_length: int = 1000
    timeout_s: float = 120.0
    flush_timeout_s: float = 2.0


def reference(resource: Resource, meta: Meta) -> ObjectReference:
    """The reference to an object that was read."""
    return ObjectReference(
        resource.api_version, resource.kind, meta.name, meta.uid, meta.namespace
    )


class EventRecorder:
    """Takes events at any time and writes them in the background."""

    def __init__(
        self,
        client: Client,
        *,
        component: str,
        instance: str = "",
        settings: EventSettings | None = None,
    ) -> None:
        """Prepare; :meth:`run` writes.

        Args:
            client: the API server.
            component: shown in the From column, such as ``gpu-fraction-webhook``.
            instance: name of the pod.
            settings: how events are written.
        """
        self._client = client
        self._component = component
        self._instance = instance
        self._settings = settings or EventSettings()
        self._limiter = EventLimiter()
        self._queue: asyncio.Queue[Series] = asyncio.Queue(self._settings.queue_length)
        self._writing: Series | None = None

    def record(self, about: ObjectReference, kind: EventType, reason: str, message: str) -> None:
        """Enqueue an event. Returns at once and raises nothing.

        Args:
            about: the object.
            kind: Normal or Warning.
            reason: one CamelCase word.
            message: a sentence, the same each time for the same cause; cut to 1,024 bytes.
        """
        text = message.encode()[:MESSAGE_LIMIT_BYTES].decode(errors="ignore")
        event = Event(about, kind.value, reason, text)
        series = self._limiter.admit(event, utc_now(), time.monotonic())
        if series is None:
            self._note(Fate.SPAM)
        elif series.waiting:
            self._note(Fate.COUNTED)
        else:
            try:
                self._queue.put_nowait(series)
                series.waiting = True
            except asyncio.QueueFull:
                self._note(Fate.QUEUE_FULL)

    async def run(self) -> NoReturn:
        """Write events until cancelled, then the waiting ones within the flush deadline."""
        try:
            while True:
                await self._write_next()
        finally:
            await self._flush()

    async def written(self) -> None:
        """Return when every event recorded so far is written or dropped."""
        await self._queue.join()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(self._settings.flush_timeout_s):
                while self._writing is not None or not self._queue.empty():
                    await self._write_next()
        except TimeoutError:
            _log.warning("kube.events_not_flushed", waiting=self._queue.qsize())

    async def _write_next(self) -> None:
        if self._writing is None:  # else the one that a cancellation has interrupted
            self._writing = await self._queue.get()
        fate = await self._write(self._writing)
        self._writing = None
        self._queue.task_done()
        self._note(fate)

    async def _write(self, series: Series) -> Fate:
        manifest = self._manifest(series)
        series.waiting = False  # an event from now on is not in this manifest
        try:
            await self._send(series, manifest)
        except errors.TransientError as error:
            _log.warning("kube.event_given_up", error=str(error))
            return Fate.TRIES_OVER
        except errors.KubeError as error:
            # For example, the namespace is being deleted, or RBAC forbids it.
            _log.warning("kube.event_refused", error=str(error))
            return Fate.REFUSED
        fate = Fate.COUNTED if series.written else Fate.CREATED
        series.written = True
        return fate

    async def _send(self, series: Series, manifest: dict[str, Any]) -> None:
        namespace, timeout_s = manifest["metadata"]["namespace"], self._settings.timeout_s
        if not series.written:
            created = requests.create(EVENTS.at(namespace=namespace), manifest)
            try:
                await self._client.send(replace(created, idempotent=True), timeout_s=timeout_s)
            except errors.AlreadyExistsError:
                pass  # an earlier try whose answer was lost; the count may be higher by now
            else:
                return
        await self._client.apply(
            EVENTS.at(series.name, namespace=namespace),
            manifest,
            msgspec.Raw,
            field_manager=self._component,
            force=True,
            timeout_s=timeout_s,
        )

    def _manifest(self, series: Series) -> dict[str, Any]:
        event, about = series.event, series.event.about
        involved = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": series.name, "namespace": about.namespace or "default"},
            "involvedObject": {**involved, **_present("namespace", about.namespace)},
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "source": {"component": self._component, **_present("host", self._instance)},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": api_time(series.first_at),
            "lastTimestamp": api_time(series.last_at),
            "count": series.count,
        }

    def _note(self, fate: Fate) -> None:
        if self._client.observer is not None:
            self._client.observer.event(fate)


def _present(name: str, value: str) -> dict[str, str]:
    return {name: value} if value else {}
