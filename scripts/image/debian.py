"""Packages of Debian: locked by hash, fetched by the machine's own apt sources, unpacked."""

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from scripts.image.contents import DEBIAN, MULTIARCH, merged
from scripts.image.tree import Component, Entry, ImageError, Tree, run

RELEASE = "debian-12"
_CERTIFICATES = "usr/share/ca-certificates/"
_GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"
_STATED_IN_PROSE = {
    "base-files": "GPL-2.0-or-later",
    "gcc-12-base": _GCC,
    "libc6": "LGPL-2.1-or-later",
    "libgcc-s1": _GCC,
    "libpython3.11-minimal": "Python-2.0",
    "libpython3.11-stdlib": "Python-2.0",
    "libstdc++6": _GCC,
    "python3.11-minimal": "Python-2.0",
}
"""The main licence where the copyright file is prose. Source: those files, read 2026-12-01."""


class NotServedError(ImageError):
    """The apt sources have other versions than the lock."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package of one architecture, as the lock names it."""

    architecture: str
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.architecture} {self.name}={self.version} sha256:{self.sha256}"


def read_lock(lock: Path, architecture: str) -> list[Package]:
    """The packages of an architecture.

    Raises:
        ImageError: a line is malformed, or there is none for the architecture.
    """
    found = []
    for line in lock.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+) ([\w.+-]+)=(\S+) sha256:([0-9a-f]{64})", line)
        if match is None:
            raise ImageError(f"{lock.name}: not a locked package: {line!r}; run make lock")
        found.append(Package(*match.groups()))
    found = [package for package in found if package.architecture == architecture]
    if not found:
        raise ImageError(f"{lock.name} has no package for {architecture}; run make lock")
    return found


def newest(architecture: str) -> list[Package]:
    """What the apt sources offer now; apt has verified the signature of their lists."""
    with _apt(architecture) as apt:
        printed = run([*apt, "download", "--print-uris", *DEBIAN])
    found = []
    line = re.compile(r"^'\S+' (\S+) \d+ SHA256:([0-9a-f]{64})$", re.MULTILINE)
    for file, sha256 in line.findall(printed):
        name, version, _ = unquote(file).split("_")
        found.append(Package(architecture, name, version, sha256))
    if sorted(package.name for package in found) != sorted(DEBIAN):
        raise ImageError(f"apt offers {len(found)} of {len(DEBIAN)} packages for {architecture}")
    return sorted(found, key=lambda package: package.name)


def fetch(packages: Iterable[Package], cache: Path) -> dict[Package, Path]:
    """The archives of packages, from the cache or by apt.

    Raises:
        NotServedError: the apt sources do not have a package in this version.
        ImageError: a package has other bytes than locked.
    """
    wanted = {package: cache / f"{package.sha256}.deb" for package in packages}
    if missing := [package for package, path in wanted.items() if not path.is_file()]:
        cache.mkdir(parents=True, exist_ok=True)
        with _apt(missing[0].architecture) as apt, tempfile.TemporaryDirectory(dir=cache) as to:
            words = [f"{package.name}={package.version}" for package in missing]
            try:
                run([*apt, "download", *words], cwd=to)
            except ImageError as e:
                raise NotServedError(
                    f"{e}\nThe apt sources of this machine do not serve the packages that "
                    "requirements/debian.txt locks. They are of Debian 12; after its security "
                    "updates, make lock takes the new ones."
                ) from e
            for path in Path(to).glob("*.deb"):
                path.rename(cache / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.deb")
    for package, path in wanted.items():
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
            raise ImageError(f"{package.name} {package.version}: other bytes than locked")
    return wanted


def unpack(package: Package, archive: Path) -> tuple[Component, Tree]:
    """A package's files, all of them, and what scanners know it by.

    The entry below /var/lib/dpkg/status.d is distroless' convention, which scanners read.
    """
    tree: Tree = {}
    purl = (
        f"pkg:deb/debian/{quote(package.name, safe='')}@{quote(package.version, safe='')}"
        f"?arch={package.architecture}&distro={RELEASE}"
    )
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        for member in files:
            name = merged(member.name.removeprefix("./"))
            if member.issym():
                tree[name] = Entry(purl, target=_link(member.linkname))
            elif member.isfile() and (content := files.extractfile(member)):
                tree[name] = Entry(purl, content.read(), 0o755 if member.mode & 0o100 else 0o644)
            elif not member.isdir():
                raise ImageError(f"{package.name}: {member.name} is no file, link or folder")
    control = run(["dpkg-deb", "--field", archive])
    tree[f"var/lib/dpkg/status.d/{package.name}"] = Entry(purl, control.encode())
    component = Component(
        package.name, package.version, purl, tuple(_licences(package.name, tree)), package.sha256
    )
    return component, _certificates(tree, purl)


def _link(target: str) -> str:
    """A link's target where /lib is a link itself: relative ones keep their depth."""
    return f"/{merged(target[1:])}" if target.startswith("/") else target


def _licences(name: str, tree: Tree) -> Iterator[str]:
    """Short names of the package's machine-readable copyright file, or what its prose says."""
    if name in _STATED_IN_PROSE:
        yield _STATED_IN_PROSE[name]
        return
    entry = tree.get(f"usr/share/doc/{name}/copyright")
    text = entry.content.decode(errors="replace") if entry and not entry.target else ""
    if text.startswith("Format:"):
        yield from sorted(set(re.findall(r"^License: *(\S.*?) *$", text, re.MULTILINE)))


def _certificates(tree: Tree, purl: str) -> Tree:
    """The roots as one file, which update-ca-certificates makes on a machine."""
    roots = sorted(name for name in tree if name.startswith(_CERTIFICATES))
    if roots:
        bundle = b"".join(tree.pop(name).content for name in roots)
        tree["etc/ssl/certs/ca-certificates.crt"] = Entry(purl, bundle)
    return tree


@contextmanager
def _apt(architecture: str) -> Iterator[list[str | Path]]:
    """The start of an apt-get command with lists of its own; no root is needed."""
    if shutil.which("apt-get") is None:
        raise ImageError("apt-get is missing: the image's base is made of packages of Debian")
    if architecture not in MULTIARCH:
        raise ImageError(f"architecture {architecture}: allowed are {', '.join(MULTIARCH)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        options = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
            "Debug::NoLocking": "true",
        }
        apt: list[str | Path] = ["apt-get"]
        apt += [f"--option={key}={value}" for key, value in options.items()]
        run([*apt, "--error-on=any", "update"])
        yield apt
