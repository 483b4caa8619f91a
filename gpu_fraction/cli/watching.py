"""An answer once, or again and again with ``--watch``."""

import argparse
import asyncio
import shutil
import sys
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gpu_fraction.cli.asking import COULD_NOT_ASK, told
from gpu_fraction.cli.printing import clean, note
from gpu_fraction.kube.errors import KubeError, UnauthorizedError

IDLE_PART: Final = 4.0
"""Each pause is at least so many times as long as the reading took. Chosen: a watch of a cluster
that takes long to list keeps the API server busy for a fifth of the time at most."""


_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H"
_ROW: Final = "\x1b[K\n"
_REST: Final = "\x1b[J"
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The other screen, without cursor and with long lines cut, painted from its top; and back.
Source: xterm, "XTerm Control Sequences"; the terminals of Linux and macOS have them."""


@dataclass(frozen=True, slots=True)
class Block:
    """One answer.

    Attributes:
        text: For standard output.
        notes: For people, one line each.
        state: What the text is made of, without ages; two answers with one state are the same.
        failed: Whether nothing could be read.
    """

    text: str
    notes: Sequence[str] = ()
    state: object = None
    failed: bool = False


async def show(args: argparse.Namespace, read: Callable[[], Awaitable[Block]]) -> int:
    """Print the answer, or with ``--watch`` every answer; the exit code.

    Args:
        args: With the flag.
        read: Reads and formats.

    Raises:
        KubeError: the first reading failed.
    """
    if args.watch is None:
        block = await read()
        sys.stdout.write(block.text)
        for line in block.notes:
            note(line)
        return COULD_NOT_ASK if block.failed else 0
    if sys.stdout.isatty():
        await _live(args.watch, read)
    await _changes(args.watch, read)
    return 0


async def _changes(every_s: float, read: Callable[[], Awaitable[Block]]) -> None:
    """Print each answer that differs from the one before."""
    last: Block | None = None
    while True:
        block, took_s = await _timed(read, last)
        if last is None or (block.state, block.notes) != (last.state, last.notes):
            sys.stdout.write(("\n" if last and block.text else "") + block.text)
            sys.stdout.flush()
            for line in block.notes:
                note(line)
        last = block
        await asyncio.sleep(max(every_s, IDLE_PART * took_s))


async def _live(every_s: float, read: Callable[[], Awaitable[Block]]) -> None:
    """Show the answers in place, on the terminal's other screen."""
    last: Block | None = None
    try:
        while True:
            last, took_s = await _timed(read, last)
            sys.stdout.write(_frame(last))
            sys.stdout.flush()
            await asyncio.sleep(max(every_s, IDLE_PART * took_s))
    finally:
        if last is not None:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


def _frame(block: Block) -> str:
    """What paints an answer over the one before, cut to the terminal's height."""
    columns, rows = shutil.get_terminal_size()
    notes = [
        row
        for one in block.notes
        for row in textwrap.wrap(clean(one), columns, break_on_hyphens=False)
    ]
    lines = [*block.text.splitlines(), *([""] if notes else []), *notes]
    if len(lines) > rows:
        lines = [*lines[: rows - 1], f"... {len(lines) - rows + 1} more lines"]
    return _ENTER + _ROW.join(lines) + _REST


async def _timed(read: Callable[[], Awaitable[Block]], last: Block | None) -> tuple[Block, float]:
    """An answer and how long it took; a later failure keeps the answer before, with a note."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    try:
        block = await read()
    except KubeError as e:
        if last is None or isinstance(e, UnauthorizedError):
            raise
        kept = tuple(line for line in last.notes if not line.startswith(_STALE))
        block = replace(last, notes=(*kept, f"{_STALE}{told(e)}"))
    return block, loop.time() - started_s


_STALE: Final = "not current: "
