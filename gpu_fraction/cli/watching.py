"""An answer once, or again and again with ``--watch``."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gpu_fraction.cli.asking import COULD_NOT_ASK, told
from gpu_fraction.cli.printing import Style, clean, note
from gpu_fraction.kube.errors import KubeError, UnauthorizedError

IDLE_PART: Final = 4.0
"""Each pause is at least so many times as long as the reading took. Chosen: a watch of a cluster
that takes long to list keeps the API server busy for a fifth of the time at most."""


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


async def show(args: argparse.Namespace, look: Style, read: Callable[[], Awaitable[Block]]) -> int:
    """Print the answer, or with ``--watch`` every answer; the exit code.

    Args:
        args: With the flag.
        look: Of the output.
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
        await _live(args.watch, look, read)
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


async def _live(every_s: float, look: Style, read: Callable[[], Awaitable[Block]]) -> None:
    """Show the answers in place."""
    # Imported here: a single answer needs none of it.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    last: Block | None = None
    console = Console(no_color=not look.colour, highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            last, took_s = await _timed(read, last)
            below = "".join(f"{clean(line)}\n" for line in last.notes)
            text = Text.from_ansi(last.text + "\n" * bool(below) + below)
            text.no_wrap, text.overflow = True, "ellipsis"
            live.update(text, refresh=True)
            await asyncio.sleep(max(every_s, IDLE_PART * took_s))


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
