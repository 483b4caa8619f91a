"""NVML through lanes: one failing or hanging card stops itself alone."""

import pathlib
import threading

import pytest

from gpu_fraction.node_daemon.cards import nvml, nvml_driver
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.cards.nvml_lane import Lane, LaneTimeoutError
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeHardware, FakeProcess
from tests.support import fake_gpus


def test_no_driver_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver is not loaded, opening it says so."""
    fake_gpus.plug_in(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(nvml.NvmlUnavailableError):
        nvml_driver.open_driver(1.0)


def test_a_driver_that_was_loaded_anew_must_be_opened_again(
    hardware: FakeHardware, driver: Driver
) -> None:
    """While it is away opening fails, and may be tried again; then all answers as before."""
    device = driver.device(0)
    hardware.unload()
    with pytest.raises(nvml.NvmlUnavailableError):
        driver.reopen()
    hardware.load()
    with pytest.raises(nvml.NvmlUnavailableError):
        driver.count()
    driver.reopen()
    hardware.unload()
    hardware.load()
    with pytest.raises(nvml.NvmlUnavailableError, match=r"\(1\)"):
        driver.count()
    driver.reopen()
    assert (driver.count(), device.uuid()) == (2, fake_gpus.uuid(0))


def test_a_hanging_call_ends_by_its_deadline_and_stops_its_card_alone(
    hardware: FakeHardware, hasty: Driver
) -> None:
    """The second call on a hung card fails at once, the other card answers all the while."""
    first, second = hasty.device(0), hasty.device(1)
    hardware.fault("nvmlDeviceGetName", None, fake_gpus.uuid(0))
    with pytest.raises(nvml.NvmlTimeoutError, match="did not return within"):
        first.name()
    with pytest.raises(nvml.NvmlTimeoutError, match="has not returned"):
        first.uuid()
    assert second.name() == "NVIDIA H100 80GB HBM3"


def test_a_hung_card_answers_again_when_the_call_returns(
    hardware: FakeHardware, hasty: Driver
) -> None:
    """A lane is free again once its stuck call came back."""
    device = hasty.device(0)
    hardware.fault("nvmlDeviceGetName", None, fake_gpus.uuid(0))
    with pytest.raises(nvml.NvmlTimeoutError):
        device.name()
    hardware.heal()

    def answers() -> bool:
        try:
            return device.uuid() == fake_gpus.uuid(0)
        except nvml.NvmlTimeoutError:
            return False

    assert fake_gpus.eventually(answers)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (3, nvml.NvmlUnsupportedError),
        (4, nvml.NvmlDeniedError),
        (6, nvml.NvmlNotFoundError),
        (13, nvml.NvmlUnsupportedError),
        (15, nvml.NvmlCardLostError),
        (16, nvml.NvmlCardLostError),
        (18, nvml.NvmlUnavailableError),
        (999, nvml.NvmlError),
        (12345, nvml.NvmlError),
    ],
)
def test_return_codes_become_the_error_tree(
    hardware: FakeHardware, driver: Driver, code: int, error: type[nvml.NvmlError]
) -> None:
    """Each of NVML's codes is one of our errors and keeps its number."""
    device = driver.device(0)
    hardware.fault("nvmlDeviceGetName", code)
    with pytest.raises(error) as caught:
        device.name()
    assert (type(caught.value), caught.value.code) == (error, code)


def test_memory_limits_are_set_read_and_end_with_their_cgroup(
    driver: Driver, tmp_path: pathlib.Path
) -> None:
    """The R615 calls: bytes, per cgroup; a cgroup made again has no limit."""
    cgroup = tmp_path / "pod1"
    cgroup.mkdir()
    device = driver.device(0)
    unset = nvml.MemoryLimits(0, nvml.UNLIMITED, 0)
    assert device.memory_limits(str(cgroup)) == unset
    device.set_memory_limits(str(cgroup), 0, 8 << 30)
    assert device.memory_limits(str(cgroup)) == nvml.MemoryLimits(0, 8 << 30, 0)
    assert driver.device(1).memory_limits(str(cgroup)) == unset
    cgroup.rename(tmp_path / "gone")
    cgroup.mkdir()
    assert device.memory_limits(str(cgroup)) == unset


@pytest.mark.parametrize("version", ["610.40.01", "550.54.15"])
def test_older_drivers_have_no_memory_limits(
    hardware: FakeHardware, driver: Driver, tmp_path: pathlib.Path, version: str
) -> None:
    """Before R615 the function is not in the library."""
    hardware.machine.driver = version
    hardware.apply()
    with pytest.raises(nvml.NvmlUnsupportedError):
        driver.device(0).set_memory_limits(str(tmp_path), 0, 1)


