"""docs/backends.md shows every backend as its class and its examples have it."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_is_what_the_backends_are() -> None:
    """Where it is not, ``make backends-page`` writes it again."""
    page = runpy.run_path(str(ROOT / "scripts" / "generate_backends.py"))["page"]
    written = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    assert written == "\n".join(page()).rstrip() + "\n"
