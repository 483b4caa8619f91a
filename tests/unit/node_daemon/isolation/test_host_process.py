"""Programs that outlive the container they are started from."""

import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from gpu_fraction.node_daemon.isolation.host_process import GROUP, HostProcess
from gpu_fraction.node_daemon.state.errors import EngineFailedError

Machine = Callable[..., HostProcess]


def run(host: HostProcess, *program: str) -> subprocess.CompletedProcess[str]:
    """Run a program as one of the host's."""
    return subprocess.run(
        [*host.words(), *program], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_program_is_in_the_hosts_group_before_it_begins(machine: Machine) -> None:
    """So that nothing it starts is ever in the container's."""
    host = machine()
    done = run(host, "sh", "-c", "echo $$")
    assert done.returncode == 0, done.stderr
    assert (host.cgroups / GROUP / "cgroup.procs").read_text() == done.stdout


@pytest.mark.parametrize(
    ("present", "first", "why"),
    [
        (["cpu"], "/init.scope", "is not cgroup v2"),
        (["cgroup.controllers", "cgroup.type"], "/init.scope", "is not the host's"),
        (["cgroup.controllers"], "/kubepods/pod1/daemon", "hostPID"),
        (["cgroup.controllers", GROUP], "/init.scope", "File exists"),
    ],
)
def test_a_program_that_would_end_with_the_container_is_not_started(
    machine: Machine, present: list[str], first: str, why: str
) -> None:
    """What is missing is said, and which setting chooses something else."""
    with pytest.raises(EngineFailedError, match=f"{why}.*mps_start"):
        machine(*present, first=first).words()


def test_a_program_that_is_missing_on_the_host_is_told(machine: Machine) -> None:
    """On standard error, where whoever starts it reads."""
    done = run(machine(), "no-such-program")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr


@pytest.fixture
def elsewhere(tmp_path: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
    """A process with files that nobody else sees, and where they are."""
    place = tmp_path / "host"
    place.mkdir()
    script = f"mount -t tmpfs none {place} && echo 1 >{place}/there && echo up && exec sleep 60"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "up\n":
                pytest.skip("mount namespaces need root")
            yield process.pid, place
        finally:
            process.kill()


def inside(host: HostProcess, pid: int) -> HostProcess:
    """The same machine, with the files of this process as the host's."""
    namespace = host.proc / "1/ns/mnt"
    namespace.unlink()
    namespace.symlink_to(f"/proc/{pid}/ns/mnt")
    return host


def test_the_program_has_the_hosts_files_and_a_shared_memory_of_its_own(
    machine: Machine, tmp_path: pathlib.Path, elsewhere: tuple[int, pathlib.Path]
) -> None:
    """An image that is deleted takes nothing from it; its clients get the same directory."""
    pid, place = elsewhere
    shm = tmp_path / "run" / "shm"
    host = inside(machine(shm=shm), pid)
    done = run(host, "sh", "-c", f"cat {place}/there; echo mine >/dev/shm/segment")
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert not (place / "there").exists()
    assert not pathlib.Path("/dev/shm/segment").exists()
    assert pathlib.Path(f"/proc/{pid}/root{shm}/segment").read_text() == "mine\n"


def test_shared_memory_has_a_size_and_is_mounted_once(
    machine: Machine, tmp_path: pathlib.Path, elsewhere: tuple[int, pathlib.Path]
) -> None:
    """Any container may fill it, and must not fill the host's own /run with that.

    A program that is started again has the segments of the first.
    """
    pid, _ = elsewhere
    shm = tmp_path / "run" / "shm"
    host = inside(machine(shm=shm), pid)
    run(host, "sh", "-c", "echo mine >/dev/shm/segment")
    assert run(host, "cat", "/dev/shm/segment").stdout == "mine\n"
    mounts = pathlib.Path(f"/proc/{pid}/mounts").read_text().splitlines()
    [(kind, options)] = [m.split()[2:4] for m in mounts if m.split()[1] == str(shm)]
    assert kind == "tmpfs"
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert ",size=" in options
    assert pathlib.Path(f"/proc/{pid}/root{shm}").stat().st_mode & 0o7777 == 0o1777
    assert list(shm.iterdir()) == []
