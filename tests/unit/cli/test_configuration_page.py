"""docs/configuration.md lists every setting as its declaration has it."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_is_what_the_settings_are() -> None:
    """Where it is not, ``make configuration`` writes it again."""
    page = runpy.run_path(str(ROOT / "scripts" / "generate_configuration.py"))["page"]
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == "\n".join(page()).rstrip() + "\n"
