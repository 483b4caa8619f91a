"""Every line of docs/threat-model.md is tried by the hostile tenant, or says why not."""

import re
from pathlib import Path

from tests.cluster.hostile_attempts import ATTEMPTS, NOT_TRIED, TRIED_APART

TEXT = (Path(__file__).parents[2] / "docs" / "threat-model.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| (T\d+) \||^- \*\*(N\d+),", TEXT, re.MULTILINE)


def test_each_line_is_tried_or_says_why_not() -> None:
    """And nothing is said about lines that are not there."""
    stated = [one or other for one, other in LINES]
    tried = {attempt.line for attempt in ATTEMPTS} | {*TRIED_APART}
    assert len(stated) == len({*stated})
    assert tried | NOT_TRIED.keys() == {*stated}
    assert not tried & NOT_TRIED.keys()


def test_lines_without_a_number_are_none() -> None:
    """Rows of the first table, and points of the last section."""
    first = TEXT.partition("|---|---|---|---|\n")[2].partition("\n\n")[0].splitlines()
    last = re.findall(r"^- .*", TEXT.partition("## What nothing here stops")[2], re.MULTILINE)
    assert len(first) + len(last) == len(LINES)


def test_attempts_are_told_apart() -> None:
    """Each is another call."""
    calls = [repr(attempt) for attempt in ATTEMPTS]
    assert len(calls) == len({*calls})
