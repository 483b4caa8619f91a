"""Machines as engines find them, with and without a control daemon of MPS."""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.compute_mode import ComputeModes
from gpu_fraction.node_daemon.isolation.configured import MODES
from gpu_fraction.node_daemon.isolation.host_process import HostProcess
from gpu_fraction.node_daemon.isolation.mps import MpsEngine
from gpu_fraction.node_daemon.isolation.mps_control import MpsControl, MpsVersion
from gpu_fraction.node_daemon.isolation.mps_daemon import PID_FILE, MpsDaemon
from gpu_fraction.node_daemon.isolation.mps_namespaces import MpsNamespaceEngine
from tests.support import fake_gpus


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Callable[..., HostProcess]:
    """Makes a machine whose first process is in another control group than the daemon."""

    def make(
        *present: str, first: str = "/init.scope", shm: pathlib.Path | None = None
    ) -> HostProcess:
        cgroups, proc = tmp_path / "tree", tmp_path / "proc"
        cgroups.mkdir()
        for name in present or ("cgroup.controllers",):
            (cgroups / name).write_text("")
        for process, group in (("1", first), ("self", "/kubepods/pod1/daemon")):
            (proc / process).mkdir(parents=True)
            (proc / process / "cgroup").write_text(f"0::{group}\n")
        (proc / "1/ns").mkdir()
        (proc / "1/ns/mnt").symlink_to("/proc/self/ns/mnt")
        return HostProcess(shm, cgroups, proc)

    return make


class Mps:
    """A place for a control daemon, and the program that starts it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.pipe = directory / "pipe"
        self.binary = directory / "nvidia-cuda-mps-control"
        source = pathlib.Path(__file__).parents[3] / "support" / "fake_mps_control.py"
        self.binary.write_text(f"#!{sys.executable} -IS\n{source.read_text()}")
        self.binary.chmod(0o755)
        self.failing = directory / "fail"

    def control(self, protocol: MpsVersion = 3, timeout_s: float = 5.0) -> MpsControl:
        """How to talk to it."""
        return MpsControl(self.pipe, protocol, str(self.binary), timeout_s)

    def daemon(self, protocol: MpsVersion = 3, host: HostProcess | None = None) -> MpsDaemon:
        """How a fresh node daemon finds or starts it."""
        return MpsDaemon(self.control(protocol), self.directory / "state", host=host)

    def modes(self, driver: Driver) -> ComputeModes:
        """As a fresh node daemon remembers them."""
        return ComputeModes(driver, self.directory / "state" / "mps" / MODES)

    def engine(self, driver: Driver, protocol: MpsVersion = 3) -> MpsEngine:
        """An engine over it, as after a restart of the node daemon."""
        made = MpsEngine if protocol == 2 else MpsNamespaceEngine
        return made(
            self.modes(driver),
            self.control(protocol),
            self.daemon(protocol),
            server_timeout_s=0.5,
        )

    def fail(self, what: str) -> None:
        """Let commands that begin so fail; ``hang`` lets none be answered."""
        self.failing.write_text(what)

    @property
    def pid(self) -> int:
        """The daemon's process, 0 where there is none."""
        try:
            return int((self.pipe / PID_FILE).read_text())
        except OSError:
            return 0

    def kill(self) -> None:
        """End the daemon as a crash does: its files stay."""
        self.failing.unlink(missing_ok=True)
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)
            assert fake_gpus.eventually(lambda: not running(pid))


def running(pid: int) -> bool:
    """Whether that process is alive; a zombie is not."""
    try:
        return ") Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mps]:
    """In a directory with a short name, because a socket's path is."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="mps"))
    place = Mps(directory)
    monkeypatch.setenv("FAKE_MPS_FAIL", str(place.failing))
    yield place
    place.kill()
    shutil.rmtree(directory)
