"""The fake GPUs of one machine, described as data and changed while they are in use.

A control directory holds what the library reads (``state``, ``events``) and what its callers
wrote through it (``written``). Any process may change the hardware: each NVML call looks again.
"""

import pathlib
from collections.abc import Iterator
from typing import Final

import msgspec

VARIABLE: Final = "GPU_FRACTION_FAKE_NVML"
"""The environment variable that names the control directory."""

ALL_EVENTS: Final = 0xFFFF
XID: Final = 0x8
"""``nvmlEventTypeXidCriticalError``."""
WHOLE_CARD: Final = 0xFFFFFFFF
"""GPU or compute instance of an event that concerns no instance."""
MIB: Final = 1 << 20


class FakeInstance(msgspec.Struct, kw_only=True):
    """One MIG instance; ``slices`` of the card's ``mig_max`` compute slices."""

    uuid: str
    gi: int
    ci: int = 0
    slices: int = 1
    memory_mib: int = 9984
    used_mib: int = 0
    sm: int = 16
    name: str = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"


class FakeLink(msgspec.Struct, kw_only=True):
    """One NVLink of a card: to another card's PCI address, or to ``switch``."""

    link: int
    remote: str
    active: bool = True


class FakeProcess(msgspec.Struct, kw_only=True):
    """One process on a card or instance.

    ``sm`` and ``mem`` are percent of the last sample, ``time_us`` its time; ``sm`` None is a
    process without a sample.
    """

    pid: int
    memory_mib: int
    kind: str = "compute"
    sm: int | None = None
    mem: int = 0
    time_us: int = 1
    cgroup: str = ""


class FakeCard(msgspec.Struct, kw_only=True):
    """One physical card; a value of None is one the driver does not support."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    pci: str = "00000000:1B:00.0"
    memory_mib: int | None = 81559
    reserved_mib: int = 600
    used_mib: int = 0
    compute_capability: tuple[int, int] | None = (9, 0)
    minor: int = 0
    sm: int = 132
    lost: bool = False
    mig: bool | None = False
    mig_max: int = 7
    instances: list[FakeInstance] = []
    links: list[FakeLink] = []
    recovery_action: int | None = 0
    remap_pending: bool | None = False
    remap_failure: bool = False
    ecc_uncorrected: int | None = 0
    events: int | None = ALL_EVENTS


class Fault(msgspec.Struct, kw_only=True, frozen=True):
    """A call that fails with ``code``, or hangs while ``code`` is None; ``*`` is any."""

    function: str
    code: int | None
    uuid: str = "*"


class _Machine(msgspec.Struct, kw_only=True):
    driver: str = "615.71.09"
    cuda: int = 13040
    generation: int = 0
    loads: int = 0
    cards: list[FakeCard] = []
    pcie: list[tuple[str, str, int]] = []
    processes: dict[str, list[FakeProcess]] = {}
    faults: list[Fault] = []


class FakeHardware:
    """The machine whose control directory this is; created where it does not exist."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        saved = directory / "machine.json"
        self.machine = (
            msgspec.json.decode(saved.read_bytes(), type=_Machine)
            if saved.exists()
            else _Machine()
        )

    @property
    def cards(self) -> list[FakeCard]:
        """The cards in index order; change them, then call ``apply``."""
        return self.machine.cards

    def card(self, uuid: str) -> FakeCard:
        """The physical card of that name.

        Raises:
            KeyError: there is none.
        """
        for card in self.machine.cards:
            if card.uuid == uuid:
                return card
        raise KeyError(uuid)

    def apply(self) -> None:
        """Make what was changed visible to every process that uses the library."""
        self.machine.generation += 1
        _replace(self.directory / "machine.json", msgspec.json.encode(self.machine))
        _replace(self.directory / "state", "".join(_lines(self.machine)).encode())

    def unload(self) -> None:
        """Take the driver away, until ``load``."""
        (self.directory / "state").unlink()

    def load(self) -> None:
        """Load the driver anew: who had opened the one before must shut down and open again."""
        self.machine.loads += 1
        self.apply()

    def fault(self, function: str, code: int | None, uuid: str = "*") -> None:
        """From now on this call fails with an NVML code, or hangs where ``code`` is None."""
        self.machine.faults.append(Fault(function=function, code=code, uuid=uuid))
        self.apply()

    def heal(self) -> None:
        """Take back all faults; calls that hang return."""
        self.machine.faults.clear()
        self.apply()

    def event(
        self,
        uuid: str,
        data: int,
        kind: int = XID,
        gi: int = WHOLE_CARD,
        ci: int = WHOLE_CARD,
    ) -> None:
        """Send an event, by default an XID, to all who registered for it."""
        with (self.directory / "events").open("a") as file:
            file.write(f"{uuid} {kind} {data} {gi} {ci}\n")

    def written(self) -> list[list[str]]:
        """What callers set through the library, oldest first, one list of words each."""
        path = self.directory / "written"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _replace(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.replace(path)


def _line(word: str, item: msgspec.Struct | None = None, **more: object) -> str:
    """One line of the state: the item's plain fields by name, memory in bytes."""
    fields = {**(msgspec.structs.asdict(item) if item else {}), **more}
    parts = [word]
    for key, value in fields.items():
        if isinstance(value, int) and key.endswith("_mib"):
            parts.append(f"{key.removesuffix('_mib')}={value * MIB}")
        elif isinstance(value, (int, str)):
            parts.append(f"{key}={int(value) if isinstance(value, bool) else value}")
    return "\t".join(parts) + "\n"


def _lines(machine: _Machine) -> Iterator[str]:
    yield f"generation {machine.generation}\n"
    yield _line("node", driver=machine.driver, cuda=machine.cuda, loads=machine.loads)
    for card in machine.cards:
        major, minor = card.compute_capability or (None, None)
        yield _line("card", card, cc_major=major, cc_minor=minor)
        for instance in card.instances:
            yield _line("instance", instance, parent=card.uuid)
        for link in card.links:
            yield _line("nvlink", link, uuid=card.uuid)
    for a, b, level in machine.pcie:
        yield _line("pcie", a=a, b=b, level=level)
    for uuid, processes in machine.processes.items():
        for process in processes:
            yield _line("process", process, uuid=uuid)
    for fault in machine.faults:
        yield _line("fault", fault)
