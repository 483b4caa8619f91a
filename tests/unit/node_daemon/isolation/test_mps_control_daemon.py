"""The MPS control daemon: its start outside the container, and how it is found again."""

import os
import pathlib
import signal
from collections.abc import Callable

import pytest

from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.engine import Resource
from gpu_fraction.node_daemon.isolation.host_process import GROUP, HostProcess
from gpu_fraction.node_daemon.isolation.mps import MpsEngine
from gpu_fraction.node_daemon.isolation.mps_control import MpsControl, MpsVersion
from gpu_fraction.node_daemon.isolation.mps_daemon import PID_FILE, MpsDaemon
from gpu_fraction.node_daemon.isolation.mps_namespaces import MpsNamespaceEngine
from gpu_fraction.node_daemon.state.errors import EngineFailedError
from tests.unit.node_daemon.isolation.conftest import Mps, running
from tests.unit.node_daemon.isolation.mps_parts import CARDS, ONE, TWO, limits, name, part

PID_MAX = 1 << 22
"""No process has a greater id. Source: proc(5), pid_max."""


def test_the_control_daemon_outlives_the_node_daemon(mps: Mps, driver: Driver) -> None:
    """A fresh engine finds the same process, and the namespaces are still there."""
    engine, one = mps.engine(driver), part()
    engine.probe(CARDS)
    engine.prepare(one)
    pid = mps.pid
    again = mps.engine(driver)
    assert again.probe(CARDS) == {}
    assert mps.pid == pid
    assert limits(mps) == {name(one): (8000, 25.0)}
    assert os.getsid(pid) != os.getsid(0)


def test_version_2_looks_for_its_daemon_after_a_restart(mps: Mps, driver: Driver) -> None:
    """Started again where it is gone and somebody needs it; shared memory where configured."""
    shm = mps.directory / "shm"
    engine = MpsEngine(mps.modes(driver), mps.control(2), mps.daemon(2), shm)
    engine.probe(CARDS)
    mps.kill()
    engine.restore([], set())
    assert not running(mps.pid)
    engine.restore([part()], {part().binding.tag})
    assert running(mps.pid)
    engine.release(part().binding)
    assert engine.loophole(Resource.MEMORY, part().binding) == ""
    places = {m["containerPath"]: m["hostPath"] for m in engine.edits(part()).mounts}
    assert places["/dev/shm"] == str(shm)


def test_a_daemon_that_does_not_answer_keeps_containers_from_starting(
    mps: Mps, driver: Driver
) -> None:
    """It is not killed: that would end its clients."""
    mps.engine(driver).probe(CARDS)
    pid = mps.pid
    mps.fail("hang")
    hasty = mps.control(timeout_s=0.3)
    engine = MpsNamespaceEngine(
        mps.modes(driver), hasty, MpsDaemon(hasty, mps.directory / "state")
    )
    assert set(engine.probe(CARDS)) == {ONE, TWO}
    with pytest.raises(EngineFailedError, match="does not answer"):
        engine.prepare(part())
    assert running(pid)


def test_a_stale_pid_file_is_no_daemon(mps: Mps, driver: Driver) -> None:
    """Its number may belong to any program by now."""
    mps.pipe.mkdir()
    (mps.pipe / PID_FILE).write_text(f"{os.getpid()}\n")
    (mps.pipe / "control").write_text("not a socket")
    assert mps.engine(driver).probe(CARDS) == {}
    assert mps.pid != os.getpid()


def pipe_without_writer(path: pathlib.Path, _pid: int) -> None:
    """Whoever opens it to read waits."""
    os.mkfifo(path)


def link(path: pathlib.Path, pid: int) -> None:
    """It leads out of the directory, here to what would do."""
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_text(f"{pid}\n")
    path.symlink_to(elsewhere)


def long_file(path: pathlib.Path, pid: int) -> None:
    """It begins as a pid file does, but has no end to speak of."""
    path.write_text(f"{' ' * 100}{pid}\n")


FORGERIES = pytest.mark.parametrize("forge", [pipe_without_writer, link, long_file])


@pytest.mark.timeout(20)
@FORGERIES
def test_a_forged_pid_file_does_not_hide_the_daemon(
    mps: Mps, driver: Driver, forge: Callable[[pathlib.Path, int], None]
) -> None:
    """Version 2 containers may write beside it; which process it is, is remembered elsewhere."""
    engine = mps.engine(driver, 2)
    engine.probe(CARDS)
    pid = mps.pid
    (mps.pipe / PID_FILE).unlink()
    forge(mps.pipe / PID_FILE, os.getpid())
    try:
        assert mps.engine(driver, 2).probe(CARDS) == {}
        engine.prepare(part())
        recorded = mps.daemon(2).recorded()
        assert recorded is not None
        assert recorded.pid == pid
        assert running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        (mps.pipe / PID_FILE).unlink()


@pytest.mark.timeout(20)
@FORGERIES
def test_only_a_short_plain_file_is_a_pid_file(
    mps: Mps, driver: Driver, forge: Callable[[pathlib.Path, int], None]
) -> None:
    """Anything else is taken away where a daemon is started, and not opened before."""
    MpsDaemon(mps.control(2), mps.directory / "other-state").ensure([ONE, TWO])
    first = mps.pid
    (mps.pipe / PID_FILE).unlink()
    forge(mps.pipe / PID_FILE, first)
    try:
        assert mps.engine(driver, 2).probe(CARDS) == {}
        assert mps.pid not in {0, first}
        assert not (mps.pipe / PID_FILE).is_symlink()
    finally:
        os.kill(first, signal.SIGKILL)
        if (mps.pipe / PID_FILE).is_fifo():
            (mps.pipe / PID_FILE).unlink()


