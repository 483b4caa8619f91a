"""docs/performance.md: one section a benchmark, each replaced by the benchmark that owns it."""

import os
import platform
import re
import textwrap
from datetime import UTC, datetime
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def machine() -> str:
    """The machine in words, as every section states it."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{int(memory[1]) >> 20 if memory else '?'} GiB, "
        f"Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    )


def write_section(name: str, title: str, text: str) -> None:
    """Replace the section between its markers, or append it; lines of prose wrap at 100."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    lines = [
        line if line.startswith("|") else textwrap.fill(line, 100, break_on_hyphens=False)
        for line in text.strip().split("\n")
    ]
    section = "\n".join([begin, f"## {title}", "", *lines, end])
    old = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else "# Performance\n"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if pattern.search(old):
        new = pattern.sub(lambda _: section, old)
    else:
        new = old.rstrip() + "\n\n" + section + "\n"
    DOCUMENT.write_text(new, encoding="utf-8")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
