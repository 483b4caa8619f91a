"""Write docs/pictures: what the commands for people print on a terminal, on the demo's cluster.

Run ``make pictures`` after a change of what they print. It needs kubectl. No test compares the
pictures: they hold times, and names that are drawn.
"""

import io
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

FOLDER: Final = Path(__file__).parents[1] / "docs" / "pictures"
PROGRAM: Final = Path(sys.executable).with_name("gpu-fraction")

COLUMNS: Final = 100
ROWS: Final = 60
"""High enough that no command is cut. Chosen."""

DEADLINE_S: Final = 120.0
"""Longest wait for a command: chosen, several times what the demo takes on two busy cores."""

KEPT: Final = b"the sick card recovers"
"""End of what ``demo --keep`` prints."""

CUT: Final = "\x1b[?7l"
"""Tells the terminal to cut long lines; ``--watch`` does."""

PAINTED: Final = b"\x1b[J"
"""End of what ``--watch`` prints for one answer."""

FORMAT: Final = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""rich's template without fonts of other hosts: the reader's own monospaced one is taken."""

_CONTROL: Final = re.compile(r"\x1b\[\??([0-9;]*)([A-Za-ln-z])|([\r\n])")
"""Control sequences apart from colours, whose letter is ``m``; and ends of lines."""


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, arguments: str, environ: Mapping[str, str]) -> None:
        self._own, other = pty.openpty()
        termios.tcsetwinsize(other, (ROWS, COLUMNS))
        self._process = subprocess.Popen(
            [PROGRAM, *arguments.split()], stdin=other, stdout=other, stderr=other, env=environ
        )
        os.close(other)

    def printed(self, until: bytes = b"") -> str:
        """Everything up to the end, or up to some bytes.

        Raises:
            SystemExit: they do not come in time, or before the end.
        """
        read = b""
        end_s = time.monotonic() + DEADLINE_S
        while not (until and until in read):
            if not select.select([self._own], [], [], max(0.0, end_s - time.monotonic()))[0]:
                raise SystemExit(f"not ended in {DEADLINE_S:g} s: {read.decode()}")
            try:
                read += os.read(self._own, 65536)
            except OSError:  # Linux: the other end is closed
                if not until:
                    break
                raise SystemExit(f"ended before {until!r}: {read.decode()}") from None
        return read.decode()

    def close(self) -> None:
        """End the command as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        while self._process.poll() is None:
            try:
                os.read(self._own, 65536)
            except OSError:
                self._process.wait()
        os.close(self._own)


@contextmanager
def terminal(arguments: str, environ: Mapping[str, str]) -> Iterator[Terminal]:
    """The command while the block runs."""
    started = Terminal(arguments, environ)
    try:
        yield started
    finally:
        started.close()


def screen(printed: str) -> str:
    """What stands on the terminal in the end, with colours: a line is only ever written anew."""
    rows = [""]
    at = written = 0
    for found in _CONTROL.finditer(printed):
        rows[at] += printed[written : found.start()]
        written = found.end()
        number, letter, end_of_line = found.groups()
        if end_of_line == "\n":
            at += 1
            rows += [""] * (at + 1 - len(rows))
        elif letter == "A":
            at -= int(number or 1)
        elif letter == "K" and number == "2":
            rows[at] = ""
        elif letter == "H":
            rows, at = [""], 0
    rows[at] += printed[written:]
    return "\n".join(rows).strip("\n")


def folded(shown: str, *, cut: bool) -> Iterator[Text]:
    """The rows of the terminal: a longer line goes on in the next row, or is cut."""
    for line in Text.from_ansi(shown).split("\n", allow_blank=True):
        rows = line.divide(range(COLUMNS, len(line), COLUMNS))
        yield from rows[:1] if cut else rows


def draw(name: str, title: str, printed: str) -> None:
    """Write one picture."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    for row in folded(screen(printed), cut=CUT in printed):
        console.print(row)
    svg = console.export_svg(title=title, code_format=FORMAT, unique_id=name)
    (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")


def command(name: str, arguments: str, environ: Mapping[str, str], until: bytes = b"") -> None:
    """Run a command and draw what it prints."""
    with terminal(arguments, environ) as running:
        draw(name, f"gpu-fraction {arguments}", running.printed(until))


def recovered(environ: Mapping[str, str]) -> bool:
    """Whether no card is sick."""
    shown = subprocess.run(
        [PROGRAM, "status", "-o", "csv"], env=environ, check=True, capture_output=True, text=True
    )
    return "fault" not in shown.stdout


def main() -> None:
    """Draw all."""
    if shutil.which("kubectl") is None:
        raise SystemExit("make pictures: kubectl is not installed")
    FOLDER.mkdir(exist_ok=True)
    kept = ("HOME", "PATH", "PYTHONPATH")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    environ |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}

    def kubectl(arguments: str) -> None:
        subprocess.run(["kubectl", *arguments.split()], env=environ, check=True)

    with terminal("demo --keep", environ) as demo:
        printed = demo.printed(KEPT)
        draw("demo", "gpu-fraction demo --keep", printed)
        environ["KUBECONFIG"] = re.findall(r"KUBECONFIG=(\S+)", printed)[0]
        kubectl("-n team-b run mine --image=none --annotations=gpu-fraction=0.9")
        command("status", "status", environ)
        command("status-watch", "status --by pod -A --watch", environ, PAINTED)
        kubectl("-n team-a scale deployment notebooks --replicas=6")
        kubectl("annotate node gpu-2 gpu-fraction.dev/simulated-fault-")
        end_s = time.monotonic() + DEADLINE_S
        while not recovered(environ) and time.monotonic() < end_s:
            time.sleep(1)
        command("quota", "quota -n team-a", environ)
        command("explain-waiting", "explain pod mine -n team-b", environ)
        command("explain-refused", "explain deployment notebooks -n team-a", environ)


if __name__ == "__main__":
    main()
