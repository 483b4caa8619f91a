"""Debian's packages and wheels: unpacked without running anything of them."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts.image import debian, wheels
from scripts.image.contents import SITE
from scripts.image.tree import Component, ImageError

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is missing")
CONTROL = """\
Package: example
Version: 1:2.0+deb12u1
Architecture: amd64
Maintainer: Nobody <nobody@example.test>
Description: for a test
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: MIT

Files: b
License: Apache-2.0
"""
METADATA = """\
Metadata-Version: 2.4
Name: Some.Thing
Version: 1.0
License-Expression: MIT
"""


@needs_dpkg
def test_a_package_is_files_links_and_a_status(tmp_path: Path) -> None:
    """Libraries move into /usr, absolute links with them; the version is escaped in the purl."""
    root = tmp_path / "root"
    for name, text in {
        "DEBIAN/control": CONTROL,
        "lib/x/libexample.so.1.0": "library",
        "usr/share/doc/example/copyright": COPYRIGHT,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "lib/x/libexample.so.1").symlink_to("libexample.so.1.0")
    (root / "lib64").mkdir()
    (root / "lib64/loader").symlink_to("/lib/x/libexample.so.1.0")
    archive = tmp_path / "example.deb"
    subprocess.run(["dpkg-deb", "--build", root, archive], check=True, capture_output=True)
    package = debian.Package("amd64", "example", "1:2.0+deb12u1", "0" * 64)
    component, tree = debian.unpack(package, archive)
    assert component.purl == (
        "pkg:deb/debian/example@1%3A2.0%2Bdeb12u1?arch=amd64&distro=debian-12"
    )
    assert component.licences == ("Apache-2.0", "MIT")
    assert tree["usr/lib/x/libexample.so.1.0"].content == b"library"
    assert tree["usr/lib/x/libexample.so.1"].target == "libexample.so.1.0"
    assert tree["usr/lib64/loader"].target == "/usr/lib/x/libexample.so.1.0"
    assert tree["var/lib/dpkg/status.d/example"].content.startswith(b"Package: example\n")
    assert {entry.purl for entry in tree.values()} == {component.purl}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("amd64 libc6=2.36 sha256:12\n", "not a locked package: 'amd64 libc6=2.36 sha256:12'"),
        (f"arm64 libc6=2.36 sha256:{'0' * 64}\n", "has no package for amd64"),
    ],
)
def test_a_lock_that_cannot_be_used_says_what_to_run(
    tmp_path: Path, text: str, message: str
) -> None:
    """A short hash, or another architecture's packages alone."""
    lock = tmp_path / "debian.txt"
    lock.write_text(f"# Written.\n{text}")
    with pytest.raises(ImageError, match=message) as raised:
        debian.read_lock(lock, "amd64")
    assert "make lock" in str(raised.value)


def test_a_cached_package_is_compared_with_its_lock(tmp_path: Path) -> None:
    """A damaged download is no part of an image."""
    package = debian.Package("amd64", "libc6", "2.36", "0" * 64)
    (tmp_path / f"{package.sha256}.deb").write_bytes(b"other")
    with pytest.raises(ImageError, match=r"libc6 2\.36: other bytes than locked"):
        debian.fetch([package], tmp_path)


def make_wheel(folder: Path, **files: str) -> Path:
    """A wheel with the metadata of Some.Thing, and files whose names have ``__`` for a slash."""
    path = folder / "some_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("some_thing-1.0.dist-info/METADATA", METADATA)
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def test_a_wheel_is_its_modules_and_its_commands(tmp_path: Path) -> None:
    """Of the data folders, libraries are modules; scripts and headers have no use."""
    points = "[console_scripts]\nthing = some.thing:main\n[other]\nx = y\n"
    path = make_wheel(
        tmp_path,
        **{
            "some/thing.py": "x = 1\n",
            "some_thing-1.0.data/platlib/some/_fast.so": "",
            "some_thing-1.0.data/scripts/thing.sh": "",
            "some_thing-1.0.dist-info/entry_points.txt": points,
        },
    )
    component, tree = wheels.unpack(path)
    assert (component.purl, component.licences) == ("pkg:pypi/some-thing@1.0", ("MIT",))
    assert {name.removeprefix(f"{SITE}/") for name in tree} == {
        "some/thing.py",
        "some/_fast.so",
        "some_thing-1.0.dist-info/METADATA",
        "some_thing-1.0.dist-info/entry_points.txt",
    }
    assert isinstance(component, Component)
    commands = wheels.programs(path, component.purl)
    assert list(commands) == ["usr/local/bin/thing"]
    (script,) = commands.values()
    assert script.mode == 0o755
    assert script.content.startswith(b"#!/usr/bin/python3.11 -IB\n")
    assert b"from some.thing import main\n" in script.content


@pytest.mark.parametrize("name", ["../../bin/sh", "some/../../etc/passwd"])
def test_a_wheel_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    """A path that leaves it ends the build."""
    with pytest.raises(ImageError, match="leaves its folder"):
        wheels.unpack(make_wheel(tmp_path, **{name: ""}))


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", "x86_64"), ("arm64", "aarch64")])
def test_wheels_run_on_the_images_c_library(architecture: str, machine: str) -> None:
    """Debian 12's 2.36 is the newest that a wheel may ask for."""
    tags = wheels.platforms(architecture)
    assert tags[0] == f"manylinux_2_36_{machine}"
    assert f"manylinux_2_17_{machine}" in tags
    assert f"manylinux_2_37_{machine}" not in tags
