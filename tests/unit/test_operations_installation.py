"""docs/operations.md has a section for each finding of the doctor, and each link leads to one."""

import re
from pathlib import Path

import pytest

from gpu_fraction.dashboard.doctor.checks import calls
from gpu_fraction.dashboard.doctor.table import CHECKS
from gpu_fraction.domain.pages import anchor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()

HEADINGS = sorted(
    {check.heading for check in CHECKS}
    | {one.heading for one in calls.FAILURES}
    | {calls.UNKNOWN, calls.NOT_CALLED, calls.OTHERS_REFUSE}
)


def installation() -> list[str]:
    """The headings of that part of the page."""
    part = re.split(r"^## Installation$", PAGE, flags=re.MULTILINE)[1]
    part = re.split(r"^## ", part, flags=re.MULTILINE)[0]
    return re.findall(r"^### (.*)$", part, re.MULTILINE)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_finding_has_its_section(heading: str) -> None:
    """With a check and a fix."""
    assert heading in installation()
    section = PAGE.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    assert "\n- Check: " in section
    assert "\n- Fix: " in section


def test_no_section_is_about_nothing() -> None:
    """A section of installations is one that the doctor links to."""
    assert sorted(installation()) == HEADINGS


def test_links_written_in_the_repository_lead_to_sections() -> None:
    """In code, manifests and rules, whoever wrote them."""
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)}
    files = [
        *(ROOT / "gpu_fraction").rglob("*.py"),
        *(file for file in (ROOT / "deploy").rglob("*") if file.is_file()),
    ]
    written = {
        (file.name, found)
        for file in files
        for found in re.findall(r"operations\.md#([\w-]+)", file.read_text())
    }
    assert {one for one in written if one[1] not in anchors} == set()
