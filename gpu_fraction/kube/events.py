"""Events that people read in ``kubectl describe``, written in the background.

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
from typing import Any, Final, NoReturn

import msgspec
import structlog

from gpu_fraction.kube import errors
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.event_limits import Event, EventLimiter, Fate, ObjectReference, Series
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

    Source of the first three defaults: client-go tools/record/event.go.

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
class _Queued:
    """An event and its moment, which is unique in this process and names the object."""

    event: Event
    at_ns: int

    @property
    def at(self) -> str:
        return api_time(datetime.fromtimestamp(self.at_ns // 10**9, UTC))

    @property
    def namespace(self) -> str:
        return self.event.about.namespace or "default"


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
        self._source = {"component": component, **_present("host", instance)}
        self._settings = settings or EventSettings()
        self._limiter = EventLimiter()
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue(self._settings.queue_length)
        self._writing: tuple[_Queued, Series] | None = None
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
        self._latest_ns = max(time.time_ns(), self._latest_ns + 1)
        queued = _Queued(Event(about, kind.value, reason, text), self._latest_ns)
        try:
            self._queue.put_nowait(queued)
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
        """Return when every event recorded so far is written or dropped."""
        await self._queue.join()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(self._settings.flush_timeout_s):
                while self._writing is not None or not self._queue.empty():
                    await self._write_next(tries=1)
        except TimeoutError:
            _log.warning("kube.events_not_flushed", waiting=self._queue.qsize())

    async def _write_next(self, *, tries: int) -> None:
        if self._writing is None:  # else the one that a cancellation has interrupted
            queued = await self._queue.get()
            series = self._limiter.admit(queued.event, asyncio.get_running_loop().time())
            if series is None:
                self._finish(Fate.SPAM)
                return
            self._writing = queued, series
        self._finish(await self._try(*self._writing, tries))

    def _finish(self, fate: Fate) -> None:
        self._writing = None
        self._queue.task_done()
        self._note(fate)

    async def _try(self, queued: _Queued, series: Series, tries: int) -> Fate:
        backoff = Backoff(self._settings.retry_s, self._settings.retry_s)
        for wait_s in backoff.waits_s(random.SystemRandom()):
            try:
                return await self._write(queued, series)
            except errors.TransientError as error:
                tries -= 1
                if tries <= 0:
                    _log.warning("kube.event_given_up", error=str(error))
                    break
            except errors.KubeError as error:
                # Typical: the namespace is going away, or RBAC forbids it.
                _log.warning("kube.event_refused", error=str(error))
                return Fate.REFUSED
            await asyncio.sleep(wait_s)
        return Fate.TRIES_OVER

    async def _write(self, queued: _Queued, series: Series) -> Fate:
        timeout_s = self._settings.call_timeout_s
        if series.name:
            address = EVENTS.at(series.name, namespace=queued.namespace)
            change = {"count": series.count, "lastTimestamp": queued.at}
            # An object that has expired is not found; a new one goes on with the count.
            with suppress(errors.NotFoundError):
                await self._client.patch(
                    address, PatchKind.MERGE, change, msgspec.Raw, timeout_s=timeout_s
                )
                return Fate.COUNTED
        series.first_at = series.first_at or queued.at
        manifest = self._manifest(queued, series)
        # It exists already where an earlier try came through and its answer was lost.
        with suppress(errors.AlreadyExistsError):
            await self._client.create(
                EVENTS.at(namespace=queued.namespace), manifest, msgspec.Raw, timeout_s=timeout_s
            )
        series.name = manifest["metadata"]["name"]
        return Fate.CREATED

    def _manifest(self, queued: _Queued, series: Series) -> dict[str, Any]:
        event, about = queued.event, queued.event.about
        involved = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": _name(queued), "namespace": queued.namespace},
            "involvedObject": {**involved, **_present("namespace", about.namespace)},
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
            "firstTimestamp": series.first_at,
            "lastTimestamp": queued.at,
            "count": series.count,
        }

    def _note(self, fate: Fate) -> None:
        if self._client.observer is not None:
            self._client.observer.event(fate)


def _name(queued: _Queued) -> str:
    name = queued.event.about.name
    legal = _SUBDOMAIN.fullmatch(name) is not None
    # Not random: a try that is repeated writes the same object.
    prefix = name[:_NAME_ROOM].rstrip(".-") if legal else str(uuid.uuid5(uuid.NAMESPACE_OID, name))
    return f"{prefix}.{queued.at_ns:x}"


def _present(name: str, value: str) -> dict[str, str]:
    return {name: value} if value else {}
