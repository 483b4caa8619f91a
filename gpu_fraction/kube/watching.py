"""The events of a watch stream: one JSON object a line."""

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import msgspec

from gpu_fraction.kube import errors
from gpu_fraction.kube.objects import HasMeta, Identity, decode

T = TypeVar("T", bound=HasMeta)


class EventKind(Enum):
    """Kinds of events. Source: apimachinery pkg/watch/watch.go; ERROR is an exception here."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    """No change up to this version."""


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """One event.

    Attributes:
        kind: the kind of change.
        identity: of the object; a bookmark has only a resource version.
        object: the object; None for a bookmark, or where it does not decode.
        problem: why it does not decode.
    """

    kind: EventKind
    identity: Identity
    object: T | None = None
    problem: str = ""


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


def read_event(line: bytes, into: type[T]) -> WatchEvent[T] | None:
    """The event in a line; None for a kind this version does not know.

    An object that does not decode is reported in the event and does not stop the stream.

    Raises:
        errors.KubeError: the event is an error of the server, such as GoneError.
        errors.MalformedAnswerError: the line is not an event.
    """
    raw = decode(_Line, line)
    if raw.type == "ERROR":
        raise errors.from_status(errors.read_status(bytes(raw.object)))
    try:
        kind = EventKind(raw.type)
    except ValueError:
        return None
    if kind is EventKind.BOOKMARK:
        return WatchEvent(kind, decode(Identity, raw.object))
    try:
        obj = decode(into, raw.object)
    except errors.MalformedAnswerError as error:
        return WatchEvent(kind, decode(Identity, raw.object), problem=str(error))
    return WatchEvent(kind, Identity(metadata=obj.metadata), obj)
