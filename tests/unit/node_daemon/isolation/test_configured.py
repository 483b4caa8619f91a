"""The engines that the node's settings name, and what they leave behind."""

import os
import pathlib
from typing import get_args

import pytest

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup_paths import PodCgroups
from gpu_fraction.node_daemon.isolation.configured import (
    MODES,
    ConfiguredIsolation,
    EngineName,
    IsolationSettings,
    MpsStart,
)
from gpu_fraction.node_daemon.isolation.engine import CardFacts
from gpu_fraction.node_daemon.state.errors import EngineFailedError
from gpu_fraction.sandbox.nvml.hardware import FakeHardware
from gpu_fraction.settings.declaration import options_of
from gpu_fraction.settings.option import SettingsError, load, print_config, read_file
from tests.support import fake_gpus
from tests.support.fake_gpus import bound
from tests.support.settings import configured
from tests.unit.node_daemon.isolation.conftest import Mps

GOLDEN = pathlib.Path(__file__).parents[3] / "data" / "formats" / "0.1.0"
ONE, TWO = fake_gpus.uuid(0), fake_gpus.uuid(1)
CARDS = (CardFacts(ONE, 0, 80959, (9, 0)), CardFacts(TWO, 1, 80959, (9, 0)))


def modes(driver: Driver) -> list[int]:
    """The compute modes of both cards."""
    return [driver.device(i).compute_mode() for i in (0, 1)]


def assess(mps: Mps, driver: Driver, *engines: EngineName) -> None:
    """Start a node daemon with these engines, as far as its first look at the cards."""
    settings = IsolationSettings(engines, mps_dir=mps.pipe, mps_start="here")
    isolation = ConfiguredIsolation(settings, mps.directory / "state", PodCgroups(mps.directory))
    isolation.assess(CARDS, driver)


