"""A local copy of a collection that follows the API server for as long as it runs.

List, then watch from the list's version. The watch resumes at the last version seen. Only an
expired version (410) or repeated failures lead to a new list.
Consumers read the store, and treat a change only as a reason to read it again.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, NoReturn, TypeVar

import structlog

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.listing import PAGE_SIZE
from gpu_fraction.kube.objects import HasMeta, Identity, Key, key_of
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import Address
from gpu_fraction.kube.store import Change, IndexFunction, Store
from gpu_fraction.kube.watching import EventKind, WatchEvent, read_event

T = TypeVar("T", bound=HasMeta)

_log = structlog.get_logger(__name__)

WATCH_TIMEOUT_S: Final = (300, 600)
"""Range from which the length of each watch is drawn. Source: client-go tools/cache/reflector.go,
minWatchTimeout, doubled at most: it spreads the load over the API servers."""

SILENCE_S: Final = 90.0
"""Seconds without a line after which a watch counts as dead. Chosen: the server's bookmarks come
each minute (apiserver/pkg/storage/cacher, defaultBookmarkFrequency), and half of that is slack."""

STALE_S: Final = 120.0
"""Seconds without an answer of the server after which the copy is not trusted. Chosen: a dead
watch is noticed after ``SILENCE_S``, and the rest allows two tries of 10 s to open another."""

SHORT_WATCH_S: Final = 1.0
"""A watch that ends sooner and brought nothing counts as a failure. Source: client-go
tools/cache/reflector.go, VeryShortWatchError."""

RELIST_AFTER_FAILURES: Final = 5
"""Failures in a row after which everything is listed again, because the version may be wrong, as
after a restore of the server's database. Chosen: about 5 s with the default back-off."""


@dataclass(frozen=True, slots=True)
class ReflectorSettings:
    """How a collection is followed.

    Attributes:
        page_size: objects a list request.
        watch_timeout_s: range of seconds after which the server ends a watch.
        silence_s: seconds without a line after which we end it.
        stale_s: seconds without an answer of the server, above ``silence_s``, after which
            :meth:`Reflector.unsynced` reports that.
        backoff: waits after failures.
    """

    page_size: int = PAGE_SIZE
    watch_timeout_s: tuple[int, int] = WATCH_TIMEOUT_S
    silence_s: float = SILENCE_S
    stale_s: float = STALE_S
    backoff: Backoff = field(default_factory=Backoff)


PROMPT: Final = ReflectorSettings(backoff=Backoff(cap_s=5.0))
"""For the few processes that others wait for: they serve again within seconds after an outage of
the API server. A daemon on every node must not retry that fast."""


Listener = Callable[[Change[T]], None]
"""Called for each change after it is in the store; must be quick and must not raise."""


