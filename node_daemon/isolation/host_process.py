"""Starts programs that are the host's, not this container's.

The end of a container ends every process of its control group, and of its PID namespace where it
has one; and the files of an unused image are deleted at some point. A program that is to
outlive the node daemon's container therefore leaves all three behind before it begins.
"""

import pathlib
import sys
from dataclasses import dataclass
from typing import Final

from gpu_fraction.node_daemon.isolation import enter_host
from gpu_fraction.node_daemon.isolation.cgroup_paths import ROOT
from gpu_fraction.node_daemon.state.errors import EngineFailedError

GROUP: Final = "gpu-fraction-mps"
"""The program's control group, at the top of the host's tree, where it outlives every pod."""


@dataclass(frozen=True, slots=True)
class HostProcess:
    """How to start a program outside this container.

    Attributes:
        shm: Host directory that the program sees as ``/dev/shm``, made a tmpfs of limited size
            where nothing is mounted there; None leaves it the host's.
        cgroups: The host's control groups, version 2.
        proc: The kernel's process information, of the host's processes.
    """

    shm: pathlib.Path | None = None
    cgroups: pathlib.Path = ROOT
    proc: pathlib.Path = pathlib.Path("/proc")

    def words(self) -> tuple[str, ...]:
        """The words before the program and its arguments.

        Raises:
            EngineFailedError: a program that is started from here would end with this container.
        """
        if not (self.cgroups / "cgroup.controllers").is_file():
            raise EngineFailedError(self._no(f"{self.cgroups} is not cgroup v2"))
        # Only the root of all has no type. Source: Documentation/admin-guide/cgroup-v2.rst.
        if (self.cgroups / "cgroup.type").exists():
            raise EngineFailedError(self._no(f"{self.cgroups} is not the host's"))
        group = self.cgroups / GROUP
        try:
            first, own = ((self.proc / p / "cgroup").read_text() for p in ("1", "self"))
            if first == own:
                raise EngineFailedError(self._no("process 1 is not the host's: set hostPID"))
            group.mkdir(exist_ok=True)
        except OSError as e:
            raise EngineFailedError(self._no(f"{e.filename}: {e.strerror}")) from e
        return (
            *(sys.executable, "-I", "-S", enter_host.__file__),
            *(str(group / "cgroup.procs"), str(self.proc / "1/ns/mnt"), str(self.shm or "")),
        )

    @staticmethod
    def _no(why: str) -> str:
        return f"MPS would stop together with the node daemon: {why}; see the setting mps_start"
