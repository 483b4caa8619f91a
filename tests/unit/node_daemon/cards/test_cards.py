"""The inventory follows real NVML calls, answered by fake cards."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.cards import nvml, nvml_driver
from gpu_fraction.node_daemon.cards.health import Change, HealthPolicy
from gpu_fraction.node_daemon.cards.health_events import Clear, Fault, Poll
from gpu_fraction.node_daemon.cards.inventory import CardIsolation
from gpu_fraction.node_daemon.cards.inventory_reader import CardReading, NodeReading
from gpu_fraction.node_daemon.cards.nvml_cards import NvmlCards
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.cards.source import HEALTH_FILE, Cards, CardSettings, CardSource
from gpu_fraction.node_daemon.state.concurrency import Observable
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeHardware
from tests.support import fake_gpus
from tests.support.fake_cards import FakeCards

SETTINGS = CardSettings(
    slots_per_card=4,
    read_interval_s=0.2,
    poll_interval_s=0.05,
    event_wait_s=0.02,
    driver_retry_s=0.05,
    policy=HealthPolicy(good_polls=2),
)


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def card_changed(self, change: Change) -> None:
        """A card turned sick or well."""
        self.changes.append(change)


async def assess(driver: Driver | None, reading: NodeReading) -> Mapping[str, CardIsolation]:
    """Say that every card enforces memory."""
    del driver
    return {c.uuid: CardIsolation("cgroup", enforces_memory=True) for c in reading.cards}


@pytest.fixture
def hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHardware:
    """Two cards behind the real pynvml."""
    made = fake_gpus.plug_in(tmp_path)
    monkeypatch.setenv(VARIABLE, str(made.directory))
    return made


@asynccontextmanager
async def running(
    state: Path,
    *,
    last: Inventory | None = None,
    open_driver: Callable[[], Driver] = lambda: nvml_driver.open_driver(1.0),
    cards: Cards | None = None,
) -> AsyncIterator[tuple[Observable[Inventory], Listener, CardSource]]:
    """A source of cards while the block runs."""
    published: Observable[Inventory] = Observable()
    listener = Listener()

    def open_cards() -> Cards:
        return cards or NvmlCards(open_driver(), SETTINGS)

    source = CardSource(open_cards, published, state, assess, listener.card_changed, SETTINGS)
    task = asyncio.create_task(source.run(last))
    try:
        yield published, listener, source
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def shows(
    published: Observable[Inventory], holds: Callable[[Inventory], bool], within_s: float = 8.0
) -> Inventory:
    """Wait for an inventory of which something holds."""
    async with asyncio.timeout(within_s):
        inventory = await published.wait()
        while not holds(inventory):
            inventory = await published.changed_from(inventory)
    return inventory


def healthy(inventory: Inventory) -> list[bool]:
    """Health by card."""
    return [card.healthy for card in inventory.cards]


@pytest.mark.usefixtures("hardware")
async def test_health_of_a_newer_release_is_named_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a rollback of the daemon."""
    (tmp_path / HEALTH_FILE).write_text('{"v":2}')
    async with running(tmp_path) as (published, _, _):
        await shows(published, lambda i: healthy(i) == [True, True])
    assert (
        "version 2, from a newer release; this program reads version 1" in capsys.readouterr().out
    )


async def test_cards_are_published_with_their_isolation(
    hardware: FakeHardware, tmp_path: Path
) -> None:
    """Slots come from the settings, isolation from who assesses it."""
    async with running(tmp_path) as (published, _, _):
        inventory = await shows(published, lambda i: len(i.cards) == 2)
        assert [card.uuid for card in inventory.cards] == [c.uuid for c in hardware.cards]
        assert {card.slots for card in inventory.cards} == {4}
        assert {card.isolation for card in inventory.cards} == {"cgroup"}


async def test_sick_card_is_told_and_recovers(hardware: FakeHardware, tmp_path: Path) -> None:
    """An XID makes a card sick at once; good polls make it well; both are told."""
    async with running(tmp_path) as (published, listener, _):
        await shows(published, lambda i: healthy(i) == [True, True])
        await asyncio.sleep(0.3)
        hardware.event(fake_gpus.uuid(0), 92)
        inventory = await shows(published, lambda i: healthy(i) == [False, True])
        assert "92" in inventory.cards[0].health_reason
        await shows(published, lambda i: healthy(i) == [True, True])
        assert [change.healthy for change in listener.changes] == [False, True]


