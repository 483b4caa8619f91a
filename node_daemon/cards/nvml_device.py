"""One card or MIG instance through pynvml; see ``nvml`` for the rules."""

from collections.abc import Callable
from typing import Final, TypeVar

import pynvml

from node_daemon.cards import nvml
from node_daemon.cards.nvml_lane import Lane

T = TypeVar("T")

# NVML numbers links from 0 without gaps; NVML_NVLINK_MAX_LINKS is the most any card has.
_MAX_LINKS: Final = int(pynvml.NVML_NVLINK_MAX_LINKS)


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

    def uuid(self) -> str:
        """``GPU-…`` or ``MIG-…``."""
        return self.run("UUID", lambda: str(pynvml.nvmlDeviceGetUUID(self._handle)))

    def name(self) -> str:
        """The product name."""
        return self.run("name", lambda: str(pynvml.nvmlDeviceGetName(self._handle)))

    def memory(self) -> nvml.Memory:
        """Total, reserved and used bytes; older drivers count reserved as used."""

        def call() -> nvml.Memory:
            try:
                m = pynvml.nvmlDeviceGetMemoryInfo(self._handle, version=pynvml.nvmlMemory_v2)
                return nvml.Memory(int(m.total), int(m.reserved), int(m.used))
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
                m = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
                return nvml.Memory(int(m.total), 0, int(m.used))

        return self.run("memory", call)

    def compute_capability(self) -> tuple[int, int]:
        """Major, minor."""

        def call() -> tuple[int, int]:
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(self._handle)
            return int(major), int(minor)

        return self.run("compute capability", call)

    def pci_bus_id(self) -> str:
        """As NVML writes it, ``00000000:1B:00.0``."""
        return self.run("PCI info", lambda: _text(_pci(self._handle).busId))

    def mig_enabled(self) -> bool:
        """True while the card is in MIG mode; False also where it has none."""

        def call() -> bool:
            try:
                current, _pending = pynvml.nvmlDeviceGetMigMode(self._handle)
            except pynvml.NVMLError_NotSupported:
                return False
            return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)

        return self.run("MIG mode", call)

    def mig_slices(self) -> int:
        """The most instances the card can have: its compute slices."""
        return self.run(
            "MIG device count", lambda: int(pynvml.nvmlDeviceGetMaxMigDeviceCount(self._handle))
        )

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

    def place(self) -> nvml.InstancePlace:
        """For a MIG instance, its ids on the card."""

        def call() -> nvml.InstancePlace:
            return nvml.InstancePlace(
                int(pynvml.nvmlDeviceGetGpuInstanceId(self._handle)),
                int(pynvml.nvmlDeviceGetComputeInstanceId(self._handle)),
                int(pynvml.nvmlDeviceGetAttributes(self._handle).computeInstanceSliceCount),
            )

        return self.run("MIG attributes", call)

    def common_ancestor(self, other: "Device") -> int:
        """NVML's topology level between two cards: 0 one board to 50 across sockets."""
        return self.run(
            "topology",
            lambda: int(pynvml.nvmlDeviceGetTopologyCommonAncestor(self._handle, other.handle)),
        )

    def nvlinks(self) -> tuple[nvml.NvLink, ...]:
        """The active links."""

        def call() -> tuple[nvml.NvLink, ...]:
            return tuple(
                nvml.NvLink(link, _remote(self._handle, link))
                for link in range(_MAX_LINKS)
                if _active(self._handle, link)
            )

        return self.run("NVLinks", call)

    def recovery_action(self) -> int:
        """NVML's GPU recovery action: 0 none, else what the card needs."""

        def call() -> int:
            field = pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
            value = pynvml.nvmlDeviceGetFieldValues(self._handle, [field])[0]
            if value.nvmlReturn != pynvml.NVML_SUCCESS:
                raise pynvml.NVMLError(value.nvmlReturn)
            return int(value.value.uiVal)

        return self.run("recovery action", call)

    def remapped_rows(self) -> tuple[bool, bool]:
        """Whether row remaps are pending, and whether one failed."""

        def call() -> tuple[bool, bool]:
            _corrected, _uncorrected, pending, failure = pynvml.nvmlDeviceGetRemappedRows(
                self._handle
            )
            return bool(pending), bool(failure)

        return self.run("remapped rows", call)

    def uncorrected_ecc(self) -> int:
        """Uncorrected ECC errors since the driver was loaded."""
        return self.run(
            "ECC errors",
            lambda: int(
                pynvml.nvmlDeviceGetTotalEccErrors(
                    self._handle,
                    pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                    pynvml.NVML_VOLATILE_ECC,
                )
            ),
        )

    def processes(self) -> tuple[nvml.Process, ...]:
        """All compute processes, MPS clients included, one entry a pid."""

        def call() -> tuple[nvml.Process, ...]:
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

        return self.run("processes", call)

    def samples(self, since_us: int) -> tuple[nvml.Sample, ...]:
        """Use per process, newer than ``since_us``; the newest sample of each pid."""

        def call() -> tuple[nvml.Sample, ...]:
            try:
                raw = pynvml.nvmlDeviceGetProcessUtilization(self._handle, since_us)
            except pynvml.NVMLError_NotFound:
                return ()  # no process ran since then
            newest: dict[int, nvml.Sample] = {}
            for s in sorted(raw, key=lambda s: int(s.timeStamp)):
                newest[int(s.pid)] = nvml.Sample(
                    int(s.pid), int(s.timeStamp), int(s.smUtil), int(s.memUtil)
                )
            return tuple(newest.values())

        return self.run("process utilisation", call)

    def compute_mode(self) -> int:
        """``COMPUTE_MODE_DEFAULT`` and so on."""
        return self.run("compute mode", lambda: int(pynvml.nvmlDeviceGetComputeMode(self._handle)))

    def set_compute_mode(self, mode: int) -> None:
        """Needs root."""

        def call() -> None:
            pynvml.nvmlDeviceSetComputeMode(self._handle, mode)

        self.run("set compute mode", call)

    def memory_limits(self, cgroup: str) -> nvml.MemoryLimits:
        """Limits of a cgroup v2 directory on this card. Driver R615 and newer."""

        def call() -> nvml.MemoryLimits:
            limits = pynvml.c_nvmlGetMemoryLimits_v1_t(nameSpace=cgroup.encode())
            pynvml.nvmlDeviceGetMemoryLimits_v1(self._handle, limits)
            return nvml.MemoryLimits(
                int(limits.softLimit), int(limits.hardLimit), int(limits.currentUsed)
            )

        return self.run("memory limits", call)

    def set_memory_limits(self, cgroup: str, soft: int, hard: int) -> None:
        """Bytes; 0 and ``UNLIMITED`` clear them. Needs root; driver R615 and newer."""

        def call() -> None:
            limits = pynvml.c_nvmlSetMemoryLimits_v1_t(
                nameSpace=cgroup.encode(), softLimit=soft, hardLimit=hard
            )
            pynvml.nvmlDeviceSetMemoryLimits_v1(self._handle, limits)

        self.run("set memory limits", call)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pci(handle: object) -> pynvml.nvmlPciInfo_t:
    return pynvml.nvmlDeviceGetPciInfo(handle)


def _active(handle: object, link: int) -> bool:
    try:
        state = pynvml.nvmlDeviceGetNvLinkState(handle, link)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
        return False  # the card has no such link
    return bool(state == pynvml.NVML_FEATURE_ENABLED)


def _remote(handle: object, link: int) -> str:
    kind = pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
    if kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
        return ""
    return _text(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)
