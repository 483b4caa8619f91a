"""Running commands and telling what happens, with the seconds it took."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_TAIL_LINES = 30


class AssetError(Exception):
    """The cache cannot be filled; the message says what is missing."""


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Prints the title, and the seconds once the work is done."""
    sys.stdout.write(f"  {title} ... ")
    sys.stdout.flush()
    began = time.monotonic()
    try:
        yield
    except BaseException:
        sys.stdout.write("failed\n")
        raise
    sys.stdout.write(f"{time.monotonic() - began:.1f} s\n")


def run(
    argv: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600,
) -> None:
    """Runs a command, its output appended to ``log``.

    Args:
        argv: the command.
        log: where its output goes; the last lines are shown when it fails.
        cwd: its working folder.
        env: added to this process's environment.
        timeout_s: it is killed after so many seconds.

    Raises:
        AssetError: it failed or ran too long.
    """
    merged = {**os.environ, "LC_ALL": "C", **(env or {})}
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=merged,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError) as e:
            raise AssetError(f"{argv[0]}: {e}") from e
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        shown = " ".join(str(word) for word in argv)
        raise AssetError(f"exit status {done.returncode} of: {shown}\n{tail}")


def capture(argv: Sequence[str], *, timeout_s: float = 60) -> str:
    """What a command prints on standard output.

    Raises:
        AssetError: it failed, is not there or ran too long.
    """
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as e:
        raise AssetError(f"{argv[0]}: {e}") from e
    return done.stdout
