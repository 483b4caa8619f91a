"""From the locks and the work tree to an archive and its bill of materials."""

import json
import os
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import distributions
from scripts.image import debian, layers
from scripts.image.contents import EXTRAS
from scripts.image.interpreter import Interpreter, native
from scripts.image.oci import write_archive
from scripts.image.sbom import bill
from scripts.image.tree import Component
from scripts.version import Version, commit

ROOT = Path(__file__).resolve().parents[2]
USER = "65532:65532"
"""A number: Kubernetes cannot tell of a name that it is not root. Distroless images use it too."""
NAME = "docker.io/library/gpu-fraction"
"""What Kubernetes makes of the name ``gpu-fraction``."""
_LABEL = "org.opencontainers.image"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image.

    Attributes:
        archive: OCI layout in a tar.
        bill: CycloneDX file beside it.
        reference: under which containerd keeps it after an import.
        digest: of its manifest.
        unpacked: bytes of its files by the name of the component.
    """

    archive: Path
    bill: Path
    reference: str
    digest: str
    unpacked: dict[str, int]


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/gpu-fraction/image``; without the variable, ``~/.cache``."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "gpu-fraction" / "image"


def build(
    to: Path,
    version: Version,
    epoch_s: int,
    *,
    architecture: str = "",
    cache: Path | None = None,
    name: str = NAME,
    newest_debian: bool = False,
) -> Image:
    """Builds the image of the work tree.

    Args:
        to: folder of the archive.
        version: written into distribution, labels and tag.
        epoch_s: time of the image; files in it have one of their own.
        architecture: amd64 or arm64; this machine's if empty.
        cache: keeps downloads and layers.
        name: repository of the image, with its registry.
        newest_debian: take Debian's packages of today in place of the locked ones.

    Raises:
        ImageError: something cannot be had.
    """
    cache = cache or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    architecture = architecture or native()
    packages = {
        each: debian.newest(each)
        if newest_debian
        else debian.read_lock(ROOT / "requirements" / "debian.txt", each)
        for each in (native(), architecture)
    }
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        scratch = Path(folder)
        base = layers.base(cache, packages[native()], None)
        with tarfile.open(base.layer.blob) as content:
            # Python 3.11 before 3.11.4 knows no filters.
            content.extraction_filter = getattr(tarfile, "tar_filter", lambda member, _: member)
            content.extractall(scratch / "root")  # noqa: S202 - packed by this program
        interpreter = Interpreter(scratch / "root")
        if architecture != native():
            base = layers.base(cache, packages[architecture], interpreter)
        lock = ROOT / "requirements" / "runtime.txt"
        wheels = layers.dependencies(cache, lock, architecture, interpreter)
        distributions.stage(ROOT, version, scratch / "source")
        wheel = distributions.build(scratch / "source", "wheel", scratch / "wheel", epoch_s)
        product = layers.product(cache, wheel, interpreter)
    layers.forget_old(cache)
    made = (base, wheels, product)
    reference = f"{name}:{version.tag}"
    archive = to / f"gpu-fraction-{version.tag}-linux-{architecture}.tar"
    config = _config(architecture, version, epoch_s)
    digest = write_archive(archive, [each.layer for each in made], config, reference)
    document = _bill(made, architecture, version, epoch_s, digest)
    listing = archive.with_suffix(".cdx.json")
    listing.write_text(json.dumps(document, indent=1) + "\n")
    unpacked: Counter[str] = Counter()
    for each in made:
        names = {component.purl: component.name for component in each.components}
        unpacked.update({names[purl]: size for purl, size in each.unpacked.items()})
    return Image(archive, listing, reference, digest, dict(unpacked))


def _config(architecture: str, version: Version, epoch_s: int) -> dict[str, Any]:
    created = datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "created": created,
        "description": "One pod annotation becomes the right slice of a GPU on Kubernetes",
        "licenses": "Apache-2.0",
        "revision": commit(ROOT),
        "title": "gpu-fraction",
        "version": version.tag,
    }
    return {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": USER,
            "WorkingDir": "/",
            "Entrypoint": ["/usr/local/bin/gpu-fraction"],
            "Env": [
                "PATH=/usr/local/bin:/usr/bin",
                "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
            ],
            "Labels": {f"{_LABEL}.{key}": value for key, value in labels.items()},
        },
        "history": [
            {"created": created, "created_by": text}
            for text in (
                "Debian 12",
                f"wheels of [{','.join(EXTRAS)}]",
                f"gpu-fraction {version.tag}",
            )
        ],
    }


def _bill(
    made: tuple[layers.Made, ...], architecture: str, version: Version, epoch_s: int, digest: str
) -> dict[str, Any]:
    image = Component(
        "gpu-fraction",
        version.tag,
        f"pkg:oci/gpu-fraction@{digest.replace(':', '%3A')}?arch={architecture}&tag={version.tag}",
        ("Apache-2.0",),
    )
    files: dict[str, list[str]] = {}
    for each in made:
        files |= each.files
    components = [component for each in made for component in each.components]
    return bill(image, digest, epoch_s, components, files)
