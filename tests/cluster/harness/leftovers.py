"""Ends and removes everything that belongs to one run.

It needs nothing but the run's folder, so it serves the ordinary end, the watchdog of a killed test
process, and the next run alike. It may be interrupted anywhere and done again.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.harness import marks

MARK = "GPU_FRACTION_TEST_RUN"
"""Environment variable of every process of a run; its value is the run's folder."""

_CGROUP_MOUNT = Path("/sys/fs/cgroup")
_TIMEOUT_S = 20.0
_POLL_S = 0.02


class LeftoverError(Exception):
    """Something of a run cannot be removed."""


def cgroup_name(run: Path) -> str:
    """The control group of a run's pods, in every hierarchy."""
    return f"gpu-fraction-{run.name}"


def cgroup_hierarchies() -> list[Path]:
    """Where control groups are made: the one tree of v2, or the tree of each v1 controller."""
    if (_CGROUP_MOUNT / "cgroup.controllers").is_file():
        return [_CGROUP_MOUNT]
    folders = (folder for folder in _CGROUP_MOUNT.iterdir() if folder.is_dir())
    return [folder for folder in folders if not folder.is_symlink()]


def reap(run: Path) -> None:
    """Ends a run's processes and containers and removes its mounts, groups and files.

    Raises:
        LeftoverError: a mount or control group is still there.
        TimeoutError: a process does not die.
    """
    marks.kill_marked(MARK, str(run))
    _kill_containers(run)
    marks.kill_marked(MARK, str(run))  # what a dying shim may have started
    _remove_cgroups(run)
    _unmount(run)
    shutil.rmtree(run)


def _kill_containers(run: Path) -> None:
    """Containers have an environment of their own; their control group tells whose they are."""
    deadline = time.monotonic() + _TIMEOUT_S
    while pids := set(_cgroup_pids(run)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"still running after SIGKILL: {sorted(pids)} of {run}")
        time.sleep(_POLL_S)


def _cgroup_pids(run: Path) -> Iterator[int]:
    for group in _cgroups(run):
        with contextlib.suppress(OSError):
            yield from map(int, (group / "cgroup.procs").read_text().split())


def _cgroups(run: Path) -> Iterator[Path]:
    """A run's control groups, children before parents."""
    for hierarchy in cgroup_hierarchies():
        for folder, _, _ in os.walk(hierarchy / cgroup_name(run), topdown=False):
            yield Path(folder)


def _remove_cgroups(run: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while groups := list(_cgroups(run)):
        for group in groups:
            with contextlib.suppress(OSError):  # busy until the kernel has let go of the dead
                group.rmdir()
        if time.monotonic() > deadline:
            raise LeftoverError(f"control groups cannot be removed: {groups}")
        time.sleep(_POLL_S)


def mounts_under(folder: Path) -> list[str]:
    """Mount points in this process's namespace at or below a folder, deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Source: proc(5): the fifth field, with blanks in octal.
        point = line.split()[4].replace("\\040", " ")
        if Path(point).is_relative_to(folder):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def _unmount(run: Path) -> None:
    """The node mounts in a namespace of its own, which is gone by now; a test may have not."""
    for point in mounts_under(run):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=_TIMEOUT_S)
    if left := mounts_under(run):
        raise LeftoverError(f"still mounted, so nothing below is deleted: {left}")
