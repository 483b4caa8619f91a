"""README, CONTRIBUTING, CHANGELOG and docs/: what they point at exists, in one form."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
FOLDERS = (
    "gpu_fraction|webhook|quota|certs|claims|scheduler|node_daemon|sandbox|tests|deploy|"
    "examples|docs"
)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The links to headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that exists, and a heading in it."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", prose(page)):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pages
def test_paths_exist(page: Path) -> None:
    """Each file or folder that a page names is there; NAME stands for any."""
    for path in re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w/.-]*\w", prose(page)):
        assert "NAME" in path or list(ROOT.glob(f"{path}*")), path


@pages
def test_prose_wraps_at_100_columns(page: Path) -> None:
    """Tables may be wider."""
    assert [x for x in prose(page).splitlines() if len(x) > 100 and not x.startswith("|")] == []


def test_decisions_have_one_form() -> None:
    """A numbered title, and the same sections."""
    for page in (ROOT / "docs" / "adr").iterdir():
        number = int(page.name[:4])
        headings = re.findall(r"^#.*$", page.read_text(), re.MULTILINE)
        assert headings[0].startswith(f"# {number}. "), page.name
        rest = ["## Context", "## Decision", "## Consequences", "## Rejected"]
        assert headings[1:] in (rest, rest[:-1]), page.name
