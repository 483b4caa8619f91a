"""Talks to ``nvidia-cuda-mps-control``: version 2 on its standard input, version 3 by arguments.

Sources: https://docs.nvidia.com/deploy/mps/latest/mpsv2-interface.html, ``mpsv3-interface.html``.
"""

import os
import pathlib
import re
import subprocess
from dataclasses import dataclass
from typing import Final, Literal

from gpu_fraction.node_daemon.state.errors import EngineFailedError

BINARY: Final = "nvidia-cuda-mps-control"
COMMAND_TIMEOUT_S: Final = 5.0
"""Chosen: the daemon answers in milliseconds; one that is wedged does not answer at all."""

SAID_MAX: Final = 300
"""Characters of the program's output in an error message. Chosen: its messages are shorter."""

MpsVersion = Literal[2, 3]

_SIZE: Final = re.compile(r"(\d+)([KMG]?)", re.ASCII)
_SCALE: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class MpsNamespace:
    """One line of ``namespace list``. Limits are None where none is set."""

    name: str
    memory_mib: int | None
    percent: float | None
    pipe: str


def size_mib(text: str) -> int | None:
    """``8G`` or ``512M`` as MiB, None for anything else."""
    match = _SIZE.fullmatch(text.strip())
    return int(match[1]) * _SCALE[match[2]] // _SCALE["M"] if match else None


class MpsControl:
    """One control daemon, known by its pipe directory.

    Args:
        pipe: ``CUDA_MPS_PIPE_DIRECTORY`` of the daemon.
        protocol: 2, or 3 where the driver has it.
        binary: The program; a name is looked up on PATH.
    """

    def __init__(
        self,
        pipe: pathlib.Path,
        protocol: MpsVersion,
        binary: str = BINARY,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        self.pipe = pipe
        self.protocol: MpsVersion = protocol
        self.binary = binary
        self._timeout_s = timeout_s

    def environment(self, **more: str) -> dict[str, str]:
        """The program's environment: ours, the pipe directory, and ``more``."""
        return {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe), **more}

    def run_v2(self, command: str) -> str:
        """A version 2 command; its output.

        Raises:
            EngineFailedError: it failed or did not end in time.
        """
        return self._run([self.binary], command, command + "\n")

    def run_v3(self, *words: str) -> str:
        """A version 3 command; its output.

        Raises:
            EngineFailedError: it failed or did not end in time.
        """
        return self._run([self.binary, "-p", "3", *words], " ".join(words), None)

    def answers(self) -> bool:
        """True where the daemon is there and serves commands."""
        try:
            if self.protocol == 2:
                self.run_v2("get_default_active_thread_percentage")
            else:
                self.run_v3("server", "list", "--format=csv,noheader")
        except EngineFailedError:
            return False
        return True

    def servers(self) -> dict[str, str]:
        """Version 3: the servers by name, with their status."""
        lines = self.run_v3("server", "list", "--format=csv,noheader").splitlines()
        rows = [line.split(",") for line in lines if line.count(",") >= 3]
        return {row[0].strip(): row[3].strip() for row in rows}

    def namespaces(self, server: str) -> dict[str, MpsNamespace]:
        """Version 3: the namespaces of a server by name."""
        listed = self.run_v3("namespace", "list", f"--server={server}", "--format=csv,noheader")
        found = [_namespace(line) for line in listed.splitlines() if line.count(",") >= 4]
        return {one.name: one for one in found}

    def _run(self, arguments: list[str], what: str, text: str | None) -> str:
        try:
            run = subprocess.run(  # noqa: S603 - the configured program; the words are ours
                arguments,
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # version 2's answers come over a socket that containers reach
                timeout=self._timeout_s,
                env=self.environment(),
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise EngineFailedError(f"MPS: {what!r} did not end in {self._timeout_s:g} s") from e
        except OSError as e:
            raise EngineFailedError(f"MPS: {self.binary}: {e.strerror}") from e
        if run.returncode:
            said = (run.stderr or run.stdout).strip() or f"exit status {run.returncode}"
            raise EngineFailedError(f"MPS: {what!r}: {said[:SAID_MAX]}")
        return run.stdout


def _namespace(line: str) -> MpsNamespace:
    """Columns: name, server, status, memory, percentage, priority, pipe directory."""
    fields = [field.strip() for field in line.split(",")]
    try:
        percent = float(fields[4].removesuffix("%"))
    except ValueError:
        percent = None
    pipe = next((field for field in fields if field.startswith("/")), "")
    return MpsNamespace(fields[0], size_mib(fields[3]), percent, pipe)
