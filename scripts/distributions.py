"""The wheel and the sdist, with the version of what is built in place of pyproject.toml's."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from scripts.version import Version, source_files

_PROJECTS = ("pyproject.toml", "sandbox/pyproject.toml")


class DistributionError(Exception):
    """A distribution cannot be built."""


def stage(root: Path, version: Version, to: Path) -> None:
    """Copies the work tree's sources, links as links, with the version written into them."""
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    for name in source_files(root):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, to / name, follow_symlinks=False)
    for project in _PROJECTS:
        text = (to / project).read_text()
        for before in ('\nversion = "', "gpu-fraction-demo==", "gpu-fraction[node]=="):
            text = text.replace(before + declared, before + version.python)
        (to / project).write_text(text)


def build(staged: Path, kind: str, to: Path, epoch_s: int) -> Path:
    """One distribution of a staged source.

    Args:
        staged: see ``stage``; the demo's is its folder ``sandbox``.
        kind: wheel or sdist.
        to: a folder.
        epoch_s: time of the files in it.

    Raises:
        DistributionError: hatchling failed.
    """
    before = set(to.iterdir()) if to.exists() else set()
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", to],
        cwd=staged,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DistributionError(f"hatchling, target {kind}:\n{done.stdout}{done.stderr}")
    (made,) = set(to.iterdir()) - before
    return made
