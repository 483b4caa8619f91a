"""docs/operations.md has a section for each heading that the code links to."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_fraction.dashboard.explain.causes import CAUSES
from gpu_fraction.domain.pages import anchor

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def linked() -> Iterator[tuple[str, str]]:
    """The part of the page and the heading of every link in the code."""
    for cause in CAUSES.values():
        yield "Pods", cause.heading


def sections() -> dict[str, list[str]]:
    """Headings of the page, by their part."""
    found: dict[str, list[str]] = {}
    part = ""
    for marks, heading in re.findall(r"^(##+) (.*)$", PAGE.read_text(), re.MULTILINE):
        if marks == "##":
            part = heading
            found[part] = []
        else:
            found[part].append(heading)
    return found


@pytest.mark.parametrize(("part", "heading"), sorted(set(linked())))
def test_a_link_leads_to_a_section(part: str, heading: str) -> None:
    """In the part of the page where people look for it."""
    assert heading in sections()[part]


def test_no_section_is_about_nothing() -> None:
    """A section of pods is one that ``explain`` links to."""
    assert set(sections()["Pods"]) == {heading for part, heading in linked() if part == "Pods"}


def test_anchors_differ() -> None:
    """GitHub gives the second of two equal headings another anchor."""
    found = [anchor(heading) for part in sections().values() for heading in part]
    assert len(found) == len(set(found))
