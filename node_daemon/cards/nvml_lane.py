"""One thread for the NVML calls of one card, so that a call that hangs stops that card alone.

A call inside the driver cannot be cancelled. The caller gets its answer or an error by its
deadline; the thread stays with the stuck call, and until that returns every further call on the
lane fails at once instead of waiting.
"""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LaneTimeoutError(TimeoutError):
    """The call did not return by its deadline, or stands behind one that did not."""


class _Job(Generic[T]):
    """One call; its error is carried over to the caller's thread."""

    def __init__(self, what: str, function: Callable[[], T]) -> None:
        self.what = what
        self._function = function
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._function())
        except BaseException as e:  # noqa: BLE001 - raised again where the caller waits
            self.future.set_exception(e)


class Lane:
    """Runs calls one after the other on a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stuck: tuple[str, concurrent.futures.Future[object]] | None = None

    @property
    def stuck(self) -> str:
        """Name of the call that is past its deadline and has not returned, else empty."""
        stuck = self._stuck
        return stuck[0] if stuck is not None and not stuck[1].done() else ""

    def call(self, what: str, function: Callable[[], T], timeout_s: float) -> T:
        """The function's result.

        Args:
            what: Name of the call, for messages.
            function: Runs on the lane's thread; its errors are raised here.
            timeout_s: Longest time this may take, the wait for earlier calls included.

        Raises:
            LaneTimeoutError: the deadline passed, or an earlier call is stuck.
        """
        if stuck := self.stuck:
            raise LaneTimeoutError(f"{what}: {stuck} on {self._name} has not returned")
        job = _Job(what, function)
        self._start()
        self._jobs.put(job.run)
        try:
            return job.future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            if job.future.done() and not job.future.cancelled():
                return job.future.result()  # it ended in this instant, or raised the error itself
            if not job.future.cancel():
                self._stuck = (what, job.future)  # type: ignore[assignment]
            raise LaneTimeoutError(
                f"{what} on {self._name} did not return within {timeout_s:g} s"
            ) from None

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                # Daemon: a call that never returns must not keep the process alive.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()
