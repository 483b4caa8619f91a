from pathlib import Path

import pytest

from tests.cluster.assets.sources import private_list, read_sources
from tests.cluster.assets.steps import AssetError

_DEB822 = """
# the main archive
Types: deb
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://tools.example/apt
Suites: stable
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""

_ONE_LINE = """
deb [signed-by=/keys/a.gpg arch=amd64,arm64] http://archive.example/debian bookworm main contrib
deb-src http://archive.example/debian bookworm main
# deb http://off.example/debian bookworm main
"""


def _etc_apt(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    return tmp_path


def test_stanzas_get_source_packages_and_the_next_release(tmp_path: Path) -> None:
    """Only the archive of the running release is taken; its address and keys stay as they are."""
    etc_apt = _etc_apt(tmp_path, "sources.list.d/debian.sources", _DEB822)
    first, second = private_list(read_sources(etc_apt), "bookworm", "trixie").split("\n\n")
    assert first.startswith("Types: deb deb-src\nSuites: bookworm\n")
    assert second.startswith("Types: deb\nSuites: trixie\n")
    for stanza in (first, second):
        assert "URIs: http://archive.example/debian\nComponents: main\n" in stanza
        assert "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n" in stanza
        assert "off.example" not in stanza


def test_one_line_entries_keep_their_options(tmp_path: Path) -> None:
    """The older notation becomes the same stanzas; comments and source entries add none."""
    etc_apt = _etc_apt(tmp_path, "sources.list", _ONE_LINE)
    made = private_list(read_sources(etc_apt), "bookworm", "trixie")
    assert made.split("\n\n")[0].splitlines() == [
        "Types: deb deb-src",
        "Suites: bookworm",
        "URIs: http://archive.example/debian",
        "Components: main contrib",
        "Signed-By: /keys/a.gpg",
        "Architectures: amd64 arm64",
    ]
    assert made.count("Types:") == 2


def test_machine_without_the_release_is_told(tmp_path: Path) -> None:
    """No source of that suite: the error names the suite."""
    etc_apt = _etc_apt(tmp_path, "sources.list", "deb http://archive.example/debian sid main\n")
    with pytest.raises(AssetError, match="'bookworm'"):
        private_list(read_sources(etc_apt), "bookworm", "trixie")
