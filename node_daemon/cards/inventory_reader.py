"""Reads the cards of this machine; a card that hangs or fails does not affect the others.

Cards are read beside each other, each on its own thread and every call by a deadline. A value
that cannot be read becomes a default and a line in ``problems``; nothing here raises for one card.
"""

import concurrent.futures
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_device import Device
from gpu_fraction.node_daemon.cards.nvml_driver import Driver

T = TypeVar("T")
D = TypeVar("D")

SYSFS: Final = pathlib.Path("/sys")
_WORKERS: Final = 16

# Source: nvmlGpuTopologyLevel_t; the right side is the scale of domain.inventory.Card.links.
_PCIE_CLOSENESS: Final = {0: 5, 10: 4, 20: 3, 30: 2, 40: 1, 50: 0}
_NVLINK_CLOSENESS: Final = 100


@dataclass(frozen=True, slots=True)
class InstanceReading:
    """One MIG instance; ``memory_mib`` and ``slices`` are 0 where unknown."""

    uuid: str
    model: str
    memory_mib: int
    slices: int
    gpu_instance: int
    compute_instance: int


@dataclass(frozen=True, slots=True)
class CardReading:
    """One physical card as NVML shows it now.

    Attributes:
        model: Product name, empty where unknown.
        memory_mib: Memory for containers: total less the driver's reserve; 0 where
            unknown.
        compute_capability: ``major.minor``, empty where unknown.
        pci: PCI address as sysfs writes it, empty where unknown.
        numa: NUMA node, -1 where unknown.
        mig: In MIG mode: its instances are the cards, it is none itself. None where unknown.
        mig_slices: Compute slices of the whole card, 0 where unknown.
        instances_complete: False where an instance could not be read.
        links: UUID of another card to closeness, as in ``domain.inventory.Card.links``.
        lost: Fell off the bus, or must be reset before it can be used.
        problems: One line for each value that could not be read.
    """

    index: int
    uuid: str
    model: str = ""
    memory_mib: int = 0
    compute_capability: str = ""
    pci: str = ""
    numa: int = -1
    mig: bool | None = False
    mig_slices: int = 0
    instances: tuple[InstanceReading, ...] = ()
    instances_complete: bool = True
    links: Mapping[str, int] = field(default_factory=dict)
    lost: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeReading:
    """All cards.

    Attributes:
        unreadable: Those that could not even be named, by index.
        simulated: They do not exist.
    """

    driver_version: str
    cards: tuple[CardReading, ...]
    unreadable: Mapping[int, str]
    simulated: bool = False


def read(driver: Driver, sysfs: pathlib.Path = SYSFS) -> NodeReading:
    """Read every card. Blocks, at most a few deadlines however many cards hang.

    Raises:
        NvmlError: the driver itself does not answer, so the number of cards is unknown.
    """
    count = driver.count()
    with concurrent.futures.ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        found = list(pool.map(lambda index: _Card(driver, index).read(sysfs), range(count)))
        readings = {f.device.index: f for f in found if isinstance(f, _Read)}
        ordered = list(readings.values())
        levels = list(pool.map(lambda one: _levels(one, ordered), ordered))
    cards = tuple(
        replace(one.card, links=_links(one, ordered, near))
        for one, near in zip(ordered, levels, strict=True)
    )
    unreadable = {i: f for i, f in enumerate(found) if isinstance(f, str)}
    try:
        version = driver.version()
    except nvml.NvmlError:
        version = ""
    return NodeReading(version, cards, unreadable)


@dataclass(frozen=True, slots=True)
class _Read:
    device: Device
    card: CardReading
    nvlinks: tuple[nvml.NvLink, ...]


