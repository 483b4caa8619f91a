"""Tables as kubectl prints them, their other formats, and colours on terminals alone."""

import argparse
import csv
import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TextIO, TypeVar

from gpu_fraction.settings.option import SettingsError

T = TypeVar("T")

API_VERSION: Final = "cli.gpu-fraction.dev/v1"
"""Of lists for programs (docs/status.md); fields are added, never renamed or removed."""

OUTPUTS: Final = ("table", "wide", "json", "yaml", "name", "csv")

BAR_CELLS: Final = 10

_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that move the cursor, turn the text or end the line. Source: Unicode
Standard Annex 44, "General Category Values"."""

_CODES: Final = {"red": "31", "yellow": "33", "green": "32", "dim": "2", "bold": "1"}


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of a table.

    Attributes:
        title: Its header, upper case.
        text: The cell of a row.
        order: What ``--sort`` compares; None for the text.
        paint: A colour for the cell, a key of the palette; None or an empty one for none.
        wide: Whether ``-o wide`` alone shows it.
    """

    title: str
    text: Callable[[T], str]
    order: Callable[[T], Any] | None = None
    paint: Callable[[T], str] | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """What a command lists.

    Attributes:
        kind: Of one item, such as ``Card``; the list is a ``CardList``.
        columns: For tables and CSV.
        record: An item for programs: plain JSON, names in camelCase with units.
        name: An item as ``-o name`` writes it, such as ``pod/train``.
    """

    kind: str
    columns: Sequence[Column[T]]
    record: Callable[[T], Mapping[str, Any]]
    name: Callable[[T], str]


@dataclass(frozen=True, slots=True)
class Style:
    """How tables look.

    Attributes:
        colour: Whether cells are coloured.
        ascii: Whether bars are drawn with ASCII alone.
        bars: Whether percentages have a bar.
        headers: Whether tables have headers.
        wide: Whether wide columns are shown.
    """

    colour: bool = False
    ascii: bool = True
    bars: bool = True
    headers: bool = True
    wide: bool = False

    def bar(self, milli: int) -> str:
        """A bar of ten cells with a percentage; above 1000 thousandths it is full."""
        if not self.bars:
            return f"{milli // 10}%"
        full, empty = ("#", ".") if self.ascii else ("█", "░")
        # Anything that is taken shows, and a full bar is full.
        cells = min(BAR_CELLS, max(milli * BAR_CELLS // 1000, 1 if milli > 0 else 0))
        return f"{full * cells}{empty * (BAR_CELLS - cells)} {milli // 10:>3}%"


def load_colour(milli: int) -> str:
    """The colour of a load: red from 100 %, yellow from 90 %."""
    return "red" if milli >= 1000 else "yellow" if milli >= 900 else "green"


def declare(parser: argparse.ArgumentParser, *, outputs: Sequence[str] = OUTPUTS) -> None:
    """Declare the flags of the output."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        choices=outputs,
        default="table",
        help=f"format: {', '.join(outputs)} (default table)",
    )
    group.add_argument("--no-headers", action="store_true", help="tables without headers")
    group.add_argument("--ascii", action="store_true", help="bars of ASCII characters")
    declare_colour(group)


def declare_colour(parser: argparse._ActionsContainer) -> None:
    """Declare ``--color``, for ``colours``."""
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours (default auto: on a terminal without NO_COLOR)",
    )


def style(args: argparse.Namespace, out: TextIO, environ: Mapping[str, str]) -> Style:
    """How to print to that stream."""
    unicode = (getattr(out, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return Style(
        colour=colours(args.color, out, environ),
        ascii=args.ascii or not unicode,
        bars=args.output != "csv",
        headers=not args.no_headers,
        wide=args.output == "wide",
    )


def colours(choice: str, out: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to write colours.

    Source: no-color.org, force-color.org and clig.dev, "Output".
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return out.isatty() and environ.get("TERM") != "dumb"


def table(columns: Sequence[Column[T]], items: Iterable[T], look: Style) -> str:
    """Columns with two spaces between them, no borders; empty without headers and items."""
    shown = [column for column in columns if look.wide or not column.wide]
    rows = [
        [
            (text := clean(c.text(item)), c.paint(item) if c.paint and text != "-" else "")
            for c in shown
        ]
        for item in items
    ]
    if look.headers:
        rows.insert(0, [(column.title, "") for column in shown])
    widths = [max((_width(row[at][0]) for row in rows), default=0) for at in range(len(shown))]
    lines = []
    for row in rows:
        cells = [
            painted(text, colour, look) + " " * (width - _width(text))
            for (text, colour), width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def clean(text: str) -> str:
    """Text on one line without control characters: names on nodes and in statuses are foreign."""
    return "".join("?" if unicodedata.category(c) in _UNPRINTABLE else c for c in text)


def painted(text: str, colour: str, look: Style) -> str:
    """Text in a colour where the style has colours."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if colour and look.colour and text else text


def _width(text: str) -> int:
    """Cells on a terminal: East Asian wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def ordered(listing: Listing[T], items: Iterable[T], by: str | None) -> list[T]:
    """The items sorted by a column; a leading ``-`` sorts downwards.

    Raises:
        SettingsError: no column has that title.
    """
    if not by:
        return list(items)
    wanted = by.removeprefix("-").upper()
    column = next((c for c in listing.columns if c.title == wanted), None)
    if column is None:
        allowed = ", ".join(c.title.lower() for c in listing.columns)
        raise SettingsError([f"--sort {by}: not a column; allowed: {allowed}"])
    return sorted(items, key=column.order or column.text, reverse=by.startswith("-"))


def formatted(
    listing: Listing[T],
    items: Sequence[T],
    output: str,
    look: Style,
    more: Mapping[str, Any] | None = None,
) -> str:
    """The items in a format of ``OUTPUTS``.

    Args:
        listing: Columns and records.
        items: In their order.
        output: The format.
        look: For tables.
        more: Further fields of the list for programs.
    """
    if output in {"json", "yaml"}:
        head = {"apiVersion": API_VERSION, "kind": f"{listing.kind}List"}
        return document(
            {**head, "items": [listing.record(i) for i in items], **(more or {})}, output
        )
    if output == "name":
        return "".join(f"{clean(listing.name(item))}\n" for item in items)
    if output == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if look.headers:
            writer.writerow([column.title.lower() for column in listing.columns])
        writer.writerows([clean(c.text(item)) for c in listing.columns] for item in items)
        return out.getvalue()
    return table(listing.columns, items, look)


def document(content: Mapping[str, Any], output: str) -> str:
    """A document for programs, as JSON or YAML."""
    if output == "json":
        return json.dumps(content, indent=2) + "\n"
    # Imported here: no other format needs it.
    from ruamel.yaml import YAML  # noqa: PLC0415

    out = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(content, out)
    return out.getvalue()


def note(text: str) -> None:
    """A message to people, beside the answer."""
    sys.stderr.write(clean(text) + os.linesep)
