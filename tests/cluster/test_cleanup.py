"""Nothing of a cluster outlives its test process, however that ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from tests.cluster.harness import marks
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.leftovers import (
    MARK,
    cgroup_hierarchies,
    cgroup_name,
    mounts_under,
)
from tests.cluster.harness.run_directory import reap_abandoned, runs_root
from tests.cluster.harness.waiting import wait_for

_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def start_tests() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts pytest with one test of this folder, in a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(test: str) -> subprocess.Popen[bytes]:
            argv = [sys.executable, "-m", "pytest", f"tests/cluster/{test}"]
            child = subprocess.Popen(argv, cwd=_REPOSITORY, stdout=subprocess.DEVNULL)
            stack.callback(child.wait)
            stack.callback(child.kill)
            return child

        yield start


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.usefixtures("own_control_plane")
def test_killed_while_the_control_plane_starts(
    start_tests: Callable[[str], subprocess.Popen[bytes]], *, watched: bool
) -> None:
    """The watchdog removes it at once; if that was killed too, the next run does."""
    tests = start_tests("test_control_plane.py::test_controllers_and_scheduler_work")
    run = wait_for(lambda: _run_of(tests.pid))
    wait_for((run / "logs" / "kube-apiserver.log").is_file)
    _kill(tests, run, with_watchdog=not watched)
    if watched:
        wait_for(lambda: not run.exists())
    else:
        assert list(marks.marked_pids(MARK, str(run)))
        assert run in reap_abandoned()
    _assert_nothing_left(run)


@pytest.mark.usefixtures("node")
def test_killed_while_a_pod_runs(
    start_tests: Callable[[str], subprocess.Popen[bytes]],
) -> None:
    """Shims, containers, mounts, control groups and network interfaces go as well."""
    tests = start_tests("test_node.py::test_pod_survives_a_killed_kubelet")
    run = wait_for(lambda: _run_of(tests.pid))
    wait_for(lambda: _container_pids(run))
    subnet = _pod_subnet(run)
    wait_for(lambda: _interfaces(subnet))
    _kill(tests, run, with_watchdog=True)
    assert _container_pids(run)
    assert run in reap_abandoned()
    _assert_nothing_left(run)
    wait_for(lambda: not _interfaces(subnet))


def test_kubectl_belongs_to_the_run(own_control_plane: ControlPlane) -> None:
    """A kubectl that waits when its test is killed is found like the cluster's own processes."""
    plane = own_control_plane
    assert plane.kubectl.env[MARK] == str(plane.run.path)


def test_runs_of_living_processes_are_left_alone() -> None:
    """Cleaning up touches only what nobody owns any more."""
    mine = {run for run in runs_root().iterdir() if (run / "owner").is_file()}
    assert not mine & set(reap_abandoned())


def _pod_subnet(run: Path) -> IPv4Network:
    """The addresses of the pods of a run's node."""
    (network,) = run.glob("*/cni/*.conflist")
    ranges = json.loads(network.read_text())["plugins"][0]["ipam"]["ranges"]
    return IPv4Network(ranges[0][0]["subnet"])


def _interfaces(subnet: IPv4Network) -> set[str]:
    """Interfaces that lead to a pod of it; other pods come and go meanwhile."""
    found = set()
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        # Source: route(8) and the kernel's fib_trie.c: the address as the machine keeps it.
        name, address, *_ = line.split()
        if IPv4Address(int(address, 16).to_bytes(4, sys.byteorder)) in subnet:
            found.add(name)
    return found


def _run_of(pid: int) -> Path | None:
    """The run that a process owns, if it has one by now."""
    for owner in runs_root().glob("*/owner"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # not there or not whole yet
            if json.loads(owner.read_text())["pid"] == pid:
                return owner.parent
    return None


def _kill(tests: subprocess.Popen[bytes], run: Path, *, with_watchdog: bool) -> None:
    watchdogs = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and _command(entry)[2:] == ["tests.cluster.harness.watchdog", str(run)]
    ]
    assert len(watchdogs) == 1
    if with_watchdog:
        os.kill(watchdogs[0], signal.SIGKILL)
    tests.kill()
    tests.wait()


def _command(process: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_text().split("\0")[:-1]
    return []


def _mentioning(run: Path) -> list[list[str]]:
    """Commands that name a run's folder."""
    commands = [_command(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [words for words in commands if str(run) in " ".join(words)]


def _container_pids(run: Path) -> list[int]:
    """Processes in the control groups of a run's pods."""
    found: list[int] = []
    for hierarchy in cgroup_hierarchies():
        for file in (hierarchy / cgroup_name(run)).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):
                found += map(int, file.read_text().split())
    return found


def _assert_nothing_left(run: Path) -> None:
    assert not run.exists()
    assert list(marks.marked_pids(MARK, str(run))) == []
    wait_for(lambda: not _mentioning(run))  # the watchdog ends a moment after its work
    assert _container_pids(run) == []
    assert mounts_under(run) == []
    groups = [hierarchy / cgroup_name(run) for hierarchy in cgroup_hierarchies()]
    assert [group for group in groups if group.exists()] == []
    everywhere = Path("/proc/1/mountinfo").read_text()
    assert str(run) not in everywhere
