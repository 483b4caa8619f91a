"""Layers and the archive: the same files give the same bytes."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, cast

from scripts.image.oci import MTIME, Layer, digest_of, packed, write_archive
from scripts.image.tree import Entry, Tree

TREE: Tree = {
    "usr/bin/program": Entry("pkg:a", b"\x7fELF", 0o755),
    "etc/passwd": Entry("pkg:b", b"root"),
    "lib": Entry("pkg:b", target="usr/lib"),
    "tmp": Entry("pkg:b"),
}
CONFIG = {"architecture": "amd64", "os": "linux", "config": {"User": "65532:65532"}}


def test_order_does_not_matter() -> None:
    """A layer's bytes follow from what is in it."""
    assert packed(TREE) == packed(dict(reversed(TREE.items())))


def test_a_layer_names_folders_first_and_root_as_owner() -> None:
    """Sorted, with one time, and modes for others to read; /tmp takes everybody's files."""
    with tarfile.open(fileobj=io.BytesIO(packed(TREE))) as layer:
        members = layer.getmembers()
    names = [member.name for member in members]
    assert names == ["etc", "etc/passwd", "lib", "tmp", "usr", "usr/bin", "usr/bin/program"]
    assert {(x.uid, x.gid, x.uname, x.gname, x.mtime) for x in members} == {(0, 0, "", "", MTIME)}
    modes = {member.name: oct(member.mode) for member in members if not member.issym()}
    assert modes == {
        "etc": "0o755",
        "etc/passwd": "0o644",
        "tmp": "0o1777",
        "usr": "0o755",
        "usr/bin": "0o755",
        "usr/bin/program": "0o755",
    }


def write(folder: Path) -> tuple[Path, str]:
    """An image of one layer."""
    content = packed(TREE)
    blob = folder / "blob"
    blob.write_bytes(gzip.compress(content, mtime=0))
    layer = Layer(blob, digest_of(blob.read_bytes()), digest_of(content), blob.stat().st_size)
    archive = folder / "image.tar"
    return archive, write_archive(archive, [layer], CONFIG, "registry.test/gpu-fraction:1.2.3")


def test_digests_lead_from_the_index_to_the_files(tmp_path: Path) -> None:
    """Each blob lies under its digest, and is as long as its descriptor says."""
    archive, digest = write(tmp_path)
    with tarfile.open(archive) as layout:
        files = {x.name: cast("Any", layout.extractfile(x)).read() for x in layout.getmembers()}
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"] == {
        "io.containerd.image.name": "registry.test/gpu-fraction:1.2.3",
        "org.opencontainers.image.ref.name": "1.2.3",
    }

    def blob(descriptor: dict[str, Any]) -> bytes:
        kind, _, value = descriptor["digest"].partition(":")
        content: bytes = files[f"blobs/{kind}/{value}"]
        assert hashlib.sha256(content).hexdigest() == value
        assert len(content) == descriptor["size"]
        return content

    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    (layer,) = (gzip.decompress(blob(each)) for each in manifest["layers"])
    assert config == {**CONFIG, "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}


def test_an_archive_is_the_same_twice(tmp_path: Path) -> None:
    """Nothing of the day, the machine or the folder is in it."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (write(tmp_path / name)[0].read_bytes() for name in ("a", "b"))
    assert first == second
