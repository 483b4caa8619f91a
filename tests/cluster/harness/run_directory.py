"""The folder of one running cluster, and who answers for it.

A cluster's processes, mounts and control groups are all found from this folder. Its file ``owner``
names the test process by id and start time, so that a later run can tell a cluster in use from one
whose tests were killed.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness import marks
from tests.cluster.harness.leftovers import MARK, reap

_OWNER = "owner"
_REPOSITORY = Path(__file__).parents[3]


def runs_root() -> Path:
    """The folder of all clusters of this user. Short: a socket's path has 107 bytes at most."""
    return Path(tempfile.gettempdir()) / f"gpu-fraction-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One cluster's folder.

    Attributes:
        path: the folder; its name is the run's id, eight hexadecimal digits.
        watchdog: cleans up as soon as this process is gone, however it ends.
    """

    path: Path
    watchdog: subprocess.Popen[bytes]

    @property
    def run_id(self) -> str:
        """Distinguishes this run in names of control groups and networks."""
        return self.path.name

    @property
    def address(self) -> str:
        """A loopback address of its own, so that no two runs compete for a port."""
        low = bytes.fromhex(self.run_id)
        return f"127.{64 + low[0] % 64}.{low[1]}.{1 + low[2] % 254}"

    def node_address(self, index: int) -> str:
        """A loopback address for one of its nodes, of which there are 64 at most."""
        low = bytes.fromhex(self.run_id)
        return f"127.{128 + index}.{low[1]}.{1 + low[2] % 254}"

    def pod_subnet(self, index: int) -> str:
        """The pods' addresses of one of its nodes.

        Source: RFC 2544 sets 198.18.0.0/15 aside for tests, so no real host is hidden.
        """
        low = bytes.fromhex(self.run_id)
        return f"198.{18 + low[0] % 2}.{(low[3] + index) % 256}.0/24"

    @property
    def service_subnet(self) -> str:
        """The Services' addresses: the first 32 of node 0's, which no pod gets.

        The first of all, that of the Service ``kubernetes``, is thus the gateway of the node's
        pods, an address of this machine: without kube-proxy they reach the API server by it, as
        soon as ``reachable_from_pods`` listens there.
        """
        return self.pod_subnet(0).replace("/24", "/27")

    @property
    def gateway(self) -> str:
        """Of node 0's pods, and the address of the Service ``kubernetes``."""
        return self.pod_subnet(0).replace(".0/24", ".1")

    def folder(self, name: str) -> Path:
        """A sub-folder, made where it is missing."""
        made = self.path / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def environment(self, **more: str) -> dict[str, str]:
        """What its processes see: ``PATH``, the mark they are found by, and ``more``."""
        search = os.environ.get("PATH", os.defpath)
        return {"PATH": search, "HOME": str(self.folder("home")), MARK: str(self.path), **more}

    def close(self) -> None:
        """Ends and removes all that belongs to it.

        Logs are first copied to the folder that ``GPU_FRACTION_CLUSTER_LOGS`` names.
        """
        try:
            if kept := os.environ.get("GPU_FRACTION_CLUSTER_LOGS"):
                shutil.copytree(self.folder("logs"), Path(kept) / self.run_id)
        finally:
            reap_one(self.path)
        assert self.watchdog.stdin is not None
        self.watchdog.stdin.close()
        self.watchdog.wait()


def create_run() -> RunDirectory:
    """A new folder, after the clusters of killed test processes were removed."""
    reap_abandoned()
    path = runs_root() / secrets.token_hex(4)
    owner = {"pid": os.getpid(), "start_ticks": marks.start_ticks(os.getpid())}
    with _reaping():  # so that nobody sees it without an owner
        path.mkdir(mode=0o755)
        (path / _OWNER).write_text(json.dumps(owner))
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.harness.watchdog", path],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    return RunDirectory(path, watchdog)


def reap_abandoned() -> list[Path]:
    """Removes what belongs to test processes that are gone; returns the folders."""
    reaped: list[Path] = []
    with _reaping():
        for path in runs_root().iterdir():
            if path.is_dir() and not _owner_lives(path):
                reap(path)
                reaped.append(path)
    return reaped


def reap_one(path: Path) -> None:
    """Removes one run, if it is still there, whoever owns it."""
    with _reaping():
        if path.exists():
            reap(path)


def _owner_lives(path: Path) -> bool:
    try:
        owner = json.loads((path / _OWNER).read_text())
    except (FileNotFoundError, ValueError):  # its maker was killed between two steps
        return False
    return bool(marks.start_ticks(owner["pid"]) == owner["start_ticks"])


@contextlib.contextmanager
def _reaping() -> Iterator[None]:
    """One process makes or removes runs at a time; the kernel frees a dead holder's lock."""
    root = runs_root()
    root.mkdir(mode=0o755, exist_ok=True)
    with (root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
