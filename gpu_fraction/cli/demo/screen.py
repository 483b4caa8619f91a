"""How the demo tells its story: a live table on a terminal, plain lines elsewhere."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from gpu_fraction.cli.demo import view
from gpu_fraction.sandbox.apiserver.storage import Storage

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

BAR: Final = 20
"""Characters of a bar; each is a twentieth of a card."""

PACE_S: Final = 1.0
"""Shortest time of a scene on a terminal: chosen, to be read."""

REFRESH_S: Final = 0.1


class Screen(Protocol):
    """Where the story is told."""

    def follow(self, storage: Storage) -> AbstractAsyncContextManager[None]:
        """Show the cluster while the block runs."""

    async def begin(self, title: str) -> None:
        """A scene begins."""

    async def end(self, lines: Sequence[str]) -> None:
        """It has come out like this."""

    def say(self, text: str) -> None:
        """Text before and after the story."""


def screen(out: TextIO) -> Screen:
    """The screen for this output: rich where it is a terminal and rich is installed.

    rich itself keeps to NO_COLOR and to terminals that cannot move the cursor.
    """
    if out.isatty() and find_spec("rich") is not None:
        from rich.console import Console  # noqa: PLC0415 - 30 ms, and only for terminals

        console = Console(file=out, highlight=False)
        if not console.is_dumb_terminal:
            return LiveScreen(console)
    return PlainScreen(out)


def bar(used_milli: int) -> str:
    """A card's compute; in ASCII, for every terminal and log."""
    full = min(BAR, round(used_milli * BAR / 1000))
    return "#" * full + "." * (BAR - full)


def holders(card: view.CardRow) -> str:
    """The pods of a card by their Deployments: ``notebooks x4``."""
    counts: dict[str, int] = {}
    for one in card.held:
        app = one.pod.rsplit("-", 2)[0]
        counts[app] = counts.get(app, 0) + 1
    return ", ".join(f"{app} x{n}" if n > 1 else app for app, n in sorted(counts.items()))


def _rows(storage: Storage) -> Iterator[tuple[str, str, str, str, str]]:
    for card in view.cards(storage):
        yield (
            card.node,
            str(card.index),
            f"{bar(card.used_milli)} {card.used_milli / 1000:.2f}",
            holders(card),
            f"sick: {card.reason}" if card.reason else "healthy",
        )


def _budgets(storage: Storage) -> Iterator[str]:
    for quota in view.quotas(storage):
        limited = {k: v for k, v in quota.columns.items() if not v.endswith("/-")}
        shown = ", ".join(f"{key} {value}" for key, value in limited.items())
        yield f"GPUQuota {quota.namespace}/{quota.name}: {shown or 'not counted yet'}"


class PlainScreen:
    """Lines, without colour, cursor movement or waiting."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._storage: Storage | None = None
        self._number = 0

    @asynccontextmanager
    async def follow(self, storage: Storage) -> AsyncIterator[None]:
        """Print the cluster's state after each scene."""
        self._storage = storage
        yield

    async def begin(self, title: str) -> None:
        """Print the title."""
        self._number += 1
        self.say(f"\n{self._number}. {title}")

    async def end(self, lines: Sequence[str]) -> None:
        """Print the outcome and the cards."""
        for line in lines:
            self.say(f"   {line}")
        if self._storage is not None:
            for node, index, share, pods, health in _rows(self._storage):
                self.say(f"   | {node} card {index}  {share}  {health:24}  {pods}".rstrip())
            for line in _budgets(self._storage):
                self.say(f"   | {line}")

    def say(self, text: str) -> None:
        """Print text."""
        self._out.write(text + "\n")
        self._out.flush()


class LiveScreen:
    """A table that follows the cluster, below the scenes that have been told."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._now = ""
        self._number = 0
        self._began_s = 0.0

    @asynccontextmanager
    async def follow(self, storage: Storage) -> AsyncIterator[None]:
        """Show the table."""
        from rich.live import Live  # noqa: PLC0415 - see screen

        self._console.print()
        with Live(self._frame(storage), console=self._console, auto_refresh=False) as live:

            async def refresh() -> None:
                while True:
                    live.update(self._frame(storage), refresh=True)
                    await asyncio.sleep(REFRESH_S)

            task = asyncio.create_task(refresh(), name="screen")
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                self._now = ""
                live.update(self._frame(storage), refresh=True)

    async def begin(self, title: str) -> None:
        """Show the title as what happens now."""
        self._number += 1
        self._now = f"{self._number}. {title}"
        self._began_s = asyncio.get_running_loop().time()

    async def end(self, lines: Sequence[str]) -> None:
        """Print title and outcome above the table, when they could be seen."""
        from rich.padding import Padding  # noqa: PLC0415 - see screen
        from rich.text import Text  # noqa: PLC0415

        self._console.print(f"[bold]{self._now}[/bold]")
        for line in lines:
            self._console.print(Padding(Text(line), (0, 0, 0, 3), expand=False))
        left_s = self._began_s + PACE_S - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, left_s))

    def say(self, text: str) -> None:
        """Print text."""
        self._console.print(text, markup=False)

    def _frame(self, storage: Storage) -> "RenderableType":
        from rich.console import Group  # noqa: PLC0415 - see screen
        from rich.text import Text  # noqa: PLC0415

        parts: list[RenderableType] = [Text(), _table(storage), *map(Text, _budgets(storage))]
        if self._now:
            parts.append(Text(f"> {self._now}", style="bold"))
        return Group(*parts)


def _table(storage: Storage) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - see screen
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("NODE", "CARD", "SHARE", "PODS", "HEALTH"):
        table.add_column(name, no_wrap=name != "PODS")
    for row in _rows(storage):
        *cells, health = row
        style = "red" if health.startswith("sick") else "green"
        table.add_row(*cells, Text(health, style=style))
    return table
