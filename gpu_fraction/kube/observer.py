"""Who learns, for metrics, of what this package does.

A client carries one observer, and whatever is built on the client tells it, unless it was given
one of its own.
"""

from typing import TYPE_CHECKING, Protocol

from gpu_fraction.kube import errors
from gpu_fraction.kube.requests import Request
from gpu_fraction.kube.watching import EventKind

if TYPE_CHECKING:
    from gpu_fraction.kube.events import Fate

__all__ = [
    "ElectionObserver",
    "EventObserver",
    "Observer",
    "RequestObserver",
    "WatchObserver",
]


class RequestObserver(Protocol):
    """Learns of each try of each request."""

    def answered(self, request: Request, code: int, duration_s: float) -> None:
        """A try ended; ``code`` is the HTTP status, or 0 without an answer."""
        ...


class WatchObserver(Protocol):
    """Learns how local copies are kept. ``resource`` is ``plural.group``."""

    def listed(self, resource: str, count: int) -> None:
        """A list of that many objects was taken over."""
        ...

    def received(self, resource: str, kind: EventKind) -> None:
        """An event was taken over."""
        ...

    def malformed(self, resource: str) -> None:
        """An object did not decode and was left as it was."""
        ...

    def failed(self, resource: str, error: errors.KubeError) -> None:
        """A list or watch failed and will be tried again."""
        ...


class ElectionObserver(Protocol):
    """Learns who leads."""

    def leads(self, *, name: str, leading: bool) -> None:
        """This replica began or ceased to lead."""
        ...


class EventObserver(Protocol):
    """Learns what becomes of events."""

    def event(self, fate: "Fate") -> None:
        """One event met its fate."""
        ...


class Observer(RequestObserver, WatchObserver, ElectionObserver, EventObserver, Protocol):
    """Learns of all of it."""
