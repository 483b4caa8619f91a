"""The version of what is built: a tag's, or one that says it is none.

A commit tagged ``v0.2.0`` without changes is 0.2.0. Anything else is a development version of
pyproject.toml's version, with the commit and ``dirty`` where files differ from it.
"""

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path


class VersionError(Exception):
    """The tag and pyproject.toml disagree, or the source is no git repository."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version in the forms that its places allow.

    Attributes:
        release: three numbers.
        local: empty for a release; else what follows the plus sign, such as ``g1a2b3c4.dirty``.
    """

    release: str
    local: str = ""

    @property
    def python(self) -> str:
        """For distributions. Source: PEP 440."""
        return f"{self.release}.dev0+{self.local}" if self.local else self.release

    @property
    def chart(self) -> str:
        """For the chart. Source: Semantic Versioning 2.0."""
        return f"{self.release}-dev+{self.local}" if self.local else self.release

    @property
    def tag(self) -> str:
        """For the image; a tag holds no plus sign. Source: OCI distribution-spec."""
        return self.chart.replace("+", "-")


def current(root: Path) -> Version:
    """The version of a work tree.

    Raises:
        VersionError: see the class.
    """
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    commit = _git(root, "rev-parse", "--short=9", "HEAD")
    dirty = bool(_git(root, "status", "--porcelain"))
    tags = [tag for tag in _git(root, "tag", "--points-at", "HEAD").split() if _is_version(tag)]
    if not tags or dirty:
        return Version(declared, f"g{commit}{'.dirty' if dirty else ''}")
    if tags != [f"v{declared}"]:
        raise VersionError(
            f"the commit is tagged {', '.join(tags)}, pyproject.toml says {declared}: both must "
            f"name one version"
        )
    return Version(declared)


def commit_time_s(root: Path) -> int:
    """When the commit of a work tree was made; the time of what is built from it."""
    return int(_git(root, "log", "-1", "--format=%ct"))


def commit(root: Path) -> str:
    """The full name of a work tree's commit."""
    return _git(root, "rev-parse", "HEAD")


def source_files(root: Path) -> list[Path]:
    """The files that git has or would take, relative to the root."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = {Path(name) for name in listed.split("\0") if name}
    return sorted(name for name in names if (root / name).is_symlink() or (root / name).exists())


def _is_version(tag: str) -> bool:
    return re.fullmatch(r"v\d+\.\d+\.\d+", tag) is not None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VersionError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
