"""The flags of every command, which people and manifests rely on."""

import re
from pathlib import Path

import pytest

from gpu_fraction.domain.backends import SETTINGS
from tests.unit.cli.conftest import Command

LISTED = dict(
    line.split(": ", 1)
    for line in (Path(__file__).parents[2] / "data" / "flags.txt").read_text().splitlines()
)


@pytest.mark.parametrize("name", LISTED)
def test_no_flag_comes_or_goes_unnoticed(command: Command, name: str) -> None:
    """The list is written by hand; variables and file keys follow, and stacks add their own."""
    text = command(*name.split(), "--help").out
    shown = re.findall(r"^  (?:-\w.*, )?(--[a-z-]+)", text, re.MULTILINE)
    stacks = {"--" + one.name.replace("_", "-") for one in SETTINGS}
    assert {*shown} - stacks == {"--help", *LISTED[name].split()}
