"""The commands of a page, and what it says that they print."""

import re
from collections.abc import Iterator
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: Path, heading: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Each command under a heading, with a pattern of its output.

    A command begins with ``$`` and continues after a backslash. In the output ``…`` stands for any
    text of a line, and alone on a line for any lines.
    """
    section = page.read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    for block in _BLOCK.findall(section):
        for one in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", one)
            assert command is not None
            yield command[0], _pattern(one[command.end() :])


def _pattern(output: str) -> re.Pattern[str]:
    lines = (
        "(?:.*\n)*" if line == "…\n" else re.escape(line).replace("…", ".*")
        for line in output.splitlines(keepends=True)
    )
    return re.compile("".join(lines))