async def test_health_outlives_the_daemon(hardware: FakeHardware, tmp_path: Path) -> None:
    """A card that needs a reset stays sick over a restart, until somebody clears it."""
    async with running(tmp_path) as (published, _, _):
        await shows(published, lambda i: healthy(i) == [True, True])
        await asyncio.sleep(0.3)
        hardware.event(fake_gpus.uuid(1), 79)
        await shows(published, lambda i: healthy(i) == [True, False])
    async with running(tmp_path) as (published, _, source):
        await shows(published, lambda i: healthy(i) == [True, False], within_s=2.0)
        source.clear(Clear(None))
        await shows(published, lambda i: healthy(i) == [True, True])


async def test_missing_driver_keeps_known_cards_unusable(
    hardware: FakeHardware, tmp_path: Path
) -> None:
    """While the driver is being installed, known cards are listed and nothing is placed."""
    tries = 0

    def open_driver() -> Driver:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise nvml.NvmlUnavailableError("library not found")
        return nvml_driver.open_driver(1.0)

    async with running(tmp_path) as (published, _, _):
        last = await shows(published, lambda i: healthy(i) == [True, True])
    async with running(tmp_path, last=last, open_driver=open_driver) as (published, _, _):
        inventory = await shows(published, lambda i: healthy(i) == [False, False])
        assert "library not found" in inventory.cards[0].health_reason
        await shows(published, lambda i: healthy(i) == [True, True])
    assert hardware.cards


async def test_driver_that_goes_away_leaves_no_card_usable(
    hardware: FakeHardware, tmp_path: Path
) -> None:
    """NVML stays open but tells no cards: all are listed, none takes work until it does again."""
    async with running(tmp_path) as (published, _, _):
        await shows(published, lambda i: healthy(i) == [True, True])
        hardware.fault("nvmlDeviceGetCount_v2", 9)
        inventory = await shows(published, lambda i: healthy(i) == [False, False])
        assert {c.health_reason for c in inventory.cards} == {
            "no driver: device count: Driver Not Loaded (9)"
        }
        hardware.heal()
        await shows(published, lambda i: healthy(i) == [True, True])


async def test_driver_that_is_loaded_anew_is_opened_again(
    hardware: FakeHardware, tmp_path: Path
) -> None:
    """Cards become usable, and errors are heard, without a new process."""
    async with running(tmp_path) as (published, _, _):
        await shows(published, lambda i: healthy(i) == [True, True])
        hardware.unload()
        await shows(published, lambda i: healthy(i) == [False, False])
        hardware.load()
        await shows(published, lambda i: healthy(i) == [True, True])
        sending = asyncio.create_task(_send(hardware, 92))
        await shows(published, lambda i: "XID 92" in i.cards[0].health_reason)
        sending.cancel()


async def _send(hardware: FakeHardware, xid: int) -> None:
    """Again and again: NVML delivers none from before the registration."""
    while True:
        hardware.event(fake_gpus.uuid(0), xid)
        await asyncio.sleep(0.05)


async def test_cards_that_cannot_be_counted_are_still_judged(
    hardware: FakeHardware, tmp_path: Path
) -> None:
    """No reading is to be had, but failed polls count against every card, and good ones for it."""
    async with running(tmp_path) as (published, _, _):
        await shows(published, lambda i: healthy(i) == [True, True])
        hardware.fault("nvmlDeviceGetCount_v2", 999)
        inventory = await shows(published, lambda i: healthy(i) == [False, False])
        assert all("cannot be read" in c.health_reason for c in inventory.cards)
        hardware.heal()
        await shows(published, lambda i: healthy(i) == [True, True])


async def test_cards_need_not_be_nvidias(tmp_path: Path) -> None:
    """Any object that reads and watches cards will do: a demo has some in pure Python."""
    cards = FakeCards(CardReading(0, "FAKE-0", "Fake", 1000), CardReading(1, "FAKE-1"))
    async with running(tmp_path, cards=cards) as (published, listener, _):
        inventory = await shows(published, lambda i: len(i.cards) == 2)
        assert [card.memory_mib for card in inventory.cards] == [1000, 0]
        assert inventory.cards[1].health_reason == "NVML reports no size"
        cards.tell(Fault("FAKE-0", "on fire"))
        await shows(published, lambda i: i.cards[0].health_reason == "on fire")
        for _ in range(2):
            cards.tell(Poll("FAKE-0"))
        await shows(published, lambda i: i.cards[0].healthy)
        assert [change.healthy for change in listener.changes] == [False, True]
    assert cards.sink is None
