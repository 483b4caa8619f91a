"""Use of the cards by pods: NVML's processes, traced to pods by their cgroups.

NVML gives process ids of the host, so the daemon must see the host's processes (``hostPID``).
Memory is what a process holds now; utilisation is NVML's latest sample of it. A process whose
cgroup names no pod, such as the MPS server or a program started on the host, is counted apart.
"""

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_device import Device
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup_paths import Member, member

PROC: Final = pathlib.Path("/proc")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """Use of one card by one container.

    Attributes:
        sm_percent: Share of time in which its kernels ran, percent of the whole card; None where
            NVML has no sample.
    """

    memory_bytes: int = 0
    sm_percent: int | None = None


@dataclass(frozen=True, slots=True)
class CardUsage:
    """Use of one card or MIG instance.

    Attributes:
        used_bytes: Device memory in use, the driver's included; None where unknown.
        others: By processes that are in no pod.
        error: Why it could not be read, empty where it could.
    """

    uuid: str
    used_bytes: int | None = None
    by: Mapping[Member, ContainerUse] = field(default_factory=dict)
    others: ContainerUse = ContainerUse()
    error: str = ""


class UsageReader:
    """Reads the cards again and again; remembers up to when samples were seen."""

    def __init__(self, driver: Driver, proc: pathlib.Path = PROC) -> None:
        self._driver = driver
        self._proc = proc
        self._seen_us: dict[str, int] = {}

    def read(self, uuids: Iterable[str]) -> tuple[CardUsage, ...]:
        """Read each card on its own: one that hangs delays no other. Blocks for a bounded time."""
        return tuple(self._card(uuid) for uuid in uuids)

    def _card(self, uuid: str) -> CardUsage:
        try:
            device = self._driver.device_by_uuid(uuid)
            processes = device.processes()
        except nvml.NvmlError as e:
            return CardUsage(uuid, error=str(e))
        samples = self._samples(device, uuid)
        by: dict[Member, ContainerUse] = {}
        others = ContainerUse()
        for process in processes:
            container = self._member(process.pid)
            sample = samples.get(process.pid)
            if container is None:
                others = _plus(others, process, sample)
            else:
                by[container] = _plus(by.get(container, ContainerUse()), process, sample)
        return CardUsage(uuid, _used(device), by, others)

    def _samples(self, device: Device, uuid: str) -> dict[int, nvml.Sample]:
        try:
            samples = device.samples(self._seen_us.get(uuid, 0))
        except nvml.NvmlError as e:
            # MIG instances and some virtual cards have none: memory is known all the same.
            _log.debug("utilisation_unavailable", card=uuid, error=str(e))
            return {}
        newest = max((sample.time_us for sample in samples), default=0)
        self._seen_us[uuid] = max(newest, self._seen_us.get(uuid, 0))
        return {sample.pid: sample for sample in samples}

    def _member(self, pid: int) -> Member | None:
        try:
            return member((self._proc / str(pid) / "cgroup").read_text())
        except (OSError, UnicodeDecodeError):
            return None  # the process has ended


def _used(device: Device) -> int | None:
    try:
        memory = device.memory()
    except nvml.NvmlError:
        return None
    return memory.used + memory.reserved


def _plus(usage: ContainerUse, process: nvml.Process, sample: nvml.Sample | None) -> ContainerUse:
    return ContainerUse(
        memory_bytes=usage.memory_bytes + process.memory,
        sm_percent=_sum(usage.sm_percent, sample.sm_percent if sample else None),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    """The sum of the known values; None where neither is known."""
    if one is None or other is None:
        return other if one is None else one
    return min(100, one + other)
