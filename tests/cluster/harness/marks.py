"""Finding every process that one run started, whoever its parent has become.

A mark is one environment variable. Children inherit it, so a containerd shim that left its process
group, or the compiler under a killed ``make``, still carries it when its starter is gone. Process
ids alone would not do: they are used again.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

KILL_TIMEOUT_S = 20.0
_POLL_S = 0.02


def marked_pids(name: str, value: str) -> Iterator[int]:
    """The ids of living processes, other than this one, that carry ``name=value``."""
    wanted = f"{name}={value}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # A process may end while we read; another user's is not ours.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is gone.

    With the id this names a process for good. Source: proc(5), field 22 of /proc/PID/stat.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets and may hold spaces.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def kill_marked(name: str, value: str) -> int:
    """SIGKILLs all that carry the mark, until none is left; returns how many signals were sent.

    Raises:
        TimeoutError: some are still there after ``KILL_TIMEOUT_S``.
    """
    sent = 0
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while pids := list(marked_pids(name, value)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                sent += 1
        if time.monotonic() > deadline:
            raise TimeoutError(f"still running after SIGKILL: {pids} ({name}={value})")
        time.sleep(_POLL_S)
    return sent