class Reflector(Generic[T]):
    """Follows one collection.

    Attributes:
        store: the copy.
        synced: set once the first list is in the store.
        resource_version: up to which the store is current; empty before the first list.
        missing: set when the server answers 404 for the collection.
    """

    def __init__(
        self,
        client: Client,
        collection: Address,
        into: type[T],
        *,
        selection: Selection = requests.EVERYTHING,
        indexes: Mapping[str, IndexFunction[T]] | None = None,
        settings: ReflectorSettings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; :meth:`run` does the work.

        Args:
            client: the API server.
            collection: what to follow, in one namespace or all.
            into: the type of the objects: a Struct of the fields the consumers read.
            selection: which objects.
            indexes: how the store finds them.
            settings: how to follow.
            rng: the source of jitter.
        """
        self.store: Store[T] = Store(indexes)
        self.synced = asyncio.Event()
        self.missing = asyncio.Event()
        self.resource_version = ""
        self._client = client
        self._collection = collection
        self._into = into
        self._selection = selection
        self._settings = settings or ReflectorSettings()
        self._observer = client.observer
        self._rng = rng or random.SystemRandom()
        self._listeners: list[Listener[T]] = []
        self._heard_at = 0.0
        self._opened_at = 0.0

    def subscribe(self, listener: Listener[T]) -> None:
        """Call a function for each change from now on, and at once for each object present."""
        self._listeners.append(listener)
        for obj in list(self.store):
            listener(Change(None, obj))

    def unsubscribe(self, listener: Listener[T]) -> None:
        """Call a function no longer.

        Raises:
            ValueError: it was not subscribed.
        """
        self._listeners.remove(listener)

    def unsynced(self) -> str | None:
        """Why the copy cannot be trusted; None where it can.

        It was never read, or it may have missed changes for too long, because the watch is dead
        and no other could be opened. Opening a watch counts as an answer: missed changes come
        first, and servers without a watch cache send no bookmarks.
        """
        kinds = f"{self._collection.resource.kind}s"
        if not self.synced.is_set():
            return f"{kinds} are being read"
        answered_at, stale_s = max(self._heard_at, self._opened_at), self._settings.stale_s
        if asyncio.get_running_loop().time() - answered_at > stale_s:
            return f"{kinds}: no answer of the API server for more than {stale_s:g} s"
        return None

    async def run(self) -> NoReturn:
        """Follow the collection until cancelled."""
        failures = 0
        while True:
            heard_at, started_at = self._heard_at, asyncio.get_running_loop().time()
            try:
                if not self.resource_version:
                    await self._list()
                    heard_at = self._heard_at
                await self._watch()
                failed = False
            except errors.KubeError as error:
                self._note_failure(error)
                failed = True
            if self._heard_at > heard_at:
                failures = 0
            lasted_s = asyncio.get_running_loop().time() - started_at
            if not failed and (self._heard_at > heard_at or lasted_s >= SHORT_WATCH_S):
                continue
            failures += 1
            if failures % RELIST_AFTER_FAILURES == 0:
                self.resource_version = ""
            await asyncio.sleep(self._settings.backoff.wait_s(failures, self._rng))

    async def _list(self) -> None:
        malformed: list[Key] = []

        def on_malformed(identity: Identity, error: errors.MalformedAnswerError) -> None:
            malformed.append(key_of(identity))
            self._note_malformed(identity, str(error))

        listing = await self._client.list(
            self._collection,
            self._into,
            self._selection,
            page_size=self._settings.page_size,
            on_malformed=on_malformed,
        )
        self._notify(self.store.replace(listing.items, keep=malformed))
        self.resource_version = listing.resource_version
        self._heard_at = asyncio.get_running_loop().time()
        self.synced.set()
        if self._observer is not None:
            self._observer.listed(self._collection.resource.qualified)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        request = requests.watch(
            self._collection,
            self._selection,
            resource_version=self.resource_version,
            timeout_s=self._rng.randint(*self._settings.watch_timeout_s),
        )
        silence_s = self._settings.silence_s
        async with self._client.watch(request) as lines:
            self._opened_at = loop.time()
            try:
                async with asyncio.timeout(silence_s) as scope:
                    async for line in lines:
                        scope.reschedule(loop.time() + silence_s)
                        self._take(line)
                        self._heard_at = loop.time()
            except TimeoutError:
                raise errors.DeadlineError(
                    f"watch {self._collection}: nothing for {silence_s:g} s"
                ) from None

    def _take(self, line: bytes) -> None:
        event = read_event(line, self._into)
        if event is None:
            return
        if event.problem:
            self._note_malformed(event.identity, event.problem)
        self._notify(self._change(event))
        self.resource_version = event.identity.metadata.resource_version
        if self._observer is not None:
            self._observer.received(self._collection.resource.qualified, event.kind)

    def _change(self, event: WatchEvent[T]) -> Iterable[Change[T]]:
        match event.kind:
            case EventKind.DELETED:
                return self.store.remove(key_of(event.identity), event.object)
            case EventKind.ADDED | EventKind.MODIFIED if event.object is not None:
                return self.store.put(event.object)
            case _:
                return ()

    def _notify(self, changes: Iterable[Change[T]]) -> None:
        for change in changes:
            for listener in self._listeners:
                listener(change)

    def _note_failure(self, error: errors.KubeError) -> None:
        if isinstance(error, errors.GoneError):
            self.resource_version = ""
        if isinstance(error, errors.NotFoundError):
            self.missing.set()
        _log.warning(
            "kube.reflector_failed",
            resource=self._collection.resource.qualified,
            error=str(error),
            kind=type(error).__name__,
            relist=not self.resource_version,
        )
        if self._observer is not None:
            self._observer.failed(self._collection.resource.qualified, error)

    def _note_malformed(self, identity: Identity, problem: str) -> None:
        _log.error(
            "kube.object_malformed",
            resource=self._collection.resource.qualified,
            namespace=identity.metadata.namespace,
            name=identity.metadata.name,
            problem=problem,
        )
        if self._observer is not None:
            self._observer.malformed(self._collection.resource.qualified)
