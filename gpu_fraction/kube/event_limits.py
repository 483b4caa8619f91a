"""Aggregates and limits events, without I/O and without a clock.

Equal events share one object with a count. Each object that events refer to has a token bucket,
so a controller that loops cannot flood the API server.
"""

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, TypeVar

from gpu_fraction.kube.backoff import TokenBucket

BURST: Final = 25
"""Events about one object and type before the limit holds.
Source: client-go tools/record/events_cache.go, defaultSpamBurst."""

PER_S: Final = 1 / 300
"""Events about one object and type per second after the burst. Source: as for ``BURST``."""

REMEMBERED: Final = 4096
"""Series and buckets kept in memory, each. Source: as for ``BURST``, maxLruCacheEntries."""

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NAME_ROOM: Final = 253 - len(".") - 16
"""Characters of the object's name in the event's: 253 in all, 16 for a random number."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Fate(Enum):
    """The outcome of an event."""

    CREATED = "created"
    COUNTED = "counted"
    SPAM = "dropped_spam"
    QUEUE_FULL = "dropped_queue_full"
    REFUSED = "dropped_refused"
    TRIES_OVER = "dropped_tries_over"


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """The object that an event is about.

    ``kubectl describe`` shows only events whose uid is right, so it is not optional.
    """

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    Attributes:
        about: the object.
        type: ``Normal`` or ``Warning``.
        reason: one CamelCase word.
        message: a sentence; always the same for the same cause, so that events are aggregated.
    """

    about: ObjectReference
    type: str
    reason: str
    message: str


@dataclass(slots=True)
class Series:
    """Equal events, which share one object in the API.

    Attributes:
        event: the event.
        name: of the object, a legal one.
        first_at: time of the first event.
        last_at: time of the last event that was not limited.
        count: how often the event happened, limited ones included.
        waiting: whether the series waits to be written.
        written: whether it has been written before.
    """

    event: Event
    name: str
    first_at: datetime
    last_at: datetime
    count: int = 0
    waiting: bool = False
    written: bool = False


class EventLimiter:
    """Aggregates and limits the events of one source."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        """``remembered`` is the largest number of series, and of buckets, that are kept."""
        self._remembered = remembered
        self._series: OrderedDict[Event, Series] = OrderedDict()
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def admit(self, event: Event, at: datetime, now_s: float) -> Series | None:
        """Count an event.

        Args:
            event: the event.
            at: its time, UTC.
            now_s: the same time in monotonic seconds.

        Returns:
            The series to write; None where the object has too many events.
        """
        series = self._recall(self._series, event, lambda: Series(event, _name(event), at, at))
        series.count += 1
        bucket = self._recall(
            self._buckets, (event.about, event.type), lambda: TokenBucket(BURST, PER_S)
        )
        if bucket.take(now_s):
            return None
        series.last_at = at
        return series

    def _recall(self, memory: OrderedDict[K, V], key: K, new: Callable[[], V]) -> V:
        """The value of a key, a new one where there is none; the least recent one is dropped."""
        value = memory[key] = memory.pop(key, None) or new()
        if len(memory) > self._remembered:
            memory.popitem(last=False)
        return value


def _name(event: Event) -> str:
    """A name that no other series has: the object's, if it is legal, and a random number."""
    name = event.about.name
    legal = _SUBDOMAIN.fullmatch(name) is not None
    prefix = name[:_NAME_ROOM].rstrip(".-") if legal else "event"
    return f"{prefix}.{secrets.token_hex(8)}"
