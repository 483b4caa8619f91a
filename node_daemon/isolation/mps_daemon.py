"""The MPS control daemon: a process of its own that outlives this one.

Its clients are the pods' programs: a restart of the node daemon must not end them. So it is
started detached, found again by its record or its pipe directory, and known to be the same by its
process id and start time; it is never stopped here.

Containers of version 2 may write in the pipe directory: what lies there is theirs as much as the
control daemon's.
"""

import contextlib
import errno
import os
import pathlib
import stat
import subprocess
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from gpu_fraction.node_daemon.isolation.cgroup_paths import member
from gpu_fraction.node_daemon.isolation.host_process import HostProcess
from gpu_fraction.node_daemon.isolation.mps_control import MpsControl
from gpu_fraction.node_daemon.state.durable import write_durably
from gpu_fraction.node_daemon.state.errors import EngineFailedError, StoreError

# Source: MPS documentation, "nvidia-cuda-mps-control": written into the pipe directory.
PID_FILE: Final = "nvidia-cuda-mps-control.pid"
PID_BYTES: Final = 32
"""Longest pid file that is read. Chosen: ids have at most 7 digits (proc(5), pid_max)."""

RECORD: Final = "control-daemon.json"
START_LOG: Final = "start.log"
MAX_SAID: Final = 500
"""Characters of its output in an error message: chosen, some lines."""

START_TIMEOUT_S: Final = 8.0
"""Chosen: it enumerates every card before it answers; less than a container start may take."""

TRUST_S: Final = 5.0
"""Chosen: a process that answered so lately is not asked again while it lives; a burst of
containers would ask it a hundred times."""

_POLL_S: Final = 0.05
# Longest path of a UNIX socket is 107 bytes, "/control" included. Source: unix(7), sun_path.
PIPE_LENGTH: Final = 107 - len("/control")

_log = structlog.get_logger()


class MpsProcess(msgspec.Struct, frozen=True):
    """A process: no two have the same id and start time within one boot.

    Attributes:
        pid: Process id, as in its pid file.
        started: Start time in clock ticks since boot; 0 where it runs in another PID namespace.
        cards: The cards that it was started with.
    """

    pid: int
    started: int
    cards: tuple[str, ...] = ()

    def is_(self, other: "MpsProcess") -> bool:
        """Whether it is the same process."""
        return (self.pid, self.started) == (other.pid, other.started)


