"""Layers, and an OCI image layout in a tar.

Source: OCI image-spec v1.1, files image-layout.md, manifest.md, config.md, layer.md.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from scripts.image.tree import Tree

MTIME: Final = 315_532_800
"""Of every file: 1980-01-01. Chosen: not the date of a release, which would give unchanged layers
a new digest each time; and not 0, which zip files cannot hold."""
_TYPE = "application/vnd.oci.image"
_STICKY = {"tmp": 0o1777}


@dataclass(frozen=True, slots=True)
class Layer:
    """A packed layer.

    Attributes:
        blob: its gzip file.
        digest: of the blob, ``sha256:...``.
        diff_id: of the tar in it, ``sha256:...``.
        size: bytes of the blob.
    """

    blob: Path
    digest: str
    diff_id: str
    size: int


def digest_of(content: bytes) -> str:
    """As OCI writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def packed(tree: Tree) -> bytes:
    """A tree as a tar: sorted, owned by root, with one time, folders before what they hold."""
    folders = {str(parent) for name in tree for parent in PurePosixPath(name).parents} - {"."}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(folders | set(tree)):
            member = tarfile.TarInfo(name)
            member.mtime = MTIME
            entry = tree.get(name)
            if entry is None or name in _STICKY:
                member.type, member.mode = tarfile.DIRTYPE, _STICKY.get(name, 0o755)
                archive.addfile(member)
            elif entry.target:
                member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, entry.target
                archive.addfile(member)
            else:
                member.mode, member.size = entry.mode, len(entry.content)
                archive.addfile(member, io.BytesIO(entry.content))
    return content.getvalue()


def write_archive(to: Path, layers: Iterable[Layer], config: Mapping[str, Any], name: str) -> str:
    """Writes the archive.

    Args:
        to: the file.
        layers: the lowest first.
        config: the image's configuration without its rootfs.
        name: full reference, under which containerd keeps it after an import.

    Returns:
        The digest of the image's manifest.
    """
    layers = list(layers)
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    config_blob = _json({**config, "rootfs": rootfs})
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": _descriptor("config.v1+json", digest_of(config_blob), len(config_blob)),
            "layers": [_descriptor("layer.v1.tar+gzip", x.digest, x.size) for x in layers],
        }
    )
    digest = digest_of(manifest)
    entry = _descriptor("manifest.v1+json", digest, len(manifest)) | {
        "platform": {"architecture": config["architecture"], "os": config["os"]},
        "annotations": {
            "io.containerd.image.name": name,  # containerd and Docker
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],  # podman and skopeo
        },
    }
    index = {"schemaVersion": 2, "mediaType": f"{_TYPE}.index.v1+json", "manifests": [entry]}
    blobs: dict[str, bytes | Path] = {digest: manifest, digest_of(config_blob): config_blob}
    blobs |= {layer.digest: layer.blob for layer in layers}
    to.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json(index))
        for blob in sorted(blobs):
            content = blobs[blob]
            data = content.read_bytes() if isinstance(content, Path) else content
            _add(archive, f"blobs/{blob.replace(':', '/')}", data)
    return digest


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"{_TYPE}.{kind}", "digest": digest, "size": size}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o644, MTIME
    archive.addfile(member, io.BytesIO(content))
