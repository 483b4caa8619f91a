"""``gpu-fraction demo``: what a newcomer sees first."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.reviews import FOLDER, RECORDED
from tests.unit.cli.conftest import Command


def test_only_a_changed_share_is_refused(command: Command) -> None:
    """Each pod reaches /validate as /mutate left it, so only the edit of a share is refused."""
    result = command("demo", "--reviews", "--examples", FOLDER.parent)
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()]
    decided = {row[0]: row[1] for row in rows if row and row[0] in RECORDED}
    assert set(decided) == set(RECORDED)
    refused = [name for name, decision in decided.items() if decision != "allowed"]
    assert refused == ["notebook-update-validating"]
    assert "cannot change after the pod is created" in result.out


def test_the_story_ends_with_what_to_do_next_and_leaves_nothing() -> None:
    """Off a terminal: plain lines, no escape sequence; it says what is simulated."""
    root = Path(__file__).parents[3]
    before = set(Path("/tmp").glob("gpu-fraction-demo-*"))
    done = subprocess.run(
        [sys.executable, "-m", "gpu_fraction.cli.main", "demo"],
        env={**os.environ, "PYTHONPATH": str(root), "GPU_FRACTION_BACKEND": "hami"},
        capture_output=True,
        check=False,
        text=True,
        timeout=55,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    titles = [line[0] for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert titles == list("1234567")
    assert "simulated:  API server" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].strip().startswith("docs/installation.md")
    assert set(Path("/tmp").glob("gpu-fraction-demo-*")) <= before


def test_without_its_distribution_the_demo_names_what_to_install() -> None:
    """A plain installation has no sandbox; --help and --reviews need none."""
    program = (
        "import sys; sys.modules['gpu_fraction.sandbox'] = None; "
        "from gpu_fraction.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "demo"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'gpu-fraction[demo]'" in done.stderr
