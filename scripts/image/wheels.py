"""Wheels: fetched by pip against the lock's hashes, unpacked without running anything of them."""

import hashlib
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import suppress
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

from scripts.image.contents import GLIBC_MINOR, PYTHON, SITE
from scripts.image.tree import Component, Entry, ImageError, Tree, run

_MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}
_OLDEST_GLIBC_MINOR = {"amd64": 5, "arm64": 17}
"""Source: PEP 600 and PEP 599, the first manylinux of each."""
_PROGRAM = """\
#!/usr/bin/python{python} -IB
import sys

from {module} import {function}

sys.exit({function}())
"""


def platforms(architecture: str) -> list[str]:
    """Tags of wheels that run on the image's C library, the best first. Source: PEP 600."""
    machine = _MACHINE[architecture]
    minors = range(GLIBC_MINOR, _OLDEST_GLIBC_MINOR[architecture] - 1, -1)
    return [*(f"manylinux_2_{minor}_{machine}" for minor in minors), f"manylinux2014_{machine}"]


def fetch(lock: Path, architecture: str, cache: Path) -> list[Path]:
    """Every wheel that the lock names, for the image's interpreter, from the cache or by pip.

    Raises:
        ImageError: a package has no wheel for the architecture, or other bytes than locked.
    """
    text = lock.read_text()
    folder = cache / f"{architecture}-{hashlib.sha256(text.encode()).hexdigest()}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            to = Path(scratch) / "wheels"
            argv: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet"]
            argv += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
            argv += ["--require-hashes", "-r", lock, "--dest", to]
            argv += [f"--python-version={PYTHON}", "--implementation=cp"]
            argv += [f"--platform={tag}" for tag in platforms(architecture)]
            run(argv)
            with suppress(OSError):  # another build was faster
                to.rename(folder)
    found = sorted(folder.glob("*.whl"))
    for path in found:
        if hashlib.sha256(path.read_bytes()).hexdigest() not in text:
            raise ImageError(f"{path} has other bytes than locked; remove its folder")
    return found


def unpack(wheel: Path) -> tuple[Component, Tree]:
    """A wheel's files where the interpreter finds them, and its commands.

    Source: the specification "binary distribution format". Of its data folders only purelib and
    platlib go into an image.
    """
    content = wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        files = {
            info.filename: (archive.read(info), info.external_attr >> 16)
            for info in archive.infolist()
            if not info.is_dir()
        }
    (about,) = (name for name in files if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
    metadata = BytesParser().parsebytes(files[about][0])
    name, version = metadata["Name"], metadata["Version"]
    normal = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{normal}@{version}"
    tree: Tree = {}
    for path, (data, mode) in files.items():
        inside = _place(path)
        if ".." in inside.split("/"):
            raise ImageError(f"{wheel.name}: {path} leaves its folder")
        if inside:
            tree[f"{SITE}/{inside}"] = Entry(purl, data, 0o755 if mode & 0o100 else 0o644)
    digest = hashlib.sha256(content).hexdigest()
    return Component(name, version, purl, tuple(_licences(metadata)), digest), tree


def programs(wheel: Path, purl: str) -> Tree:
    """The wheel's console scripts, started without a shell and apart from the environment."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        text = archive.read(names[0]).decode() if names else ""
    points = ConfigParser(delimiters=("=",))
    points.read_string(text)
    tree: Tree = {}
    for name, reference in points["console_scripts"].items() if names else ():
        module, function = reference.split(":")
        script = _PROGRAM.format(python=PYTHON, module=module, function=function)
        tree[f"usr/local/bin/{name}"] = Entry(purl, script.encode(), 0o755)
    return tree


def _place(path: str) -> str:
    head, _, rest = path.partition("/")
    if not head.endswith(".data"):
        return path
    kind, _, inside = rest.partition("/")
    return inside if kind in {"purelib", "platlib"} else ""


def _licences(metadata: Message) -> Iterator[str]:
    """The SPDX expression, else the classifiers, else the first line of the old field."""
    if expression := metadata.get("License-Expression"):
        yield expression
        return
    classifiers = metadata.get_all("Classifier", [])
    found = [text.split(" :: ")[-1] for text in classifiers if text.startswith("License :: ")]
    old = (metadata.get("License") or "").strip().splitlines()
    yield from found or old[:1]
