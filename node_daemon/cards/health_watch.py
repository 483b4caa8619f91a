"""Polls the cards and waits for their events: two threads that pass events to the daemon.

One waits for NVML's events, one polls; neither is the event loop, and a card that hangs delays
at most its own poll.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import structlog

from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.health_events import (
    RECOVERY_ACTION_CHANGED,
    Event,
    Fault,
    Poll,
    Xid,
)
from gpu_fraction.node_daemon.cards.nvml_device import Device
from gpu_fraction.node_daemon.cards.nvml_driver import Driver, EventWatch

T = TypeVar("T")

POLL_INTERVAL_S: Final = 30.0
_WAIT_S: Final = 1.0
_RETRY_S: Final = 5.0
_GAP_S: Final = 0.5
"""Least time between polls, so that a flood of events is no flood of polls."""

_FAULTS: Final = {
    nvml.EVENT_FATAL_POISON: "fatal memory poison",
    nvml.EVENT_GPU_UNAVAILABLE: "the driver reports the card as unavailable",
}

_log = structlog.get_logger()


class HealthWatch:
    """Runs from ``start`` to ``stop``.

    Args:
        sink: Receives each event, on a thread of the watch; must not block. A composition on
            an event loop gives ``call_soon_threadsafe`` of its queue.
        poll_interval_s: Between polls; a poll also follows an event that asks for one.
        wait_s: Longest wait for events before the watch looks whether it should stop.
        retry_s: Pause after the event set failed.
    """

    def __init__(
        self,
        driver: Driver,
        sink: Callable[[Event], None],
        poll_interval_s: float = POLL_INTERVAL_S,
        wait_s: float = _WAIT_S,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._driver = driver
        self._sink = sink
        self._poll_interval_s = poll_interval_s
        self._wait_s = wait_s
        self._retry_s = retry_s
        self._stopping = threading.Event()
        self._poll_now = threading.Event()
        self._rebuild = threading.Event()
        self._names: dict[int, str] = {}
        self._warned: dict[str, str] = {}
        self._answering: frozenset[str] = frozenset()
        self._threads = [
            threading.Thread(target=self._listen, name="health-events", daemon=True),
            threading.Thread(target=self._poll, name="health-polls", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End them; a thread stuck in a call of the driver is left behind."""
        self._stopping.set()
        self._poll_now.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def ask(self) -> None:
        """Poll all cards now, from any thread."""
        self._poll_now.set()

    def _poll(self) -> None:
        due_s = time.monotonic()
        while not self._stopping.is_set():
            regular = time.monotonic() >= due_s
            if regular:
                due_s = time.monotonic() + self._poll_interval_s
            self._poll_now.clear()
            for one in self._polls():
                if one is not None and not self._stopping.is_set():
                    self._sink(dataclasses.replace(one, regular=regular))
            self._stopping.wait(min(_GAP_S, self._poll_interval_s))
            self._poll_now.wait(max(0.0, due_s - time.monotonic()))

    def _polls(self) -> Iterable[Poll | None]:
        try:
            count = self._driver.count()
        except nvml.NvmlError as e:
            self._warn("nvml_count_failed", e)
            return [Poll(name, error=str(e)) for name in self._names.values()]
        polls = [self._poll_card(index) for index in range(count)]
        answering = frozenset(p.uuid for p in polls if p is not None and not (p.lost or p.error))
        if answering - self._answering:
            self._rebuild.set()  # a card came, or came back: listen to it too
        self._answering = answering
        return polls

    def _poll_card(self, index: int) -> Poll | None:
        """The poll of a card; None where the card could never be named."""
        try:
            device = self._driver.device(index)
            self._names[index] = device.uuid()
            return poll(device, self._names[index])
        except nvml.NvmlError as e:
            name = self._names.get(index)
            if name is None:
                return None
            if isinstance(e, nvml.NvmlCardLostError):
                return Poll(name, lost=str(e))
            return Poll(name, error=str(e))

    def _listen(self) -> None:
        old: EventWatch | None = None
        while not self._stopping.is_set():
            self._rebuild.clear()
            try:
                watch = self._driver.watch(self._devices(), nvml.HEALTH_EVENTS)
            except nvml.NvmlError as e:
                self._warn("nvml_event_set_failed", e)
                self._stopping.wait(self._retry_s)
                continue
            for index, reason in watch.unwatched.items():
                _log.warning("card_events_unavailable", index=index, reason=reason)
            if old is not None:
                # What came while the new set was being made is still in the old one.
                self._receive(old, lambda: False, wait_s=0.0)
                old.close()
            self._receive(watch, lambda: not self._rebuild.is_set(), self._wait_s)
            old = watch
        if old is not None:
            old.close()

    def _warn(self, event: str, error: nvml.NvmlError) -> None:
        """Log a warning unless it is the last one again: errors come back every few seconds."""
        if self._warned.get(event) != str(error):
            self._warned[event] = str(error)
            _log.warning(event, error=str(error))

    def _devices(self) -> Iterable[Device]:
        found: list[Device] = []
        for index in range(self._driver.count()):
            try:
                found.append(self._driver.device(index))
            except nvml.NvmlError as e:
                _log.warning("card_unavailable", index=index, error=str(e))
        return found

    def _receive(self, watch: EventWatch, go_on: Callable[[], bool], wait_s: float) -> None:
        """Pass on events until there is none and ``go_on`` returns False."""
        raw: nvml.RawEvent | None = None
        while not self._stopping.is_set() and (raw is not None or go_on()):
            try:
                raw = watch.wait(wait_s)
            except nvml.NvmlError as e:
                # A lost card can make the wait fail for all. The polls find out which one it is.
                self._warn("nvml_event_wait_failed", e)
                self._poll_now.set()
                self._stopping.wait(self._retry_s)
                return
            event = None if raw is None else translate(raw)
            if event is not None:
                self._sink(event)
            elif raw is not None:
                self._poll_now.set()


def translate(raw: nvml.RawEvent) -> Event | None:
    """NVML's event for the state machine, or None where it only is a reason to ask the cards."""
    if not raw.uuid:
        return None
    if raw.kind == nvml.EVENT_XID and raw.data != RECOVERY_ACTION_CHANGED:
        return Xid(
            raw.uuid, raw.data, _instance(raw.gpu_instance), _instance(raw.compute_instance)
        )
    if raw.kind in _FAULTS:
        return Fault(raw.uuid, _FAULTS[raw.kind])
    return None


def _instance(number: int) -> int | None:
    return None if number == nvml.WHOLE_CARD else number


def poll(device: Device, uuid: str) -> Poll:
    """Poll a card's health. Values that it or its driver does not support are left out.

    Raises:
        NvmlError: it does not answer.
    """
    pending, failed = _known(device.remapped_rows, (False, False))
    return Poll(
        uuid,
        recovery_action=_known(device.recovery_action, None),
        repair_pending=pending,
        repair_failed=failed,
        uncorrected_ecc=_known(device.uncorrected_ecc, None),
    )


def _known(call: Callable[[], T], default: T) -> T:
    try:
        return call()
    except nvml.NvmlUnsupportedError:
        return default
