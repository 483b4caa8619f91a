"""The flags of every command, which people and manifests rely on."""

import re
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Command

LISTED = dict(
    line.split(": ", 1)
    for line in (Path(__file__).parents[2] / "data" / "flags.txt").read_text().splitlines()
)


@pytest.mark.parametrize("name", LISTED)
def test_no_flag_comes_or_goes_unnoticed(command: Command, name: str) -> None:
    """The list is written by hand; environment variables and file keys follow the flags."""
    text = command(*name.split(), "--help").out
    shown = re.findall(r"^  (?:-\w.*, )?(--[a-z-]+)", text, re.MULTILINE)
    assert {*shown} == {"--help", *LISTED[name].split()}
