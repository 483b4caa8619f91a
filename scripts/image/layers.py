"""The image's three layers: Debian with the interpreter, the wheels, the product.

A layer's bytes depend on what its key is made of, so a cached layer is as good as a new one.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.image import debian, wheels
from scripts.image.contents import pruned
from scripts.image.interpreter import Interpreter
from scripts.image.oci import Layer, digest_of, packed
from scripts.image.tree import Component, Entry, Tree, write

_KEEP_S = 30 * 86_400
"""Chosen: layers that no build of the last month used are removed from the cache."""
_USR_LINKS = ("bin", "lib", "lib64")
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\n"
    "gpu-fraction:x:65532:65532:gpu-fraction:/tmp:/sbin/nologin\n",
    "etc/group": "root:x:0:\ngpu-fraction:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

Contents = tuple[Iterable[Component], Tree]


@dataclass(frozen=True, slots=True)
class Made:
    """A layer and where its files come from.

    Attributes:
        layer: packed.
        components: of its files.
        files: absolute paths by the purl of the component; links too, folders not.
        unpacked: bytes of the files by purl.
    """

    layer: Layer
    components: tuple[Component, ...]
    files: dict[str, list[str]]
    unpacked: dict[str, int]


def base(cache: Path, packages: list[debian.Package], interpreter: Interpreter | None) -> Made:
    """Debian's packages.

    Args:
        cache: where layers are kept.
        packages: of one architecture.
        interpreter: compiles the library; absent, the packages' own does.
    """

    def make(scratch: Path) -> tuple[Contents, Interpreter]:
        archives = debian.fetch(packages, cache / "debs")
        found = [debian.unpack(package, path) for package, path in archives.items()]
        tree = pruned({name: entry for _, files in found for name, entry in files.items()})
        (owner,) = (part.purl for part, _ in found if part.name == "base-files")
        tree |= {name: Entry(owner, target=f"usr/{name}") for name in _USR_LINKS}
        tree["tmp"] = Entry(owner)
        own = Interpreter(scratch / "own")
        if interpreter is None:
            write({name: entry for name, entry in tree.items() if name != "tmp"}, own.root)
        return ([component for component, _ in found], tree), interpreter or own

    return _layer(cache, [str(package) for package in packages], make)


def dependencies(cache: Path, lock: Path, architecture: str, interpreter: Interpreter) -> Made:
    """The locked wheels."""

    def make(_: Path) -> tuple[Contents, Interpreter]:
        fetched = wheels.fetch(lock, architecture, cache / "wheels")
        found = [wheels.unpack(path) for path in fetched]
        tree = pruned({name: entry for _, files in found for name, entry in files.items()})
        return ([component for component, _ in found], tree), interpreter

    return _layer(cache, [architecture, lock.read_text()], make)


def product(cache: Path, wheel: Path, interpreter: Interpreter) -> Made:
    """The product's wheel, its commands and its account."""

    def make(_: Path) -> tuple[Contents, Interpreter]:
        component, tree = wheels.unpack(wheel)
        tree = pruned(tree) | wheels.programs(wheel, component.purl)
        for name, text in _ACCOUNTS.items():
            tree[name] = Entry(component.purl, text.encode())
        return ([component], tree), interpreter

    return _layer(cache, [wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()], make)


def _layer(
    cache: Path, key: list[str], make: Callable[[Path], tuple[Contents, Interpreter]]
) -> Made:
    """From the cache, or made and kept. The builder's own source is part of each key."""
    sources = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    name = hashlib.sha256("\0".join([*key, *sources]).encode()).hexdigest()
    blob, notes = cache / "layers" / f"{name}.tar.gz", cache / "layers" / f"{name}.json"
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not (blob.is_file() and notes.is_file()):
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            scratch = Path(folder)
            for part in ("make", "compile"):
                (scratch / part).mkdir()
            (components, tree), interpreter = make(scratch / "make")
            tree |= interpreter.compiled(tree, scratch / "compile")
            content = packed(tree)
            (scratch / "blob").write_bytes(interpreter.compressed(content))
            made = _notes(tree, components, digest_of(content))
            (scratch / "notes").write_text(json.dumps(made))
            (scratch / "blob").rename(blob)
            (scratch / "notes").rename(notes)
    for path in (blob, notes):
        os.utime(path)
    return _read(blob, notes)


def _notes(tree: Tree, components: Iterable[Component], diff_id: str) -> dict[str, object]:
    files: dict[str, list[str]] = {component.purl: [] for component in components}
    unpacked: Counter[str] = Counter()
    for name, entry in sorted(tree.items()):
        if name != "tmp":
            files[entry.purl].append(f"/{name}")
            unpacked[entry.purl] += len(entry.content)
    listed = [asdict(component) for component in components]
    return {"diff_id": diff_id, "components": listed, "files": files, "unpacked": unpacked}


def _read(blob: Path, notes: Path) -> Made:
    content, noted = blob.read_bytes(), json.loads(notes.read_text())
    listed = [
        Component(**{**each, "licences": tuple(each["licences"])}) for each in noted["components"]
    ]
    layer = Layer(blob, digest_of(content), noted["diff_id"], len(content))
    return Made(layer, tuple(listed), noted["files"], noted["unpacked"])


def forget_old(cache: Path) -> None:
    """Removes layers that were not used for long, and what killed builds left."""
    before = time.time() - _KEEP_S
    for path in (cache / "layers").iterdir():
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)
    for path in cache.glob("tmp*"):
        if path.stat().st_mtime < before:
            shutil.rmtree(path, ignore_errors=True)
