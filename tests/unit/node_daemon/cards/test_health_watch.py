"""The watch on fake cards: events and polls arrive, and nothing that hangs stops it."""

import dataclasses
import queue
import time
from collections.abc import Callable, Iterator

import pytest

from gpu_fraction.node_daemon.cards import health_watch, nvml
from gpu_fraction.node_daemon.cards.health_events import Event, Fault, Poll, Xid
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.sandbox.nvml.hardware import FakeHardware
from tests.support import fake_gpus

WHOLE = nvml.WHOLE_CARD


class Watched:
    """A running watch and what it reported."""

    def __init__(self, driver: Driver, poll_interval_s: float = 0.02) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.watch = health_watch.HealthWatch(
            driver, self.events.put, poll_interval_s, wait_s=0.02, retry_s=0.02
        )
        self.watch.start()

    def until(self, wanted: Callable[[Event], bool] | Event) -> bool:
        """True when such an event arrives within some seconds."""
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            event = self.events.get(timeout=20)
            if wanted(event) if callable(wanted) else event == wanted:
                return True
        return False


@pytest.fixture
def watched(driver: Driver) -> Iterator[Watched]:
    """A watch on the two cards, ended with the test."""
    running = Watched(driver)
    yield running
    running.watch.stop()


def fine(index: int) -> Poll:
    """What a healthy card answers."""
    return Poll(fake_gpus.uuid(index), recovery_action=0, uncorrected_ecc=0)


def test_cards_are_polled(watched: Watched) -> None:
    """Each of them, again and again."""
    for index in (0, 1, 0, 1):
        assert watched.until(fine(index))


def sent(hardware: FakeHardware, index: int, xid: int) -> Callable[[Event], bool]:
    """Sends it until it arrives: NVML delivers none from before the registration."""

    def arrived(event: Event) -> bool:
        hardware.event(fake_gpus.uuid(index), xid, gi=3, ci=0)
        return event == Xid(fake_gpus.uuid(index), xid, 3, 0)

    return arrived


def test_an_xid_arrives(hardware: FakeHardware, watched: Watched) -> None:
    """With the instance it concerns."""
    assert watched.until(sent(hardware, 1, 48))


def test_a_card_that_comes_is_listened_to(hardware: FakeHardware, driver: Driver) -> None:
    """It was not there when the others were registered."""
    hardware.cards[1].lost = True
    hardware.apply()
    running = Watched(driver)
    assert running.until(sent(hardware, 0, 13))
    hardware.cards[1].lost = False
    hardware.apply()
    assert running.until(sent(hardware, 1, 31))
    running.watch.stop()


def test_a_wait_that_failed_is_begun_anew(hardware: FakeHardware, driver: Driver) -> None:
    """And every card is asked meanwhile, out of turn."""
    running = Watched(driver, poll_interval_s=600)
    assert running.until(fine(1))
    hardware.fault("nvmlEventSetWait_v2", 15)
    assert running.until(dataclasses.replace(fine(1), regular=False))
    hardware.heal()
    arrived = sent(hardware, 0, 31)

    def nudged(event: Event) -> bool:
        running.watch.ask()  # without polls nothing would come until the XID does
        return arrived(event)

    running.watch.ask()
    assert running.until(nudged)
    running.watch.stop()


def test_a_lost_card_is_reported_and_the_other_goes_on(
    hardware: FakeHardware, watched: Watched
) -> None:
    """The lost one keeps the name it had."""
    assert watched.until(fine(1))
    hardware.cards[0].lost = True
    hardware.apply()
    assert watched.until(Poll(fake_gpus.uuid(0), lost="handle of GPU 0: GPU is lost (15)"))
    assert watched.until(fine(1))


def test_a_hanging_card_is_reported_and_the_other_goes_on(
    hardware: FakeHardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is fine again when it answers."""
    running = Watched(fake_gpus.use(hardware, monkeypatch, fake_gpus.HASTY_S))
    assert running.until(fine(1))
    hardware.fault("nvmlDeviceGetFieldValues", None, fake_gpus.uuid(0))
    assert running.until(lambda e: isinstance(e, Poll) and bool(e.error))
    assert running.until(fine(1))
    hardware.heal()
    assert running.until(fine(0))
    running.watch.stop()


def test_a_driver_that_does_not_answer_is_reported_for_each_card(
    hardware: FakeHardware, watched: Watched
) -> None:
    """Nobody is healthy by silence."""
    assert watched.until(fine(1))
    hardware.fault("nvmlDeviceGetCount_v2", 999)
    for index in (0, 1):
        assert watched.until(
            Poll(fake_gpus.uuid(index), error="device count: Unknown Error (999)")
        )


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlEventSetWait_v2"])
def test_polls_go_on_where_events_do_not_work(
    hardware: FakeHardware, driver: Driver, function: str
) -> None:
    """Events are a gift of newer drivers; the polls need none."""
    hardware.fault(function, 3)
    running = Watched(driver)
    assert running.until(fine(0))
    assert running.until(fine(1))
    running.watch.stop()


def test_values_a_card_does_not_know_are_left_out(hardware: FakeHardware, driver: Driver) -> None:
    """A card without ECC or recovery action is no sick card."""
    hardware.cards[0].recovery_action = None
    hardware.cards[0].ecc_uncorrected = None
    hardware.cards[0].remap_pending = None
    hardware.apply()
    found = health_watch.poll(driver.device(0), "x")
    assert found == Poll("x")


def test_repairs_are_seen(hardware: FakeHardware, driver: Driver) -> None:
    """Pending and failed row remaps, the recovery action, the error counter."""
    hardware.cards[0].recovery_action = 4
    hardware.cards[0].ecc_uncorrected = 12
    hardware.cards[0].remap_pending = True
    hardware.cards[0].remap_failure = True
    hardware.apply()
    assert health_watch.poll(driver.device(0), "x") == Poll(
        "x", recovery_action=4, repair_pending=True, repair_failed=True, uncorrected_ecc=12
    )


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (
            nvml.RawEvent("G", nvml.EVENT_XID, 79, nvml.WHOLE_CARD, nvml.WHOLE_CARD),
            Xid("G", 79),
        ),
        (nvml.RawEvent("G", nvml.EVENT_XID, 154, nvml.WHOLE_CARD, nvml.WHOLE_CARD), None),
        (nvml.RawEvent("", nvml.EVENT_XID, 79, 0, 0), None),
        (nvml.RawEvent("G", nvml.EVENT_DOUBLE_BIT_ECC, 1, 0, 0), None),
        (
            nvml.RawEvent("G", nvml.EVENT_FATAL_POISON, 0, 0, 0),
            Fault("G", "fatal memory poison"),
        ),
    ],
)
def test_events_of_nvml_are_events_of_health(raw: nvml.RawEvent, event: Event | None) -> None:
    """What names no card, or no fault, only makes the watch ask."""
    assert health_watch.translate(raw) == event