class MpsDaemon:
    """Finds or starts the control daemon.

    Args:
        control: Its interface; the pipe directory must be this product's alone.
        state: Directory of its record and logs; must outlive this process.
        may_start: False where something else starts it, such as a container of its own.
        host: Starts it as a process of the host; None starts it in this container, whose end is
            its end.
    """

    def __init__(
        self,
        control: MpsControl,
        state: pathlib.Path,
        *,
        may_start: bool = True,
        host: HostProcess | None = None,
        proc: pathlib.Path = pathlib.Path("/proc"),
    ) -> None:
        self._control = control
        self._state = state
        self._may_start = may_start
        self._host = host
        self._proc = proc
        self._trusted_until_s = 0.0

    def recorded(self) -> MpsProcess | None:
        """The process found or started last, None where there is no readable record."""
        try:
            return msgspec.json.decode((self._state / RECORD).read_bytes(), type=MpsProcess)
        except (OSError, msgspec.MsgspecError):
            return None

    def cards(self) -> tuple[str, ...]:
        """The cards that it was started with; empty where they are not known."""
        recorded = self.recorded()
        return recorded.cards if recorded else ()

    def ensure(self, cards: Sequence[str]) -> bool:
        """Have it running; True where it is another process than the last time.

        A new process has none of the namespaces of the old one.

        Args:
            cards: UUIDs it should serve; used where it is started.

        Raises:
            EngineFailedError: it is not there and cannot be started, or it does not answer.
        """
        before = self.recorded()
        present = self._present(before)
        same = present is not None and before is not None and present.is_(before)
        if same and time.monotonic() < self._trusted_until_s:
            return False
        if present is not None and self._control.answers():
            self._trusted_until_s = time.monotonic() + TRUST_S
            if not same:
                self._record(present)
                _log.info("mps_daemon_adopted", pid=present.pid, started=present.started)
            return not same
        if present is not None and present.started:
            raise EngineFailedError(
                f"the MPS control daemon (pid {present.pid}) does not answer; "
                "its clients must end before it can be started again"
            )
        self._start(cards)
        return True

    def _present(self, recorded: MpsProcess | None = None) -> MpsProcess | None:
        """The process that is recorded, while it lives, else the one that the pid file names."""
        if recorded is not None and recorded.started and self._seen(recorded.pid).is_(recorded):
            return recorded
        try:
            return self._seen(int(_start_of(self._control.pipe / PID_FILE, PID_BYTES)))
        except (OSError, ValueError):
            return None

    def _seen(self, pid: int) -> MpsProcess:
        """The process of that id where it is the program; time 0 where it is not seen."""
        try:
            name = (self._proc / str(pid) / "cmdline").read_bytes()
            status = (self._proc / str(pid) / "stat").read_text()
            group = (self._proc / str(pid) / "cgroup").read_text()
        except OSError:
            return MpsProcess(pid, 0)
        program = pathlib.PurePath(self._control.binary).name.encode()
        if program not in name:
            return MpsProcess(pid, 0)  # the id was given to another program, or is another's
        if self._host and member(group):
            return MpsProcess(pid, 0)  # a container took the program's name and wrote its own id
        # The name in parentheses may hold spaces; the start time is field 22. Source: proc(5).
        return MpsProcess(pid, int(status.rpartition(")")[2].split()[19]))

    def _start(self, cards: Sequence[str]) -> None:
        if not self._may_start:
            raise EngineFailedError(f"no MPS control daemon answers on {self._control.pipe}")
        out = self._host.words() if self._host else ()
        logs = self._state / "log"
        try:
            for directory in (self._control.pipe, logs):
                directory.mkdir(parents=True, exist_ok=True)
            for stale in (PID_FILE, "control"):
                # What a daemon that was killed leaves keeps a new one from binding.
                (self._control.pipe / stale).unlink(missing_ok=True)
        except OSError as e:
            raise EngineFailedError(f"MPS control daemon: {e}") from e
        mode = ["-d"] if self._control.protocol == 2 else ["-d", "-p", "3", "-m"]
        environment = self._control.environment(
            CUDA_VISIBLE_DEVICES=",".join(cards), CUDA_MPS_LOG_DIRECTORY=str(logs)
        )
        said = logs / START_LOG
        try:
            with said.open("wb") as output:
                run = subprocess.run(  # noqa: S603 - the configured program; the words are ours
                    [*out, self._control.binary, *mode],
                    env=environment,
                    # It must not hold our descriptors, nor end with our session. A pipe that it
                    # keeps open would never end.
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    timeout=START_TIMEOUT_S,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise EngineFailedError(f"MPS control daemon: {e}") from e
        if run.returncode:
            why = said.read_text(errors="replace")[:MAX_SAID].strip()
            raise EngineFailedError(
                f"MPS control daemon: {why or f'exit status {run.returncode}'}"
            )
        self._await_answer(tuple(cards))

    def _await_answer(self, cards: tuple[str, ...]) -> None:
        end_s = time.monotonic() + START_TIMEOUT_S
        while (present := self._present()) is None or not self._control.answers():
            if time.monotonic() > end_s:
                raise EngineFailedError(f"no MPS control daemon answered in {START_TIMEOUT_S:g} s")
            time.sleep(_POLL_S)
        self._record(MpsProcess(present.pid, present.started, cards))
        _log.info("mps_daemon_started", pid=present.pid, cards=list(cards))

    def _record(self, process: MpsProcess) -> None:
        self._state.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(StoreError):
            # Without a record the same process counts as new, which only repeats work.
            write_durably(self._state / RECORD, msgspec.json.encode(process))


def _start_of(path: pathlib.Path, most_bytes: int) -> bytes:
    """The first bytes of a plain file that others may have put there.

    What is no plain file is not opened: a pipe waits for a writer, a device may act on it.

    Raises:
        OSError: it is none, or it cannot be read.
    """
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        # Opens the inspected file even if its name was reused, and does not wait for a lease.
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(place)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most_bytes)
