"""Packs one static program as a container image, so that no registry is needed."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
BUSYBOX_IMAGE = "docker.io/library/busybox:1"
_TIMEOUT_S = 20


def write_busybox_archive(busybox: Path, to: Path) -> None:
    """Writes the image that serves as busybox and, sleeping, as every pod's pause container."""
    layer = _layer(busybox)
    pause = ["/bin/sleep", "2147483647"]  # sleep takes 31 bits
    images = [
        _image(layer, BUSYBOX_IMAGE, ["/bin/sh"]),
        _image(layer, PAUSE_IMAGE, pause),
    ]
    manifest = [
        {"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}
        for tag, config_name, _ in images
    ]
    with tarfile.open(to, "w") as archive:
        _add(archive, "layer.tar", layer)
        for _, config_name, config in images:
            _add(archive, config_name, config)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer(busybox: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        for folder in ("bin", "tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            layer.addfile(entry)
        _add(layer, "bin/busybox", busybox.read_bytes(), mode=0o755)
        applets = subprocess.check_output([busybox, "--list"], text=True, timeout=_TIMEOUT_S)
        for applet in set(applets.split()) - {"busybox"}:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(entry)
    return content.getvalue()


def _image(layer: bytes, tag: str, command: Sequence[str]) -> tuple[str, str, bytes]:
    """An image's tag, the name of its configuration, and that. Source: OCI image-spec, config."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
        }
    ).encode()
    return tag, f"{_digest(config)}.json", config


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
