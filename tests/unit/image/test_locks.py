"""requirements/: what pyproject.toml asks for, each with hashes."""

import re
import tomllib
from typing import Any

import pytest

from scripts.image.contents import DEBIAN, EXTRAS, MULTIARCH
from scripts.image.debian import read_lock
from scripts.lock import FILES, FOLDER, ROOT, parse

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    """As package indexes compare names. Source: the specification "name normalization"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked(*extras: str) -> set[str]:
    """Names and versions that pyproject.toml pins, of the package and of extras."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][x] for x in extras)]
    pins = (pin.partition("==") for each in lists for pin in each if "==" in pin)
    return {f"{normal(name)}=={version}" for name, _, version in pins}


def locked(*names: str) -> dict[str, str]:
    """Names and versions of lock files, with the lines of each."""
    return {
        f"{normal(block.partition('==')[0])}=={block.partition('==')[2].split()[0]}": block
        for name in names
        for _, block in parse((FOLDER / f"{name}.txt").read_text())
    }


@pytest.mark.parametrize(
    ("files", "extras"),
    [
        (("runtime",), EXTRAS),
        (("runtime", "dev"), (*EXTRAS, "dev")),
        (tuple(FILES), (*EXTRAS, "dev", "tools")),
    ],
)
def test_locks_have_what_is_asked_for(files: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """In the same version; make lock was run after the last change of dependencies."""
    assert asked(*extras) <= set(locked(*files))


def test_each_package_is_locked_once() -> None:
    """No two files name two versions of one."""
    names = [name for file in FILES for name, _ in parse((FOLDER / f"{file}.txt").read_text())]
    assert len(names) == len(set(names)) > 60


def test_each_has_hashes_and_nothing_names_a_server() -> None:
    """Pip takes the machine's index, and refuses other bytes."""
    for lines in locked(*FILES).values():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", lines), lines
    for path in FOLDER.iterdir():
        assert "://" not in path.read_text()


@pytest.mark.parametrize("architecture", MULTIARCH)
def test_debians_packages_are_locked(architecture: str) -> None:
    """The image's, and no other, for both architectures."""
    packages = read_lock(FOLDER / "debian.txt", architecture)
    assert [package.name for package in packages] == sorted(DEBIAN)
