"""One card or MIG instance through pynvml; see ``nvml`` for the rules."""

from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

import pynvml

from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_lane import Lane

T = TypeVar("T")
P = ParamSpec("P")

# NVML numbers links from 0 without gaps; NVML_NVLINK_MAX_LINKS is the most any card has.
_MAX_LINKS: Final = int(pynvml.NVML_NVLINK_MAX_LINKS)

Method = Callable[Concatenate["Device", P], T]


def _on_lane(what: str) -> Callable[[Method[P, T]], Method[P, T]]:
    """Run a method as one call of the library, on its card's lane and by the deadline."""

    def wrap(method: Method[P, T]) -> Method[P, T]:
        def run(self: "Device", /, *args: P.args, **kwargs: P.kwargs) -> T:
            return self.run(what, lambda: method(self, *args, **kwargs))

        return run

    return wrap


class Device:
    """A card or a MIG instance. Every method raises NvmlError and ends by the deadline.

    Its calls run on the lane of the card.
    """

    def __init__(self, handle: object, index: int, lane: Lane, timeout_s: float) -> None:
        self._handle = handle
        self._index = index
        self._lane = lane
        self._timeout_s = timeout_s

    @property
    def index(self) -> int:
        """Position of the (parent) card, as nvidia-smi counts."""
        return self._index

    @property
    def handle(self) -> object:
        """NVML's handle, for calls on several cards."""
        return self._handle

    def run(self, what: str, call: Callable[[], T]) -> T:
        """A call of the library that concerns this card, on its lane and by the deadline."""
        return nvml.on_lane(self._lane, what, call, self._timeout_s)

    @_on_lane("UUID")
    def uuid(self) -> str:
        """``GPU-…`` or ``MIG-…``."""
        return str(pynvml.nvmlDeviceGetUUID(self._handle))

    @_on_lane("name")
    def name(self) -> str:
        """The product name."""
        return str(pynvml.nvmlDeviceGetName(self._handle))

    @_on_lane("memory")
    def memory(self) -> nvml.Memory:
        """Total, reserved and used bytes; older drivers count reserved as used."""
        try:
            m = pynvml.nvmlDeviceGetMemoryInfo(self._handle, version=pynvml.nvmlMemory_v2)
            return nvml.Memory(int(m.total), int(m.reserved), int(m.used))
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
            m = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            return nvml.Memory(int(m.total), 0, int(m.used))

    @_on_lane("compute capability")
    def compute_capability(self) -> tuple[int, int]:
        """Major, minor."""
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(self._handle)
        return int(major), int(minor)

    @_on_lane("PCI info")
    def pci_bus_id(self) -> str:
        """The PCI address in NVML's form, ``00000000:1B:00.0``."""
        return _text(_pci(self._handle).busId)

    @_on_lane("MIG mode")
    def mig_enabled(self) -> bool:
        """True while the card is in MIG mode; False also where it has none."""
        try:
            current, _pending = pynvml.nvmlDeviceGetMigMode(self._handle)
        except pynvml.NVMLError_NotSupported:
            return False
        return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)

    @_on_lane("MIG device count")
    def mig_slices(self) -> int:
        """The most instances the card can have: its compute slices."""
        return int(pynvml.nvmlDeviceGetMaxMigDeviceCount(self._handle))

    def instances(self) -> tuple["Device", ...]:
        """The card's MIG instances; gaps in NVML's numbering are passed over."""

        def call() -> list[object]:
            found: list[object] = []
            for i in range(int(pynvml.nvmlDeviceGetMaxMigDeviceCount(self._handle))):
                try:
                    found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(self._handle, i))
                except pynvml.NVMLError_NotFound:
                    continue
            return found

        handles = self.run("MIG instances", call)
        return tuple(Device(h, self._index, self._lane, self._timeout_s) for h in handles)

    @_on_lane("MIG attributes")
    def place(self) -> nvml.InstancePlace:
        """The ids of a MIG instance on its card."""
        return nvml.InstancePlace(
            int(pynvml.nvmlDeviceGetGpuInstanceId(self._handle)),
            int(pynvml.nvmlDeviceGetComputeInstanceId(self._handle)),
            int(pynvml.nvmlDeviceGetAttributes(self._handle).computeInstanceSliceCount),
        )

    @_on_lane("topology")
    def common_ancestor(self, other: "Device") -> int:
        """NVML's topology level between two cards: 0 one board to 50 across sockets."""
        return int(pynvml.nvmlDeviceGetTopologyCommonAncestor(self._handle, other.handle))

    @_on_lane("NVLinks")
    def nvlinks(self) -> tuple[nvml.NvLink, ...]:
        """The active links."""
        return tuple(
            nvml.NvLink(link, _remote(self._handle, link))
            for link in range(_MAX_LINKS)
            if _active(self._handle, link)
        )

    @_on_lane("recovery action")
    def recovery_action(self) -> int:
        """NVML's GPU recovery action: 0 none, else what the card needs."""
        field = pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
        value = pynvml.nvmlDeviceGetFieldValues(self._handle, [field])[0]
        if value.nvmlReturn != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(value.nvmlReturn)
        return int(value.value.uiVal)

    @_on_lane("remapped rows")
    def remapped_rows(self) -> tuple[bool, bool]:
        """Whether row remaps are pending, and whether one failed."""
        _corrected, _uncorrected, pending, failure = pynvml.nvmlDeviceGetRemappedRows(self._handle)
        return bool(pending), bool(failure)

    @_on_lane("ECC errors")
    def uncorrected_ecc(self) -> int:
        """Uncorrected ECC errors since the driver was loaded."""
        return int(
            pynvml.nvmlDeviceGetTotalEccErrors(
                self._handle,
                pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                pynvml.NVML_VOLATILE_ECC,
            )
        )

    @_on_lane("processes")
    def processes(self) -> tuple[nvml.Process, ...]:
        """All compute processes, MPS clients included, one entry a pid."""
        memory: dict[int, int] = {}
        for p in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
            memory[int(p.pid)] = int(p.usedGpuMemory or 0)
        try:
            clients = pynvml.nvmlDeviceGetMPSComputeRunningProcesses(self._handle)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
            clients = []
        for p in clients:
            # A client may stand in both lists; its memory is one and the same.
            memory[int(p.pid)] = max(memory.get(int(p.pid), 0), int(p.usedGpuMemory or 0))
        return tuple(nvml.Process(pid, used) for pid, used in memory.items())

    @_on_lane("process utilisation")
    def samples(self, since_us: int) -> tuple[nvml.Sample, ...]:
        """Use per process, newer than ``since_us``; the newest sample of each pid."""
        try:
            raw = pynvml.nvmlDeviceGetProcessUtilization(self._handle, since_us)
        except pynvml.NVMLError_NotFound:
            return ()  # no process ran since then
        newest: dict[int, nvml.Sample] = {}
        for s in sorted(raw, key=lambda s: int(s.timeStamp)):
            newest[int(s.pid)] = nvml.Sample(int(s.pid), int(s.timeStamp), int(s.smUtil))
        return tuple(newest.values())

    @_on_lane("compute mode")
    def compute_mode(self) -> int:
        """``COMPUTE_MODE_DEFAULT`` and so on."""
        return int(pynvml.nvmlDeviceGetComputeMode(self._handle))

    @_on_lane("set compute mode")
    def set_compute_mode(self, mode: int) -> None:
        """Needs root."""
        pynvml.nvmlDeviceSetComputeMode(self._handle, mode)

    @_on_lane("memory limits")
    def memory_limits(self, cgroup: str) -> nvml.MemoryLimits:
        """Limits of a cgroup v2 directory on this card. Driver R615 and newer."""
        limits = pynvml.c_nvmlGetMemoryLimits_v1_t(nameSpace=cgroup.encode())
        pynvml.nvmlDeviceGetMemoryLimits_v1(self._handle, limits)
        return nvml.MemoryLimits(
            int(limits.softLimit), int(limits.hardLimit), int(limits.currentUsed)
        )

    @_on_lane("set memory limits")
    def set_memory_limits(self, cgroup: str, soft: int, hard: int) -> None:
        """Bytes; 0 and ``UNLIMITED`` clear them. Needs root; driver R615 and newer."""
        limits = pynvml.c_nvmlSetMemoryLimits_v1_t(
            nameSpace=cgroup.encode(), softLimit=soft, hardLimit=hard
        )
        pynvml.nvmlDeviceSetMemoryLimits_v1(self._handle, limits)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pci(handle: object) -> pynvml.nvmlPciInfo_t:
    return pynvml.nvmlDeviceGetPciInfo(handle)


def _active(handle: object, link: int) -> bool:
    try:
        state = pynvml.nvmlDeviceGetNvLinkState(handle, link)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
        return False  # the card does not have this link
    return bool(state == pynvml.NVML_FEATURE_ENABLED)


def _remote(handle: object, link: int) -> str:
    kind = pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
    if kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
        return ""
    return _text(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)
