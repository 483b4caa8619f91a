"""The version of what is built, from the tag or saying that there is none."""

import re
import subprocess
from pathlib import Path

import pytest

from scripts.version import Version, VersionError, current


@pytest.fixture
def work_tree(tmp_path: Path) -> Path:
    """A repository with one commit, whose pyproject.toml says 0.2.0."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def git(folder: Path, *words: str) -> None:
    """Runs git as somebody."""
    who = ["-c", "user.name=n", "-c", "user.email=e@example.test", "-c", "tag.gpgSign=false"]
    subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True)


def test_a_tagged_commit_is_a_release(work_tree: Path) -> None:
    """All forms are the tag's numbers; other tags do not matter."""
    git(work_tree, "tag", "v0.2.0")
    git(work_tree, "tag", "nightly")
    version = current(work_tree)
    assert (version.python, version.chart, version.tag) == ("0.2.0",) * 3


def test_without_a_tag_it_is_a_development_version(work_tree: Path) -> None:
    """It names the commit, in a form that each place takes."""
    version = current(work_tree)
    assert re.fullmatch(r"0\.2\.0\.dev0\+g[0-9a-f]{9}", version.python)
    assert re.fullmatch(r"0\.2\.0-dev\+g[0-9a-f]{9}", version.chart)
    assert re.fullmatch(r"0\.2\.0-dev-g[0-9a-f]{9}", version.tag)


def test_a_changed_file_makes_no_release(work_tree: Path) -> None:
    """Even on a tagged commit."""
    git(work_tree, "tag", "v0.2.0")
    (work_tree / "new").touch()
    assert current(work_tree).tag.endswith(".dirty")


def test_tag_and_project_agree(work_tree: Path) -> None:
    """A tag of another version ends the release before anything is built."""
    git(work_tree, "tag", "v0.3.0")
    with pytest.raises(VersionError, match=r"tagged v0\.3\.0, pyproject\.toml says 0\.2\.0"):
        current(work_tree)


def test_no_repository_no_version(tmp_path: Path) -> None:
    """The message is git's."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    with pytest.raises(VersionError, match="not a git repository"):
        current(tmp_path)


def test_forms_of_a_development_version() -> None:
    """A tag has no plus sign."""
    version = Version("0.2.0", "gabc.dirty")
    assert (version.chart, version.tag) == ("0.2.0-dev+gabc.dirty", "0.2.0-dev-gabc.dirty")
