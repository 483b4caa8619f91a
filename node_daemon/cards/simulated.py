"""Simulated cards: the product runs on machines without a GPU, in pure Python.

Everything around the cards is real: kubelet, claims, CDI files, health, Events. The cards do no
work: containers get their variables, and no device, driver file or limit.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import NAMESPACE_DNS, uuid5

import structlog

from gpu_fraction.domain import keys, units
from gpu_fraction.node_daemon.cards.health_events import Event, Fault, Poll
from gpu_fraction.node_daemon.cards.inventory_reader import CardReading, NodeReading
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import integer, word_set

FAULT_ANNOTATION: Final = keys.PREFIX + "simulated-fault"
"""On the Node, written by administrators: the simulated cards that are sick while it stands.

Indexes or UUIDs with commas between, or ``all``. It lies where only those who may write Nodes
reach it, so that no tenant makes the cards of another one sick.
"""

FAULT: Final = "simulated fault"
MOST_CARDS: Final = 64
"""Chosen: four times the cards of the largest servers; one ResourceSlice holds as many."""

MOST_MEMORY_MIB: Final = 1 << 20
"""1Ti, chosen: several times the largest card."""

MOST_LETTERS: Final = 96
"""Of a model's name. NVML's product names have up to 95 (NVML_DEVICE_NAME_V2_BUFFER_SIZE)."""

_UUIDS: Final = uuid5(NAMESPACE_DNS, "simulated." + keys.GROUP)
_SAID: Final = "simulated"

_log = structlog.get_logger()


def _memory_mib(given: str) -> int:
    try:
        memory_mib = units.parse_memory_mib(given)[0]
    except units.UnitError as e:
        raise ValueError(f"allowed: {e.allowed}") from e
    if memory_mib > MOST_MEMORY_MIB:
        raise ValueError("allowed: 1Mi to 1Ti")
    return memory_mib


def _model(given: str) -> str:
    if not 1 <= len(given) <= MOST_LETTERS:
        raise ValueError(f"allowed: 1 to {MOST_LETTERS} characters")
    return given


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """The simulated cards of a node; none by default."""

    count: int = setting(
        integer(0, MOST_CARDS),
        0,
        "cards to simulate in place of this node's own, to try the product without a GPU",
        name="simulated_cards",
    )
    model: str = setting(
        _model, "NVIDIA H100 80GB HBM3", "product name of simulated cards", name="simulated_model"
    )
    memory_mib: int = setting(
        _memory_mib, 80 * 1024, "memory of each simulated card", name="simulated_memory"
    )


class SimulatedCards:
    """The cards of ``node_name``; the same UUIDs in every process."""

    driver = None

    def __init__(
        self, node_name: str, settings: SimulationSettings, poll_interval_s: float
    ) -> None:
        self._poll_interval_s = poll_interval_s
        self._cards = tuple(
            CardReading(
                index,
                f"GPU-{uuid5(_UUIDS, f'{node_name}/{index}')}",
                # In the name, so that whatever shows a card's model says so.
                model=f"{settings.model} ({_SAID})",
                memory_mib=settings.memory_mib,
            )
            for index in range(settings.count)
        )
        self._faulty: frozenset[str] = frozenset()
        self._changed = threading.Event()

    def reopen(self) -> None:
        """They never go away."""

    def read(self) -> NodeReading:
        """Every card."""
        return NodeReading(_SAID, self._cards, {}, simulated=True)

    def watch(self, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Hand on regular polls, and faults at once, until the function returned is called."""
        stopping = threading.Event()

        def follow() -> None:
            regular = True
            while not stopping.is_set():
                for event in self._events(regular=regular):
                    sink(event)
                regular = not self._changed.wait(self._poll_interval_s)
                self._changed.clear()

        thread = threading.Thread(target=follow, name="simulated-cards", daemon=True)
        thread.start()

        def stop() -> None:
            stopping.set()
            self._changed.set()
            thread.join()

        return stop

    def _events(self, *, regular: bool) -> Iterator[Event]:
        for card in self._cards:
            if card.uuid in self._faulty:
                yield Fault(card.uuid, FAULT)
            else:
                yield Poll(card.uuid, regular=regular)

    def show_faults(self, value: str) -> None:
        """The cards that the annotation's value names are sick from now on, and no others."""
        named = {name: {c.uuid} for c in self._cards for name in (c.uuid, str(c.index))}
        named["all"] = {card.uuid for card in self._cards}
        names = word_set(value)
        if unknown := sorted(names - named.keys()):
            _log.warning("simulated_fault_of_no_card", names=unknown)
        faulty = frozenset(uuid for name in names & named.keys() for uuid in named[name])
        if faulty != self._faulty:
            self._faulty = faulty
            self._changed.set()
