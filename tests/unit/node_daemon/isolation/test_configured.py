"""The engines that the node's settings name, and what they leave behind."""

import os

import pytest

from node_daemon import nvml
from node_daemon.engines import MODES, ConfiguredIsolation
from node_daemon.isolation.cgroup_paths import PodCgroups
from node_daemon.isolation.engine import CardFacts
from node_daemon.isolation.errors import EngineFailedError
from node_daemon.tuning import EngineName, IsolationSettings, MpsStart
from sandbox.nvml.hardware import FakeHardware
from tests import fake_gpus
from tests.unit.node_daemon.isolation.conftest import Mps

ONE, TWO = fake_gpus.uuid(0), fake_gpus.uuid(1)
CARDS = (CardFacts(ONE, 0, 80959, (9, 0)), CardFacts(TWO, 1, 80959, (9, 0)))


def modes(driver: nvml.Driver) -> list[int]:
    """The compute modes of both cards."""
    return [driver.device(i).compute_mode() for i in (0, 1)]


def assess(mps: Mps, driver: nvml.Driver, *engines: EngineName) -> None:
    """Start a node daemon with these engines, as far as its first look at the cards."""
    settings = IsolationSettings(
        engines, state=mps.directory / "state", mps=mps.pipe, mps_start="here"
    )
    isolation = ConfiguredIsolation(settings, PodCgroups(mps.directory / "no-cgroups"))
    isolation.use(driver)
    isolation.assess(CARDS)


def test_cards_that_leave_mps_get_their_compute_mode_back(
    mps: Mps, driver: nvml.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the second container on each would get no context; a foreign choice stays."""
    monkeypatch.setenv("PATH", f"{mps.directory}:{os.environ['PATH']}")
    exclusive, default = nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS, nvml.COMPUTE_MODE_DEFAULT
    driver.device(1).set_compute_mode(exclusive)
    assess(mps, driver, "mps")
    assess(mps, driver, "mps")
    assert modes(driver) == [exclusive, exclusive]
    assess(mps, driver)
    assert modes(driver) == [default, exclusive]
    driver.device(0).set_compute_mode(exclusive)
    assess(mps, driver)
    assert modes(driver) == [exclusive, exclusive]


def test_a_mode_that_was_changed_by_hand_meanwhile_stays(driver: nvml.Driver, mps: Mps) -> None:
    """It is no longer the one that was set here."""
    prohibited = 2
    mps.modes(driver).claim(ONE)
    driver.device(0).set_compute_mode(prohibited)
    mps.modes(driver).give_back([ONE])
    assert modes(driver)[0] == prohibited


def test_a_card_that_cannot_be_given_back_is_tried_again(
    mps: Mps, driver: nvml.Driver, hardware: FakeHardware
) -> None:
    """Its claim is remembered until then."""
    mps.modes(driver).claim(ONE)
    hardware.fault("nvmlDeviceSetComputeMode", 999, ONE)
    mps.modes(driver).give_back([ONE])
    assert modes(driver)[0] == nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS
    hardware.heal()
    mps.modes(driver).give_back([ONE])
    assert modes(driver)[0] == nvml.COMPUTE_MODE_DEFAULT


def test_a_card_is_not_claimed_where_that_cannot_be_remembered(
    mps: Mps, driver: nvml.Driver
) -> None:
    """It could never be given back; a damaged record stops nothing."""
    record = mps.directory / "state" / "mps" / MODES
    record.parent.mkdir(parents=True)
    record.write_text("{")
    mps.modes(driver).claim(ONE)
    record.unlink()
    record.mkdir()
    with pytest.raises(EngineFailedError, match=r"compute mode: .*directory"):
        mps.modes(driver).claim(TWO)
    assert modes(driver)[1] == nvml.COMPUTE_MODE_DEFAULT


def test_cards_are_set_to_exclusive_process(
    mps: Mps, driver: nvml.Driver, hardware: FakeHardware
) -> None:
    """So that nobody gets a context beside MPS; a card that refuses is unfit."""
    hardware.fault("nvmlDeviceSetComputeMode", 4, TWO)
    assert list(mps.engine(driver).probe(CARDS)) == [TWO]
    assert modes(driver) == [nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS, nvml.COMPUTE_MODE_DEFAULT]


def test_who_starts_the_daemon_is_a_setting(
    mps: Mps, driver: nvml.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody here, or this daemon within its own container."""
    monkeypatch.setenv("PATH", f"{mps.directory}:{os.environ['PATH']}")
    starts: tuple[tuple[MpsStart, str], ...] = (("never", "none"), ("here", "mps"))
    for start, engine in starts:
        settings = IsolationSettings(
            ("mps",), state=mps.directory / "state", mps=mps.pipe, mps_start=start
        )
        isolation = ConfiguredIsolation(settings, PodCgroups(mps.directory / "no-cgroups"))
        isolation.use(driver)
        assert isolation.assess(CARDS)[ONE].name == engine
        assert bool(mps.pid) is (start == "here")
