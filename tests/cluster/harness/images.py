"""Packs static programs as container images, and builds the product's: no registry is needed."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.image.build import ROOT, Image, build
from scripts.image.debian import NotServedError
from scripts.version import commit_time_s, current
from tests.cluster.harness.binaries import Binaries

PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
BUSYBOX_IMAGE = "docker.io/library/busybox:1"
_TIMEOUT_S = 20


def write_busybox_archive(busybox: Path, to: Path) -> None:
    """Writes the image that serves as busybox and, sleeping, as every pod's pause container."""
    pause = ["/bin/sleep", "2147483647"]  # sleep takes 31 bits
    _write(_busybox_layer(busybox), {BUSYBOX_IMAGE: ["/bin/sh"], PAUSE_IMAGE: pause}, to)


def write_program_archive(program: Path, tag: str, to: Path) -> None:
    """Writes the image of one static program, found by its name as in the image it stands for."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        _add(layer, f"bin/{program.name}", program.read_bytes(), mode=0o755)
    _write(content.getvalue(), {tag: [program.name]}, to)


def kube_scheduler_image(binaries: Binaries, to: Path) -> str:
    """Packs the built kube-scheduler and returns the name that Kubernetes publishes it under."""
    version = ".".join(str(number) for number in binaries.version or ())
    tag = f"registry.k8s.io/kube-scheduler:v{version}"
    write_program_archive(binaries["kube-scheduler"], tag, to)
    return tag


def product_image(to: Path) -> Image:
    """The image of the work tree; layers that did not change come from the cache.

    Where Debian has replaced a package since it was locked, its successor serves: what is tested
    is not the lock's age.
    """
    version, epoch_s = current(ROOT), commit_time_s(ROOT)
    try:
        return build(to, version, epoch_s)
    except NotServedError as e:
        sys.stderr.write(f"{e}\nThe newest packages take their place.\n")
        return build(to, version, epoch_s, newest_debian=True)


def _write(layer: bytes, commands: Mapping[str, Sequence[str]], to: Path) -> None:
    """Docker's archive of images that share a layer, by their tags."""
    images = [_image(layer, tag, command) for tag, command in commands.items()]
    manifest = [
        {"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}
        for tag, config_name, _ in images
    ]
    with tarfile.open(to, "w") as archive:
        _add(archive, "layer.tar", layer)
        for _, config_name, config in images:
            _add(archive, config_name, config)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _busybox_layer(busybox: Path) -> bytes:
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
