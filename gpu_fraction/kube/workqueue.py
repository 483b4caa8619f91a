"""Keys that need a look, each at most once in the queue and never with two workers at once.

The semantics of client-go's workqueue: a key that is added while it is being worked on is
worked on again afterwards, so no change is missed; a key that fails comes back after a wait
of its own that grows with its failures.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, NoReturn, Protocol, TypeVar

import structlog

from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.errors import KubeError, LeaseLostError

K = TypeVar("K", bound=Hashable)

_log = structlog.get_logger(__name__)

RETRY: Final = Backoff(initial_s=0.1, cap_s=60.0)
"""Waits of a key that fails. Chosen: client-go's grow to 1,000 s, which is longer than anybody
waits for a quota."""

RECONCILE_TIMEOUT_S: Final = 60.0
"""Seconds for one key. Chosen: two whole API calls with their retries."""


class WorkQueueObserver(Protocol):
    """Learns how the work goes, for metrics."""

    def started(self, waited_s: float) -> None:
        """A key left the queue after so many seconds: the lag of the controller."""
        ...

    def finished(self, duration_s: float, *, failed: bool) -> None:
        """A key was worked on."""
        ...


class WorkQueue(Generic[K]):
    """A queue of keys. To be used from one event loop."""

    def __init__(
        self,
        *,
        retry: Backoff = RETRY,
        observer: WorkQueueObserver | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """An empty queue.

        Args:
            retry: waits of keys that fail.
            observer: learns how the work goes.
            rng: the source of jitter.
        """
        self._retry = retry
        self._observer = observer
        self._rng = rng or random.SystemRandom()
        self._queue: deque[K] = deque()
        self._wanted: dict[K, float] = {}
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: K) -> None:
        """Have a key looked at soon; nothing happens where that is due already."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._wanted:
            return
        self._wanted[key] = asyncio.get_running_loop().time()
        if key not in self._working:
            self._put(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Have a key looked at in some seconds; of several such times the earliest counts."""
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + delay_s
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= at:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_at(at, self.add, key)

    async def get(self) -> K:
        """The next key, which is then being worked on until :meth:`done`."""
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        key = self._queue.popleft()
        waited_s = asyncio.get_running_loop().time() - self._wanted.pop(key)
        self._working.add(key)
        if self._observer is not None:
            self._observer.started(waited_s)
        return key

    def done(self, key: K, *, failed: bool = False) -> None:
        """A key was worked on. After a failure it comes back by itself, after its wait."""
        self._working.discard(key)
        if failed:
            failures = self._failures.get(key, 0) + 1
            self._failures[key] = failures
            if key not in self._wanted:
                self.add_after(key, self._retry.wait_s(failures, self._rng))
        else:
            self._failures.pop(key, None)
        if key in self._wanted:
            self._put(key)

    async def run(
        self,
        reconcile: Callable[[K], Awaitable[None]],
        *,
        workers: int = 1,
        timeout_s: float = RECONCILE_TIMEOUT_S,
    ) -> None:
        """Work on keys until cancelled.

        Args:
            reconcile: looks at one key and does what is needed. Whatever it raises, the key
                is tried again and the others go on.
            workers: keys at a time.
            timeout_s: seconds for one key.

        Raises:
            ExceptionGroup: of LeaseLostError, where reconcile found that out.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(workers):
                    tasks.create_task(self._work(reconcile, timeout_s), name=f"worker-{number}")
                await asyncio.Event().wait()  # until cancelled
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    async def _work(self, reconcile: Callable[[K], Awaitable[None]], timeout_s: float) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            key = await self.get()
            started_at = loop.time()
            failed = True
            try:
                async with asyncio.timeout(timeout_s):
                    await reconcile(key)
                failed = False
            except (KubeError, TimeoutError) as error:
                _log.warning("kube.reconcile_failed", key=str(key), error=repr(error))
            except LeaseLostError:
                raise  # this replica may not work on anything any more
            except Exception:  # noqa: BLE001 - a fault of ours must show, but not stop all keys
                _log.exception("kube.reconcile_crashed", key=str(key))
            finally:
                self.done(key, failed=failed)
                if self._observer is not None:
                    self._observer.finished(loop.time() - started_at, failed=failed)

    def _put(self, key: K) -> None:
        self._queue.append(key)
        self._filled.set()
