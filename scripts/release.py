"""Build everything that is published, into one folder: ``make release``.

Distributions, images with bills of materials, chart, manifests, CRD, the list of images, the
notes of this version and SHA256SUMS. A commit that is tagged vX.Y.Z gives a release; any other a
development version, whose names say so. The same commit gives the same bytes.
"""

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts import distributions
from scripts.image.build import NAME, ROOT, Image, build
from scripts.image.contents import MULTIARCH
from scripts.image.oci import MTIME
from scripts.image.tree import ImageError
from scripts.version import Version, VersionError, commit_time_s, current, source_files

_CRD = "CustomResourceDefinition"
_KIND = re.compile(r"^kind: (\w+)$", re.MULTILINE)
_IMAGE = re.compile(r"(?<=\simage: )(gpu-fraction:)\S+")
_LABEL = re.compile(r"(?<=\s)(app\.kubernetes\.io/version: ).*")
_SCHEDULER = "registry.k8s.io/kube-scheduler:vVERSION  # of the cluster"


class ReleaseError(Exception):
    """Something that is published is missing."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is released.

    Attributes:
        root: the work tree.
        version: written into everything.
        epoch_s: time of the release.
    """

    root: Path
    version: Version
    epoch_s: int

    def notes(self) -> str:
        """This version's section of CHANGELOG.md; a development version's is Unreleased.

        Raises:
            ReleaseError: there is none, or it is empty.
        """
        title = "Unreleased" if self.version.local else self.version.release
        text = (self.root / "CHANGELOG.md").read_text()
        pattern = rf"^## \[?{re.escape(title)}\]?(?: - \d{{4}}-\d\d-\d\d)?\n(.*?)(?=^## |\Z)"
        section = re.search(pattern, text, re.MULTILINE | re.DOTALL)
        if section is None or not section[1].strip():
            raise ReleaseError(f"CHANGELOG.md: no section '## {title}' that says something")
        return f"{section[1].strip()}\n"

    def chart(self, folder: Path, to: Path) -> Path:
        """The chart as Helm reads it, with this version; see ``helm package``.

        Helm packs with the time of the day, so the same chart has other bytes each time.

        Raises:
            ReleaseError: there is no chart, or Chart.yaml has no version and appVersion.
        """
        about = folder / "Chart.yaml"
        if not about.is_file():
            raise ReleaseError(f"{about} is missing: there is no chart to release")
        version = self.version
        text, versions = re.subn(
            r"^version: .*$", f"version: {version.chart}", about.read_text(), flags=re.MULTILINE
        )
        tag = f'appVersion: "{version.tag}"'
        text, tags = re.subn(r"^appVersion: .*$", tag, text, flags=re.MULTILINE)
        if (versions, tags) != (1, 1):
            raise ReleaseError(f"{about}: needs one line version and one line appVersion")
        files = {name: path.read_bytes() for name, path in self._files(folder)}
        files["Chart.yaml"] = text.encode()
        files.pop(".helmignore", None)
        archive = to / f"gpu-fraction-{version.chart}.tgz"
        archive.write_bytes(packed({f"gpu-fraction/{name}": files[name] for name in files}))
        return archive

    def manifests(self, deploy: Path, chart: Path, to: Path) -> list[Path]:
        """The manifests for kubectl, with this version's image, and the CRD by itself.

        Raises:
            ReleaseError: there is not exactly one file with nothing but a CRD.
        """
        files = {
            name: self._of_this_version(path.read_text()).encode()
            for name, path in self._files(deploy)
            if chart not in path.parents
        }
        definitions = [text for text in files.values() if _KIND.findall(text.decode()) == [_CRD]]
        if len(definitions) != 1:
            raise ReleaseError(f"{deploy}: {len(definitions)} files are a CRD, one is expected")
        made = to / f"gpu-fraction-{self.version.tag}-manifests.tar.gz"
        made.write_bytes(packed({f"deploy/{name}": files[name] for name in files}))
        definition = to / f"gpu-fraction-{self.version.tag}-crd.yaml"
        definition.write_bytes(definitions[0])
        return [made, definition]

    def _of_this_version(self, text: str) -> str:
        """A manifest as a chart of this version gives it; ``make manifests`` has another one."""
        text = _IMAGE.sub(rf"\g<1>{self.version.tag}", text)
        return _LABEL.sub(rf'\g<1>"{self.version.tag}"', text)

    def _files(self, folder: Path) -> list[tuple[str, Path]]:
        """What git has or would take below a folder, by its name in it; elsewhere, everything."""
        inside = folder.is_relative_to(self.root)
        paths = [self.root / name for name in source_files(self.root)] if inside else []
        paths = paths or sorted(folder.rglob("*"))
        return [
            (path.relative_to(folder).as_posix(), path)
            for path in paths
            if folder in path.parents and path.is_file()
        ]


def packed(files: dict[str, bytes]) -> bytes:
    """Files as a tar with gzip; the same files give the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(files[name]), 0o644, MTIME
            archive.addfile(member, io.BytesIO(files[name]))
    return gzip.compress(content.getvalue(), mtime=0)


def sums(files: Iterable[Path]) -> str:
    """As ``sha256sum --check`` reads them."""
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files)
    return "".join(f"{line}\n" for line in lines)


def images(built: dict[str, Image]) -> str:
    """What has to be mirrored for a cluster without a registry of the world."""
    lines = [f"{image.reference}  {name}  {image.digest}" for name, image in built.items()]
    return "\n".join([*lines, _SCHEDULER, ""])


def release(
    source: Source, chart: Path, architectures: Iterable[str], name: str, to: Path
) -> None:
    """Fills an empty folder with everything.

    Raises:
        ReleaseError, ImageError, DistributionError: see the parts.
    """
    version = source.version
    (to / "NOTES.md").write_text(source.notes())
    source.chart(chart, to)
    source.manifests(source.root / "deploy", chart, to)
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        distributions.stage(source.root, version, staged)
        for kind in ("wheel", "sdist"):
            distributions.build(staged, kind, to, source.epoch_s)
        distributions.build(staged / "sandbox", "wheel", to, source.epoch_s)
    built = {
        each: build(to, version, source.epoch_s, architecture=each, name=name)
        for each in architectures
    }
    (to / "images.txt").write_text(images(built))
    (to / "SHA256SUMS").write_text(sums(sorted(to.iterdir())))


def forget(folder: Path) -> None:
    """Removes an earlier release from its folder.

    Raises:
        ReleaseError: something else is in it.
    """
    if folder.exists() and not (folder / "SHA256SUMS").is_file():
        raise ReleaseError(f"{folder} exists and is no release: name another with --to")
    shutil.rmtree(folder, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--chart", type=Path, default=ROOT / "deploy" / "chart")
    parser.add_argument("--architecture", action="append", choices=MULTIARCH, help="default: all")
    parser.add_argument("--name", default=NAME, help="repository; default: %(default)s")
    parser.add_argument("--to", type=Path, help="a new folder; default: dist/VERSION")
    args = parser.parse_args(argv)
    try:
        source = Source(
            ROOT,
            current(ROOT),
            int(os.environ.get("SOURCE_DATE_EPOCH") or commit_time_s(ROOT)),
        )
        to = args.to or ROOT / "dist" / source.version.tag
        forget(to)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "made"
            made.mkdir()
            release(source, args.chart.resolve(), args.architecture or MULTIARCH, args.name, made)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(made, to)
    except (distributions.DistributionError, ImageError, ReleaseError, VersionError) as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    print((to / "SHA256SUMS").read_text() + f"in {to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
