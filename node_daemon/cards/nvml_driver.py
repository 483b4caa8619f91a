"""The machine's NVIDIA driver and its events through pynvml; see ``nvml`` for the rules."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import pynvml

from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_device import Device
from gpu_fraction.node_daemon.cards.nvml_lane import Lane

T = TypeVar("T")

CALL_TIMEOUT_S: Final = 3.0
"""Chosen: NVML answers in under 0.1 s; a card being reset takes seconds, a stuck one for ever."""

_WAIT_MARGIN_S: Final = 2.0


def open_driver(timeout_s: float = CALL_TIMEOUT_S) -> "Driver":
    """Load and initialise NVML.

    Args:
        timeout_s: Longest time that any one call may take.

    Raises:
        NvmlUnavailableError: there is no driver; others of NvmlError as they come.
    """
    driver = Driver(timeout_s)
    driver.initialise()
    return driver


class Driver:
    """The driver: one lane for itself, one for each card, one for events."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lane = Lane("NVML")
        self._lanes: dict[int, Lane] = {}
        # One for all event sets: a wait that hangs makes the next set fail, and costs no thread.
        self._events = Lane("NVML events")
        self._openings = 0

    def initialise(self) -> None:
        """Load the library."""
        self._call("nvmlInit", pynvml.nvmlInit)

    def reopen(self) -> None:
        """Shut the library down, as it may have been opened on another driver, and open it.

        Watches must have been closed before.
        """
        self._openings += 1
        with contextlib.suppress(nvml.NvmlError):
            self._call("nvmlShutdown", pynvml.nvmlShutdown)
        self.initialise()

    def _call(self, what: str, call: Callable[[], T]) -> T:
        return nvml.on_lane(self._lane, what, call, self._timeout_s)

    def lane(self, index: int) -> Lane:
        """The lane of a card: the same for every handle to it."""
        return self._lanes.setdefault(index, Lane(f"GPU {index}"))

    def version(self) -> str:
        """The driver's version, such as ``615.71.09``."""
        return self._call("driver version", lambda: str(pynvml.nvmlSystemGetDriverVersion()))

    def count(self) -> int:
        """The number of cards, lost ones included."""
        return self._call("device count", lambda: int(pynvml.nvmlDeviceGetCount()))

    def device(self, index: int) -> Device:
        """The card at that position."""
        lane = self.lane(index)
        handle: object = nvml.on_lane(
            lane,
            f"handle of GPU {index}",
            lambda: pynvml.nvmlDeviceGetHandleByIndex(index),
            self._timeout_s,
        )
        return Device(handle, index, lane, self._timeout_s)

    def device_by_uuid(self, uuid: str) -> Device:
        """The card or instance of that name, looked up among those that answer."""
        for index in range(self.count()):
            with contextlib.suppress(nvml.NvmlError):
                device = self.device(index)
                if device.uuid() == uuid:
                    return device
                for instance in device.instances() if uuid.startswith("MIG-") else ():
                    if instance.uuid() == uuid:
                        return instance
        raise nvml.NvmlNotFoundError(f"no card {uuid} answers")

    def watch(self, devices: Iterable[Device], kinds: int) -> "EventWatch":
        """Receive these kinds of events of these cards; one watch at a time."""
        opening = self._openings
        return EventWatch(
            self._events, devices, kinds, self._timeout_s, lambda: self._openings == opening
        )


class EventWatch:
    """An NVML event set. A card that cannot be registered does not stop the others.

    Not used any more once the library was shut down, which releases what it had allocated: a
    thread that waited for a stuck call may come back after that.
    """

    def __init__(
        self,
        lane: Lane,
        devices: Iterable[Device],
        kinds: int,
        timeout_s: float,
        valid: Callable[[], bool],
    ) -> None:
        self._lane = lane
        self._timeout_s = timeout_s
        self._valid = valid
        self._unwatched: dict[int, str] = {}
        self._set: object = nvml.on_lane(
            lane, "event set", pynvml.nvmlEventSetCreate, self._timeout_s
        )
        for device in devices:
            try:
                self._register(device, kinds)
            except nvml.NvmlError as e:
                self._unwatched[device.index] = str(e)

    @property
    def unwatched(self) -> dict[int, str]:
        """Cards by index that could not be registered, with the reason."""
        return self._unwatched

    def _register(self, device: Device, kinds: int) -> None:
        def call() -> None:
            self._check()
            supported = int(pynvml.nvmlDeviceGetSupportedEventTypes(device.handle))
            pynvml.nvmlDeviceRegisterEvents(device.handle, kinds & supported, self._set)

        # On the card's own lane: one that hangs must not keep the others unwatched.
        device.run("register events", call)

    def _check(self) -> None:
        if not self._valid():
            raise nvml.NvmlUnavailableError("the driver was opened anew: its event set is gone")

    def wait(self, timeout_s: float) -> nvml.RawEvent | None:
        """The next event, None where none came in time."""

        def call() -> nvml.RawEvent | None:
            self._check()
            try:
                data = pynvml.nvmlEventSetWait_v2(self._set, int(timeout_s * 1000))
            except pynvml.NVMLError_Timeout:
                return None
            return nvml.RawEvent(
                _name(data.device),
                int(data.eventType),
                int(data.eventData),
                int(data.gpuInstanceId),
                int(data.computeInstanceId),
            )

        return nvml.on_lane(self._lane, "event wait", call, timeout_s + _WAIT_MARGIN_S)

    def close(self) -> None:
        """Free it; errors are ignored."""

        def call() -> None:
            self._check()
            pynvml.nvmlEventSetFree(self._set)

        with contextlib.suppress(nvml.NvmlError):
            nvml.on_lane(self._lane, "free event set", call, self._timeout_s)


def _name(handle: object) -> str:
    try:
        return str(pynvml.nvmlDeviceGetUUID(handle))
    except pynvml.NVMLError:
        return ""
