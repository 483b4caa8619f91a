"""NVML's names, values and errors.

Only ``nvml``, ``nvml_device`` and ``nvml_driver`` import pynvml. Every call runs on a thread of
its card (``nvml_lane``) and ends by a deadline.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import pynvml

from gpu_fraction.node_daemon.cards.nvml_lane import Lane, LaneTimeoutError

T = TypeVar("T")

MIB: Final = 1 << 20
UNLIMITED: Final = int(pynvml.NVML_DEVICE_MEMORY_LIMIT_MAX)
COMPUTE_MODE_DEFAULT: Final = int(pynvml.NVML_COMPUTEMODE_DEFAULT)
COMPUTE_MODE_EXCLUSIVE_PROCESS: Final = int(pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)

EVENT_DOUBLE_BIT_ECC: Final = int(pynvml.nvmlEventTypeDoubleBitEccError)
EVENT_XID: Final = int(pynvml.nvmlEventTypeXidCriticalError)
EVENT_FATAL_POISON: Final = int(pynvml.nvmlEventTypeFatalPoisonError)
EVENT_GPU_UNAVAILABLE: Final = int(pynvml.nvmlEventTypeGpuUnavailableError)
EVENT_RECOVERY_ACTION: Final = int(pynvml.nvmlEventTypeGpuRecoveryAction)
HEALTH_EVENTS: Final = (
    EVENT_DOUBLE_BIT_ECC
    | EVENT_XID
    | EVENT_FATAL_POISON
    | EVENT_GPU_UNAVAILABLE
    | EVENT_RECOVERY_ACTION
)
WHOLE_CARD: Final = int(pynvml.NVML_GPU_INSTANCE_ID_ANY)
"""Instance id of an event that concerns the whole card."""


class NvmlError(Exception):
    """An NVML call failed; ``code`` is NVML's return value, 0 where it did not return."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NvmlUnavailableError(NvmlError):
    """No library or no driver: this machine has no usable NVIDIA stack."""


class NvmlUnsupportedError(NvmlError):
    """The card or this driver does not support the call."""


class NvmlCardLostError(NvmlError):
    """The card fell off the bus or must be reset first."""


class NvmlNotFoundError(NvmlError):
    """The card, instance, cgroup or sample does not exist."""


class NvmlDeniedError(NvmlError):
    """The daemon lacks the privilege."""


class NvmlTimeoutError(NvmlError):
    """The call did not return by its deadline."""


# Source: nvmlReturn_t in NVIDIA's NVML API reference.
_BY_CODE: Final[dict[int, type[NvmlError]]] = {
    pynvml.NVML_ERROR_UNINITIALIZED: NvmlUnavailableError,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: NvmlUnavailableError,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: NvmlUnavailableError,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: NvmlUnavailableError,
    pynvml.NVML_ERROR_NOT_SUPPORTED: NvmlUnsupportedError,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NvmlUnsupportedError,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: NvmlUnsupportedError,
    pynvml.NVML_ERROR_GPU_IS_LOST: NvmlCardLostError,
    pynvml.NVML_ERROR_RESET_REQUIRED: NvmlCardLostError,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: NvmlCardLostError,
    pynvml.NVML_ERROR_NOT_FOUND: NvmlNotFoundError,
    pynvml.NVML_ERROR_NO_PERMISSION: NvmlDeniedError,
    pynvml.NVML_ERROR_TIMEOUT: NvmlTimeoutError,
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a card. ``reserved`` is what driver and firmware keep for themselves."""

    total: int
    reserved: int
    used: int


@dataclass(frozen=True, slots=True)
class NvLink:
    """One active NVLink; ``remote`` is the PCI address behind it, empty for an NVSwitch."""

    link: int
    remote: str


@dataclass(frozen=True, slots=True)
class InstancePlace:
    """The place of a MIG instance on its card: ids, and its compute slices."""

    gpu_instance: int
    compute_instance: int
    slices: int


@dataclass(frozen=True, slots=True)
class Process:
    """One process on a card; memory in bytes, 0 where the driver does not report it."""

    pid: int
    memory: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One process's use of a card; ``time_us`` is NVML's clock."""

    pid: int
    time_us: int
    sm_percent: int


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Limits of one cgroup on one card, bytes; ``hard`` is ``UNLIMITED`` where none is set."""

    soft: int
    hard: int
    used: int


@dataclass(frozen=True, slots=True)
class RawEvent:
    """An event of NVML; ``uuid`` is empty where the card could not be named."""

    uuid: str
    kind: int
    data: int
    gpu_instance: int
    compute_instance: int


def translate(what: str, call: Callable[[], T]) -> T:
    """Run a pynvml call and turn its error into ours.

    Raises:
        NvmlError: the call failed.
    """
    try:
        return call()
    except pynvml.NVMLError as e:
        code = int(getattr(e, "value", pynvml.NVML_ERROR_UNKNOWN))
        raise _BY_CODE.get(code, NvmlError)(f"{what}: {e} ({code})", code) from e
    except (AttributeError, ctypes.ArgumentError, UnicodeDecodeError) as e:
        # Symbols that an older library lacks, and names that are not text.
        raise NvmlError(f"{what}: {e}") from e


def on_lane(lane: Lane, what: str, call: Callable[[], T], timeout_s: float) -> T:
    """Run a pynvml call as ``translate`` does, on a lane and by a deadline.

    Raises:
        NvmlError: the call failed; NvmlTimeoutError where it did not return.
    """
    try:
        return lane.call(what, lambda: translate(what, call), timeout_s)
    except LaneTimeoutError as e:
        raise NvmlTimeoutError(str(e)) from e