@pytest.mark.parametrize(
    ("group", "started"),
    [("gpu-fraction-mps", False), ("kubepods/pod3f2e1d0c-aaaa-bbbb-cccc-0123456789ab/c", True)],
)
def test_a_pods_process_is_not_the_hosts_daemon(
    mps: Mps, machine: Callable[..., HostProcess], group: str, *, started: bool
) -> None:
    """It may have the program's name, end the daemon and write its own id in the pid file.

    The host's, where it does not answer, is waited for: its clients run.
    """
    proc, other = mps.directory / "proc", PID_MAX + 1
    seen = proc / str(other)
    seen.mkdir(parents=True)
    (seen / "cmdline").write_text(f"{mps.binary}\0-d\0")
    (seen / "stat").write_text(f"{other} (mps) S " + "1 " * 40)
    (seen / "cgroup").write_text(f"0::/{group}\n")
    mps.pipe.mkdir()
    (mps.pipe / PID_FILE).write_text(f"{other}\n")
    host = machine()
    daemon = MpsDaemon(mps.control(2), mps.directory / "state", host=host, proc=proc)
    try:
        if started:
            assert daemon.ensure([ONE])
            assert running(mps.pid)
        else:
            with pytest.raises(EngineFailedError, match=f"pid {other}.* does not answer"):
                daemon.ensure([ONE])
    finally:
        if mps.pid == other:
            (mps.pipe / PID_FILE).unlink()


def test_what_cannot_be_taken_away_is_told(mps: Mps, driver: Driver) -> None:
    """A directory in the socket's place keeps containers of these cards from starting."""
    (mps.pipe / "control").mkdir(parents=True)
    assert "control" in mps.engine(driver, 2).probe(CARDS)[ONE]


def test_a_daemon_of_somebody_else_is_used_and_none_is_started(mps: Mps, driver: Driver) -> None:
    """Where a container of its own runs it, this daemon only looks for it."""
    waiting = MpsDaemon(mps.control(), mps.directory / "state", may_start=False)
    engine = MpsNamespaceEngine(mps.modes(driver), mps.control(), waiting)
    assert set(engine.probe(CARDS)) == {ONE, TWO}
    assert mps.pid == 0
    MpsDaemon(mps.control(), mps.directory / "elsewhere").ensure([ONE, TWO])
    assert engine.probe(CARDS) == {}


def test_the_daemon_is_started_outside_the_container(
    mps: Mps, machine: Callable[..., HostProcess]
) -> None:
    """In a control group of the host; the end of the container's would be its end."""
    outside = machine()
    daemon = mps.daemon(host=outside)
    assert daemon.ensure([ONE]) is True
    assert (outside.cgroups / GROUP / "cgroup.procs").read_text().strip().isdigit()
    assert daemon.ensure([ONE]) is False
    assert daemon.cards() == (ONE,)


def test_what_the_program_says_of_a_failed_start_is_told(
    mps: Mps, machine: Callable[..., HostProcess], driver: Driver
) -> None:
    """Here the way out is barred; nothing runs then, and no container starts on the cards."""
    outside = machine()
    (outside.cgroups / GROUP / "cgroup.procs").mkdir(parents=True)
    daemon = mps.daemon(host=outside)
    engine = MpsNamespaceEngine(mps.modes(driver), mps.control(), daemon)
    assert "Is a directory" in engine.probe(CARDS)[ONE]
    assert mps.pid == 0


def test_a_program_that_is_missing_or_fails_is_told(mps: Mps) -> None:
    """With the program's name, or what it said."""
    missing = MpsControl(mps.pipe, 3, str(mps.directory / "nothing"))
    with pytest.raises(EngineFailedError, match="nothing"):
        MpsDaemon(missing, mps.directory / "state").ensure([ONE])
    with pytest.raises(EngineFailedError, match="Cannot find MPS control daemon"):
        mps.control().run_v3("server", "list")


def test_a_server_that_vanishes_keeps_containers_from_starting(mps: Mps, driver: Driver) -> None:
    """One that names a missing card is accepted and ends: clients would run without limits."""
    mps.daemon().ensure([ONE])  # started without the second card
    reasons = mps.engine(driver).probe(CARDS)
    assert set(reasons) == {ONE, TWO}
    assert "is not among" in reasons[ONE]


@pytest.mark.parametrize("protocol", [2, 3])
def test_nothing_is_started_before_the_cards_are_known(
    mps: Mps, driver: Driver, protocol: MpsVersion
) -> None:
    """A control daemon without cards would serve none for as long as it lives."""
    engine = mps.engine(driver, protocol)
    engine.restore([part()], {part().binding.tag})
    with pytest.raises(EngineFailedError, match="no card"):
        engine.prepare(part())
    assert mps.pid == 0


def test_a_pipe_directory_that_is_too_long_is_refused(mps: Mps, driver: Driver) -> None:
    """The control daemon would fail without a word, so it is not even started."""
    control = MpsControl(mps.pipe / ("x" * 80), 3, str(mps.binary))
    engine = MpsNamespaceEngine(
        mps.modes(driver), control, MpsDaemon(control, mps.directory / "state")
    )
    assert "too long" in engine.probe(CARDS)[ONE]
    assert not control.pipe.exists()
