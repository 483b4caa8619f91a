"""Which events become objects in the API, and which only raise a count. No I/O, no clock.

The rules and figures of client-go (tools/record/events_cache.go), so that a controller of
this product cannot load a cluster more than Kubernetes' own:

- an event that was seen before raises the count of its object
- the tenth message that differs within ten minutes, about one object, type and reason, makes
  one combined event whose message follows the newest
- beyond 25 events about one object and type, one in five minutes passes
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Generic, TypeVar

COMBINED_PREFIX: Final = "(combined from similar events): "

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Fate(Enum):
    """What became of an event."""

    CREATED = "created"
    COUNTED = "counted"
    SPAM = "dropped_spam"
    QUEUE_FULL = "dropped_queue_full"
    REFUSED = "dropped_refused"
    TRIES_OVER = "dropped_tries_over"


@dataclass(frozen=True, slots=True)
class EventLimits:
    """The figures; the defaults are client-go's.

    Attributes:
        remembered: events, groups and objects that are kept in mind, each.
        similar: differing messages from which on they are combined.
        similar_within_s: seconds of silence after which a group is new again.
        burst: events about one object and type before the limit holds.
        refill_s: seconds after which one more may pass.
    """

    remembered: int = 4096
    similar: int = 10
    similar_within_s: float = 600.0
    burst: int = 25
    refill_s: float = 300.0


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
class Occurrence:
    """Something that happened.

    Attributes:
        about: the object.
        type: ``Normal`` or ``Warning``.
        reason: one CamelCase word.
        message: a sentence; stable for the same cause, or the events do not join.
    """

    about: ObjectReference
    type: str
    reason: str
    message: str

    @property
    def group(self) -> Hashable:
        """What events must share to be combined."""
        return self.about, self.type, self.reason


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write.

    Attributes:
        key: names the series of equal events; hand it to :meth:`Correlator.wrote`.
        occurrence: with the message to write.
        count: how often it happened so far, this time included.
        name: of the object whose count rises; empty where one is to be created.
        first_at: when the series began, as the caller wrote it down; empty for a new one.
    """

    key: Hashable
    occurrence: Occurrence
    count: int = 1
    name: str = ""
    first_at: str = ""


@dataclass(slots=True)
class _Group:
    seen_at: float
    messages: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Bucket:
    """Tokens that refill with time."""

    tokens: float
    counted_at: float

    def take(self, now_s: float, limits: EventLimits) -> bool:
        """Use a token if there is one."""
        refilled = self.tokens + (now_s - self.counted_at) / limits.refill_s
        self.tokens, self.counted_at = min(refilled, float(limits.burst)), now_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class _Series:
    count: int
    name: str
    first_at: str


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """A dictionary that forgets what was not used for longest."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def look(self, key: K) -> V | None:
        """The value, which counts as a use."""
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]

    def keep(self, key: K, value: V) -> None:
        """Set a value and forget the oldest beyond the limit."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


class Correlator:
    """Decides for one source of events."""

    def __init__(self, limits: EventLimits | None = None) -> None:
        """Nothing was seen yet."""
        self._limits = limits or EventLimits()
        self._groups: _Recent[Hashable, _Group] = _Recent(self._limits.remembered)
        self._series: _Recent[Hashable, _Series] = _Recent(self._limits.remembered)
        self._buckets: _Recent[Hashable, _Bucket] = _Recent(self._limits.remembered)

    def decide(self, occurrence: Occurrence, now_s: float) -> Decision | None:
        """What to write for an occurrence, or None where there are too many.

        Args:
            occurrence: what happened.
            now_s: monotonic seconds.
        """
        key, combined = self._combine(occurrence, now_s)
        known = self._series.look(key)
        decision = Decision(key, combined)
        if known is not None:
            decision = Decision(key, combined, known.count + 1, known.name, known.first_at)
            self._series.keep(key, replace(known, count=known.count + 1))
        return decision if self._passes(occurrence, now_s) else None

    def wrote(self, decision: Decision, *, name: str, first_at: str) -> None:
        """Remember the object that was written, so that its count can rise.

        Args:
            decision: from :meth:`decide`.
            name: of the event object.
            first_at: when its series began.
        """
        self._series.keep(decision.key, _Series(decision.count, name, first_at))

    def _combine(self, occurrence: Occurrence, now_s: float) -> tuple[Hashable, Occurrence]:
        group = self._groups.look(occurrence.group)
        if group is None or now_s - group.seen_at > self._limits.similar_within_s:
            group = _Group(now_s)
        group.messages.add(occurrence.message)
        group.seen_at = now_s
        self._groups.keep(occurrence.group, group)
        if len(group.messages) < self._limits.similar:
            return occurrence, occurrence
        group.messages.pop()
        message = COMBINED_PREFIX + occurrence.message
        return occurrence.group, replace(occurrence, message=message)

    def _passes(self, occurrence: Occurrence, now_s: float) -> bool:
        key = (occurrence.about, occurrence.type)
        bucket = self._buckets.look(key)
        if bucket is None:
            bucket = _Bucket(float(self._limits.burst), now_s)
            self._buckets.keep(key, bucket)
        return bucket.take(now_s, self._limits)
