"""Keeps the inventory current: read at intervals, and at once when a card turns sick."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Protocol, TypeVar

import msgspec
import structlog

from gpu_fraction.domain import formats
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.cards import health, health_events, inventory, nvml
from gpu_fraction.node_daemon.cards.inventory import SLOTS_PER_CARD, CardIsolation
from gpu_fraction.node_daemon.cards.inventory_reader import NodeReading
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.state.concurrency import Observable
from gpu_fraction.node_daemon.state.durable import write_durably
from gpu_fraction.node_daemon.state.errors import StoreError
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import integer, seconds

HEALTH_FILE: Final = "health.json"

T = TypeVar("T")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CardSettings:
    """Settings of reading and health.

    Attributes:
        event_wait_s: Longest wait for events of NVML, and so for the daemon's end.
        driver_retry_s: Between two tries to open NVML; a driver container may still be
            installing it.
    """

    slots_per_card: int = setting(
        integer(1, 1000), SLOTS_PER_CARD, "containers that may share a card"
    )
    read_interval_s: float = setting(
        seconds(1, 3600), 60.0, "time between readings of what cards do not announce"
    )
    poll_interval_s: float = setting(seconds(0.1, 3600), 30.0, "time between health polls")
    event_wait_s: float = 1.0
    driver_retry_s: float = 5.0
    policy: health.HealthPolicy = field(default_factory=health.HealthPolicy)


class Cards(Protocol):
    """The cards of one machine. The methods block, each for a bounded time.

    They raise NvmlError where there are no cards to be had at all.
    """

    @property
    def driver(self) -> Driver | None:
        """NVML, for engines and usage; None where the cards are not NVIDIA's."""

    def reopen(self) -> None:
        """Look for the cards again, after they could not be had."""

    def read(self) -> NodeReading:
        """Every card as it is now."""

    def watch(self, sink: Callable[[health_events.Event], None]) -> Callable[[], None]:
        """Hand events to ``sink``, from any thread, until the function returned is called."""


Assess = Callable[[Driver | None, NodeReading], Awaitable[Mapping[str, CardIsolation]]]
"""Finds the strongest isolation engine of each card, by UUID; the driver is None where the cards
have none."""