def test_cards_that_leave_mps_get_their_compute_mode_back(
    mps: Mps, driver: Driver, monkeypatch: pytest.MonkeyPatch
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


def test_a_card_is_given_back_where_mps_is_refused(
    mps: Mps, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is published as shared without limits, and then more than one container must run.

    Not where MPS served it in this daemon's life: containers go on waiting for that.
    """
    monkeypatch.setenv("PATH", f"{mps.directory}:{os.environ['PATH']}")
    settings = IsolationSettings(("mps",), mps_dir=mps.pipe, mps_start="here")
    exclusive, default = nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS, nvml.COMPUTE_MODE_DEFAULT
    first = ConfiguredIsolation(settings, mps.directory / "state", PodCgroups(mps.directory))
    first.assess(CARDS, driver)
    mps.kill()
    mps.binary.unlink()
    first.assess(CARDS, driver)
    assert modes(driver) == [exclusive, exclusive]
    again = ConfiguredIsolation(settings, mps.directory / "state", PodCgroups(mps.directory))
    assert again.assess(CARDS, driver)[ONE].name == "none"
    assert modes(driver) == [default, default]


def test_a_mode_that_was_changed_by_hand_meanwhile_stays(driver: Driver, mps: Mps) -> None:
    """It is no longer the one that was set here."""
    prohibited = 2
    mps.modes(driver).claim(ONE)
    driver.device(0).set_compute_mode(prohibited)
    mps.modes(driver).release([ONE])
    assert modes(driver)[0] == prohibited


def test_the_record_of_0_1_0_is_read(driver: Driver, mps: Mps) -> None:
    """A later release gives back what that one changed (docs/formats.md)."""
    record = mps.directory / "state" / "mps" / MODES
    record.parent.mkdir(parents=True)
    record.write_text((GOLDEN / "compute-modes.json").read_text().replace("GPU-0", ONE))
    driver.device(0).set_compute_mode(nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS)
    mps.modes(driver).release([ONE])
    assert modes(driver)[0] == nvml.COMPUTE_MODE_DEFAULT


def test_a_card_that_cannot_be_given_back_is_tried_again(
    mps: Mps, driver: Driver, hardware: FakeHardware
) -> None:
    """Its claim is remembered until then."""
    mps.modes(driver).claim(ONE)
    hardware.fault("nvmlDeviceSetComputeMode", 999, ONE)
    mps.modes(driver).release([ONE])
    assert modes(driver)[0] == nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS
    hardware.heal()
    mps.modes(driver).release([ONE])
    assert modes(driver)[0] == nvml.COMPUTE_MODE_DEFAULT


def test_a_card_is_not_claimed_where_that_cannot_be_remembered(mps: Mps, driver: Driver) -> None:
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


def test_a_record_that_cannot_be_read_gives_nothing_back(mps: Mps, driver: Driver) -> None:
    """The daemon lives without it, and does so once it can be read again."""
    mps.modes(driver).claim(ONE)
    record = mps.directory / "state" / "mps" / MODES
    kept = record.rename(record.with_suffix(".kept"))
    record.mkdir()
    modes_of_daemon = mps.modes(driver)
    modes_of_daemon.release([ONE])
    assert modes(driver)[0] == nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS
    record.rmdir()
    kept.rename(record)
    modes_of_daemon.release([ONE])
    assert modes(driver)[0] == nvml.COMPUTE_MODE_DEFAULT


def test_cards_are_set_to_exclusive_process(
    mps: Mps, driver: Driver, hardware: FakeHardware
) -> None:
    """So that nobody gets a context beside MPS; a card that refuses is unfit."""
    hardware.fault("nvmlDeviceSetComputeMode", 4, TWO)
    assert list(mps.engine(driver).probe(CARDS)) == [TWO]
    assert modes(driver) == [nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS, nvml.COMPUTE_MODE_DEFAULT]


def test_who_starts_the_daemon_is_a_setting(
    mps: Mps, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody here, or this daemon within its own container."""
    monkeypatch.setenv("PATH", f"{mps.directory}:{os.environ['PATH']}")
    starts: tuple[tuple[MpsStart, str], ...] = (("never", "none"), ("here", "mps"))
    for start, engine in starts:
        settings = IsolationSettings(("mps",), mps_dir=mps.pipe, mps_start=start)
        isolation = ConfiguredIsolation(
            settings, mps.directory / "state", PodCgroups(mps.directory)
        )
        assert isolation.assess(CARDS, driver)[ONE].name == engine
        assert bool(mps.pid) is (start == "here")


def test_shared_memory_is_that_of_a_daemon_that_is_started_on_the_host(
    mps: Mps, driver: Driver, hardware: FakeHardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody mounts the directory otherwise: containers would not start, or share it with none."""
    monkeypatch.setenv("PATH", f"{mps.directory}:{os.environ['PATH']}")
    hardware.machine.driver = "580.95.05"
    hardware.apply()
    mps.daemon(2).ensure([ONE])
    for start in get_args(MpsStart):
        settings = IsolationSettings(
            ("mps",),
            mps_dir=mps.pipe,
            mps_start=start,
            mps_shm_dir=mps.directory / "shm",
        )
        isolation = ConfiguredIsolation(
            settings, mps.directory / "state", PodCgroups(mps.directory)
        )
        isolation.assess(CARDS, driver)
        isolation.restore([])
        mounts = isolation.prepare(bound("u", "c", (CardShare(ONE, 250, 8000),))).mounts
        places = [mount["containerPath"] for mount in mounts]
        assert ("/dev/shm" in places) is (start == "host")


def test_cards_can_have_engines_of_their_own_by_setting() -> None:
    """And the setting can be written down as it is printed."""
    given = f"{ONE}=mps+cgroup, {TWO}="
    settings = configured(IsolationSettings, isolation="cgroup", isolation_cards=given)
    assert settings.cards == {ONE: ("mps", "cgroup"), TWO: ()}
    assert settings.engines == ("cgroup",)
    options = options_of(IsolationSettings)
    values = load(options, flags={"isolation_cards": given}, environ={}, file={})
    printed = read_file(print_config(values), "printed")
    again = load(options, flags={}, environ={}, file=printed)
    assert again["isolation_cards"].value == values["isolation_cards"].value


@pytest.mark.parametrize(
    "given", ["mps", "=mps", f"{ONE}=mig", f"{ONE}=mps+mps", f"{ONE}=mps,{ONE}="]
)
def test_a_list_of_cards_that_cannot_be_meant_is_refused(given: str) -> None:
    """With what is allowed."""
    with pytest.raises(SettingsError, match="allowed: "):
        configured(IsolationSettings, isolation_cards=given)


def test_each_card_gets_the_engine_that_is_configured_for_it(
    mps: Mps, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPS takes no card that it was not given, and gives back one that it has no more."""
    monkeypatch.setenv("PATH", f"{mps.directory}:{os.environ['PATH']}")
    mps.modes(driver).claim(TWO)
    settings = IsolationSettings((), {ONE: ("mps",)}, mps_dir=mps.pipe, mps_start="here")
    isolation = ConfiguredIsolation(settings, mps.directory / "state", PodCgroups(mps.directory))
    found = isolation.assess(CARDS, driver)
    assert [found[uuid].name for uuid in (ONE, TWO)] == ["mps", "none"]
    exclusive, default = nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS, nvml.COMPUTE_MODE_DEFAULT
    assert modes(driver) == [exclusive, default]


def test_limits_that_were_lost_are_set_again_with_the_next_look(
    driver: Driver, hardware: FakeHardware, tmp_path: pathlib.Path
) -> None:
    """A reset of a card takes them from pods that live; a driver that refuses stops nothing."""
    pod = tmp_path / "cgroup/kubepods/pod3f2e1d0c-aaaa-bbbb-cccc-0123456789ab"
    pod.mkdir(parents=True)
    (tmp_path / "cgroup/cgroup.controllers").write_text("")
    isolation = ConfiguredIsolation(
        IsolationSettings(("cgroup",)), tmp_path, PodCgroups(tmp_path / "cgroup")
    )
    isolation.assess(CARDS, driver)
    isolation.restore([])
    isolation.prepare(bound(pod.name.removeprefix("pod"), "main", (CardShare(ONE, 0, 8000),)))
    driver.device(0).set_memory_limits(str(pod), 0, nvml.UNLIMITED)
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 999)
    assert isolation.assess(CARDS, driver)[ONE].name == "cgroup"
    hardware.heal()
    isolation.assess(CARDS, driver)
    assert driver.device(0).memory_limits(str(pod)).hard == 8000 << 20