def test_processes_of_both_lists_are_one_entry_a_pid(
    hardware: FakeHardware, driver: Driver
) -> None:
    """An MPS client that stands in both of NVML's lists is counted once."""
    hardware.machine.processes[fake_gpus.uuid(0)] = [
        FakeProcess(pid=10, memory_mib=100),
        FakeProcess(pid=11, memory_mib=200),
        FakeProcess(pid=11, memory_mib=200, kind="mps"),
        FakeProcess(pid=12, memory_mib=300, kind="mps"),
    ]
    hardware.apply()
    found = {p.pid: p.memory >> 20 for p in driver.device(0).processes()}
    assert found == {10: 100, 11: 200, 12: 300}


def test_samples_are_the_newest_of_each_process(hardware: FakeHardware, driver: Driver) -> None:
    """Of several samples of a pid the last counts, and none from before the given time."""
    hardware.machine.processes[fake_gpus.uuid(0)] = [
        FakeProcess(pid=10, memory_mib=1, sm=90, time_us=5),
        FakeProcess(pid=10, memory_mib=1, sm=40, mem=7, time_us=9),
        FakeProcess(pid=11, memory_mib=1, sm=10, time_us=3),
    ]
    hardware.apply()
    assert driver.device(0).samples(4) == (nvml.Sample(10, 9, 40),)
    assert driver.device(0).samples(9) == ()


def test_a_mig_instance_is_found_by_name(hardware: FakeHardware, driver: Driver) -> None:
    """Lookup by UUID knows instances, passes over cards that do not answer, and says no."""
    hardware.cards[:] = [fake_gpus.whole_card(0, lost=True), fake_gpus.mig_card(1, instances=3)]
    hardware.apply()
    found = driver.device_by_uuid(fake_gpus.mig_uuid(1, 2))
    assert found.place() == nvml.InstancePlace(gpu_instance=3, compute_instance=0, slices=1)
    with pytest.raises(nvml.NvmlNotFoundError):
        driver.device_by_uuid(fake_gpus.uuid(0))


def test_events_reach_those_who_watch_the_card(hardware: FakeHardware, driver: Driver) -> None:
    """Only registered kinds and cards are delivered, and only what came after."""
    hardware.event(fake_gpus.uuid(0), 13)
    watch = driver.watch([driver.device(0)], nvml.EVENT_XID)
    assert watch.wait(0.01) is None
    hardware.event(fake_gpus.uuid(1), 79)
    hardware.event(fake_gpus.uuid(0), 1, kind=0x1)
    hardware.event(fake_gpus.uuid(0), 48, gi=2, ci=1)
    assert watch.wait(2) == nvml.RawEvent(fake_gpus.uuid(0), nvml.EVENT_XID, 48, 2, 1)
    assert watch.wait(0.01) is None
    watch.close()


def test_a_watch_does_not_outlive_the_driver_it_was_made_on(
    hardware: FakeHardware, driver: Driver
) -> None:
    """Its event set went with that driver: another call with it could crash the process."""
    old = driver.watch([driver.device(0)], nvml.EVENT_XID)
    driver.reopen()
    hardware.event(fake_gpus.uuid(0), 79)
    with pytest.raises(nvml.NvmlUnavailableError, match="opened anew"):
        old.wait(0.01)
    old.close()
    assert driver.watch([driver.device(0)], nvml.EVENT_XID).wait(0.01) is None


def test_a_card_that_cannot_be_watched_is_named_and_the_others_are_watched(
    hardware: FakeHardware, hasty: Driver
) -> None:
    """Registration hangs on one card: that one is in ``unwatched``, events of the other come."""
    devices = [hasty.device(0), hasty.device(1)]
    hardware.fault("nvmlDeviceRegisterEvents", None, fake_gpus.uuid(0))
    watch = hasty.watch(devices, nvml.EVENT_XID)
    assert list(watch.unwatched) == [0]
    hardware.event(fake_gpus.uuid(1), 79)
    event = watch.wait(2)
    assert event is not None
    assert (event.uuid, event.data) == (fake_gpus.uuid(1), 79)


def test_calls_on_a_lane_never_overlap() -> None:
    """Two threads that use one lane are served one after the other."""
    lane = Lane("test")
    inside, most = [0], [0]

    def work() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.002)
        inside[0] -= 1

    threads = [
        threading.Thread(target=lambda: [lane.call("work", work, 5) for _ in range(10)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_call_that_only_waited_its_turn_does_not_block_the_lane() -> None:
    """A caller that gives up while queued is passed over, and the lane is not called stuck."""
    lane = Lane("test")
    gate, ran = threading.Event(), list[str]()
    slow = threading.Thread(target=lambda: lane.call("slow", lambda: gate.wait(5), 5))
    slow.start()
    with pytest.raises(LaneTimeoutError):
        lane.call("queued", lambda: ran.append("queued"), 0.02)
    assert lane.stuck == ""
    gate.set()
    slow.join()
    lane.call("next", lambda: ran.append("next"), 5)
    assert ran == ["next"]


def test_errors_of_the_call_reach_the_caller() -> None:
    """An error inside the lane's thread is raised where the call was made, a timeout too."""
    lane = Lane("test")

    def fail() -> None:
        raise TimeoutError("of the function itself")

    with pytest.raises(TimeoutError, match="of the function itself"):
        lane.call("fail", fail, 5)