class CardSource:
    """Reads, judges and publishes the cards of this machine."""

    def __init__(
        self,
        open_cards: Callable[[], Cards],
        published: Observable[Inventory],
        state: Path,
        assess: Assess,
        card_changed: Callable[[health.Change], None],
        settings: CardSettings | None = None,
    ) -> None:
        """Publish to ``published``; keep health over a restart in the directory ``state``.

        ``card_changed`` is called when a card turns sick or healthy; it must not block or raise.
        """
        self._open_cards = open_cards
        self._published = published
        self._file = state / HEALTH_FILE
        self._assess = assess
        self._card_changed = card_changed
        self._settings = settings or CardSettings()
        self._events: asyncio.Queue[health_events.Event] = asyncio.Queue()
        self._health = health.Health()
        self._boot_id = ""
        self._last = Inventory()
        self._lost = ""
        self.driver: Observable[Driver] = Observable()
        """The driver, once it is loaded."""

    def clear(self, event: health_events.Clear) -> None:
        """Declare cards healthy."""
        self._events.put_nowait(event)

    async def run(self, last: Inventory | None = None) -> NoReturn:
        """Publish until cancelled.

        Args:
            last: The inventory of an earlier process: cards that do not answer now stay listed.
        """
        self._last = last or Inventory()
        self._boot_id, self._health = await asyncio.to_thread(self._load)
        cards = await self._opened(self._open_cards)
        if cards.driver is not None:
            self.driver.set(cards.driver)
        while True:
            try:
                await self._follow(cards)
            except nvml.NvmlError as e:
                self._driver_lost(e)
            await asyncio.sleep(self._settings.driver_retry_s)
            await self._opened(cards.reopen)

    async def _opened(self, attempt: Callable[[], T]) -> T:
        """The result of ``attempt``, once there is a driver; until then no card can be used."""
        while True:
            try:
                return await asyncio.to_thread(attempt)
            except nvml.NvmlError as e:
                self._driver_lost(e)
            await asyncio.sleep(self._settings.driver_retry_s)

    def _driver_lost(self, error: nvml.NvmlError) -> None:
        """Keep the known cards listed, none of them usable."""
        if str(error) != self._lost:
            self._lost = str(error)
            _log.warning(
                "driver_unavailable", error=self._lost, retry_s=self._settings.driver_retry_s
            )
            self._last = _without_driver(self._last, self._lost)
            self._published.set(self._last)

    async def _follow(self, cards: Cards) -> NoReturn:
        """Publish for as long as there is a driver. No watch outlives this.

        Raises:
            NvmlError: there is none, or the cards could never be read.
        """
        loop = asyncio.get_running_loop()

        def sink(event: health_events.Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        stop = await asyncio.to_thread(cards.watch, sink)
        try:
            await self._read_and_judge(cards)
        finally:
            await asyncio.to_thread(stop)
        raise AssertionError("unreachable: the cards are read until there is no driver")

    async def _read_and_judge(self, cards: Cards) -> NoReturn:
        loop = asyncio.get_running_loop()
        known: tuple[NodeReading, Mapping[str, CardIsolation]] | None = None
        while True:
            pause_s = self._settings.read_interval_s
            try:
                reading = await asyncio.to_thread(cards.read)
            except nvml.NvmlUnavailableError:
                raise
            except nvml.NvmlError as e:
                if known is None:
                    raise
                # Polls and events still find the sick cards among those read last.
                _log.error("cards_unreadable", error=str(e))
                pause_s = self._settings.driver_retry_s
            else:
                known = reading, await self._assess(cards.driver, reading)
                self._publish(*known)
            again_s = loop.time() + pause_s
            while (event := await self._event(again_s - loop.time())) is not None:
                if await self._judge(event):
                    self._publish(*known)
                    if isinstance(event, health_events.Poll):
                        break  # what a poll finds may be more than health: read everything

    async def _event(self, timeout_s: float) -> health_events.Event | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._events.get()
        except TimeoutError:
            return None

    async def _judge(self, event: health_events.Event) -> bool:
        """Take an event; True where a card's health or reason changed."""
        before = self._health
        now_s = asyncio.get_running_loop().time()
        self._health = health.step(before, event, now_s, self._settings.policy)
        changes = health.changes(before, self._health)
        for change in changes:
            _log.warning(
                "card_health", uuid=change.uuid, healthy=change.healthy, why=change.reason
            )
            self._card_changed(change)
        if changes:
            content = health.dump(self._health, self._boot_id)
            try:
                await asyncio.to_thread(write_durably, self._file, content)
            except StoreError as e:
                _log.warning("health_not_remembered", error=str(e))
        return bool(changes)

    def _publish(
        self,
        reading: NodeReading,
        isolation: Mapping[str, CardIsolation],
    ) -> None:
        built = inventory.build(
            reading,
            previous=self._last,
            isolation=isolation,
            sick=health.sick(self._health),
            slots_per_card=self._settings.slots_per_card,
        )
        self._health = health.watching(self._health, health_events.targets(built, reading))
        self._last, self._lost = built, ""
        self._published.set(built)

    def _load(self) -> tuple[str, health.Health]:
        boot_id = health.BOOT_ID.read_text().strip()
        try:
            content = self._file.read_bytes()
        except OSError:
            return boot_id, health.Health()
        if problem := formats.other_version(content, health.SAVED_VERSION):
            _log.warning("health_not_read", why=problem)
        return boot_id, health.load(content, boot_id)


def _without_driver(last: Inventory, why: str) -> Inventory:
    """The known cards, none of them usable."""
    lost = (
        msgspec.structs.replace(card, healthy=False, health_reason=f"no driver: {why}")
        for card in last.cards
    )
    return msgspec.structs.replace(last, cards=tuple(lost))
