"""Use of the cards by pods, from fake cards and fake processes."""

import pathlib

import pytest

from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup_paths import Member
from gpu_fraction.node_daemon.isolation.usage import CardUsage, ContainerUse, UsageReader
from gpu_fraction.sandbox.nvml.hardware import FakeHardware, FakeProcess
from tests.support import fake_gpus

ONE, TWO = fake_gpus.uuid(0), fake_gpus.uuid(1)
POD = "3f2e1d0c-aaaa-bbbb-cccc-0123456789ab"
MAIN, SIDE = "a" * 64, "b" * 64
MIB = 1 << 20


@pytest.fixture
def proc(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two processes of one container, one of another, one of the host."""
    places = {
        10: f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-{MAIN}.scope",
        11: f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-{MAIN}.scope",
        12: f"0::/kubepods/burstable/pod{POD}/{SIDE}",
        13: "0::/system.slice/nvidia-mps.service",
    }
    for pid, place in places.items():
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/cgroup").write_text(place + "\n")
    return tmp_path / "proc"


def test_memory_and_utilisation_are_summed_by_container(
    hardware: FakeHardware, driver: Driver, proc: pathlib.Path
) -> None:
    """Processes in no pod, and those that have ended, are counted apart."""
    hardware.cards[0].used_mib = 1500
    hardware.machine.processes[ONE] = [
        FakeProcess(pid=10, memory_mib=100, sm=30, mem=10),
        FakeProcess(pid=11, memory_mib=200, sm=20, mem=5),
        FakeProcess(pid=12, memory_mib=300),
        FakeProcess(pid=13, memory_mib=50, sm=1),
        FakeProcess(pid=99, memory_mib=7),
    ]
    hardware.apply()
    [card] = UsageReader(driver, proc).read([ONE])
    assert card == CardUsage(
        ONE,
        (1500 + 600) * MIB,
        {
            Member(POD, MAIN): ContainerUse(300 * MIB, 50),
            Member(POD, SIDE): ContainerUse(300 * MIB, None),
        },
        ContainerUse(57 * MIB, 1),
    )


def test_a_sample_is_used_once(hardware: FakeHardware, driver: Driver, proc: pathlib.Path) -> None:
    """A process that has stopped working does not keep its last utilisation."""
    hardware.machine.processes[ONE] = [FakeProcess(pid=10, memory_mib=1, sm=80, time_us=5)]
    hardware.apply()
    reader = UsageReader(driver, proc)
    used = [reader.read([ONE])[0].by[Member(POD, MAIN)].sm_percent for _ in range(2)]
    assert used == [80, None]
    hardware.machine.processes[ONE] = [FakeProcess(pid=10, memory_mib=1, sm=70, time_us=6)]
    hardware.apply()
    assert reader.read([ONE])[0].by[Member(POD, MAIN)].sm_percent == 70


def test_a_mig_instance_has_memory_and_no_utilisation(
    hardware: FakeHardware, driver: Driver, proc: pathlib.Path
) -> None:
    """NVML has no samples there."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=1)
    name = fake_gpus.mig_uuid(0, 0)
    hardware.machine.processes[name] = [FakeProcess(pid=10, memory_mib=100, sm=30)]
    hardware.apply()
    [card] = UsageReader(driver, proc).read([name])
    assert card.by == {Member(POD, MAIN): ContainerUse(100 * MIB, None)}


@pytest.mark.parametrize("code", [999, 15, None])
def test_a_card_that_fails_or_hangs_does_not_hide_another(
    hardware: FakeHardware, hasty: Driver, proc: pathlib.Path, code: int | None
) -> None:
    """It says why, the other one is read."""
    hardware.machine.processes[TWO] = [FakeProcess(pid=12, memory_mib=3)]
    hardware.fault("nvmlDeviceGetComputeRunningProcesses_v3", code, ONE)
    bad, good = UsageReader(hasty, proc).read([ONE, TWO])
    assert bad.error
    assert good.by == {Member(POD, SIDE): ContainerUse(3 * MIB, None)}


def test_utilisation_never_exceeds_the_card(
    hardware: FakeHardware, driver: Driver, proc: pathlib.Path
) -> None:
    """Samples of several processes overlap in time."""
    hardware.machine.processes[ONE] = [
        FakeProcess(pid=10, memory_mib=1, sm=90),
        FakeProcess(pid=11, memory_mib=1, sm=90),
    ]
    hardware.apply()
    [card] = UsageReader(driver, proc).read([ONE])
    assert card.by[Member(POD, MAIN)].sm_percent == 100
