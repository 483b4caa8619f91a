"""Machines as programs that leave a container find them."""

import pathlib
from collections.abc import Callable

import pytest

from node_daemon.isolation.host_process import HostProcess


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