class _Card:
    """Reads one card, gathering what went wrong."""

    def __init__(self, driver: Driver, index: int) -> None:
        self._driver = driver
        self._index = index
        self._problems: list[str] = []
        self._lost = False

    def _value(self, call: Callable[[], T], default: D) -> T | D:
        if self._lost:
            return default
        try:
            return call()
        except nvml.NvmlUnsupportedError:
            return default  # known of many cards and drivers, no problem of this card
        except nvml.NvmlCardLostError as e:
            self._lost = True
            self._problems.append(str(e))
        except nvml.NvmlError as e:
            self._problems.append(str(e))
        return default

    def read(self, sysfs: pathlib.Path) -> _Read | str:
        """The card, or why it cannot be named."""
        try:
            device = self._driver.device(self._index)
            uuid = device.uuid()
        except nvml.NvmlError as e:
            return str(e)
        pci = _sysfs_address(self._value(device.pci_bus_id, ""))
        memory = self._value(device.memory, None)
        capability = self._value(device.compute_capability, None)
        mig: bool | None = self._value(device.mig_enabled, None)
        nvlinks: tuple[nvml.NvLink, ...] = self._value(device.nvlinks, ())
        instances, complete = self._instances(device) if mig else ((), True)
        card = CardReading(
            index=self._index,
            uuid=uuid,
            model=self._value(device.name, ""),
            memory_mib=_usable_mib(memory),
            compute_capability=".".join(map(str, capability)) if capability else "",
            pci=pci,
            numa=_numa(sysfs, pci),
            mig=mig,
            mig_slices=self._value(device.mig_slices, 0) if mig else 0,
            instances=instances,
            instances_complete=complete,
            lost=self._lost,
            problems=tuple(self._problems),
        )
        return _Read(device, card, nvlinks)

    def _instances(self, device: Device) -> tuple[tuple[InstanceReading, ...], bool]:
        handles: tuple[Device, ...] | None = self._value(device.instances, None)
        if handles is None:
            return (), False
        found = [reading for h in handles if (reading := self._instance(h)) is not None]
        return tuple(found), len(found) == len(handles)

    def _instance(self, device: Device) -> InstanceReading | None:
        uuid = self._value(device.uuid, "")
        if not uuid:
            return None
        place = self._value(device.place, nvml.InstancePlace(-1, -1, 0))
        return InstanceReading(
            uuid=uuid,
            model=self._value(device.name, ""),
            memory_mib=_usable_mib(self._value(device.memory, None)),
            slices=place.slices,
            gpu_instance=place.gpu_instance,
            compute_instance=place.compute_instance,
        )


def _usable_mib(memory: nvml.Memory | None) -> int:
    return 0 if memory is None else max(0, memory.total - memory.reserved) // nvml.MIB


def _sysfs_address(bus_id: str) -> str:
    """``00000000:1B:00.0`` of NVML is ``0000:1b:00.0`` in sysfs."""
    domain, colon, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if colon else ""


def _numa(sysfs: pathlib.Path, pci: str) -> int:
    # NVML's own NUMA call returns the node of the card's memory on Grace, not the one it is
    # plugged in at.
    try:
        return int((sysfs / "bus/pci/devices" / pci / "numa_node").read_text()) if pci else -1
    except (OSError, ValueError):
        return -1


def _levels(one: _Read, others: Sequence[_Read]) -> dict[str, int]:
    """PCIe closeness to the cards after this one; what cannot be read is left out."""
    near: dict[str, int] = {}
    for other in others:
        if other.card.index > one.card.index:
            try:
                level = one.device.common_ancestor(other.device)
            except nvml.NvmlError:
                continue
            near[other.card.uuid] = _PCIE_CLOSENESS.get(level, 0)
    return near


def _links(one: _Read, others: Sequence[_Read], near: Mapping[str, int]) -> dict[str, int]:
    links: dict[str, int] = {}
    for other in others:
        if other is one:
            continue
        lanes = _lanes(one, other)
        if lanes:
            links[other.card.uuid] = lanes * _NVLINK_CLOSENESS
        elif other.card.uuid in near:
            links[other.card.uuid] = near[other.card.uuid]
    return links


def _lanes(one: _Read, other: _Read) -> int:
    """NVLinks between two cards: direct ones, else those that both have to a switch."""
    direct = sum(_sysfs_address(link.remote) == other.card.pci for link in one.nvlinks)
    if direct and other.card.pci:
        return direct
    return min(
        sum(not link.remote for link in one.nvlinks),
        sum(not link.remote for link in other.nvlinks),
    )
