"""The image's own interpreter, run here: its byte code and its compression are the same anywhere.

Byte code and gzip differ between builds of Python and zlib. The locked ones make a layer's bytes
depend on the locks alone. Nothing is installed and no root is needed: the loader of the unpacked
tree starts the interpreter, with the tree's libraries.
"""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.image.contents import LOADER, MULTIARCH, PYTHON
from scripts.image.tree import Entry, ImageError, Tree, write

_COMPILE = """\
import py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for name in sys.stdin.read().splitlines():
    py_compile.compile(name, dfile="/" + name, doraise=True, invalidation_mode=mode)
"""
_GZIP = """\
import gzip, shutil, sys
with gzip.GzipFile(fileobj=sys.stdout.buffer, mode="wb", filename="", mtime=0) as to:
    shutil.copyfileobj(sys.stdin.buffer, to, 2**20)
"""
_TAG = f"cpython-{PYTHON.replace('.', '')}"


def native() -> str:
    """The architecture of this machine, in Debian's words.

    Raises:
        ImageError: no image is built on it.
    """
    machine = platform.machine()
    for name, multiarch in MULTIARCH.items():
        if multiarch.startswith(f"{machine}-"):
            return name
    raise ImageError(f"a machine of {machine} builds no image; one of {', '.join(MULTIARCH)} does")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An unpacked base layer of this machine's architecture.

    Attributes:
        root: the folder that it is unpacked to.
    """

    root: Path

    def compiled(self, tree: Tree, scratch: Path) -> Tree:
        """The byte code of a tree's modules, valid without a look at the source.

        Unchecked: a container's root is read-only, and time stamps would make each build differ.
        One process compiles all in order, since byte code depends on what was compiled before.

        Args:
            tree: with the modules.
            scratch: an empty folder.

        Raises:
            ImageError: a module does not compile.
        """
        modules = {
            name: entry
            for name, entry in sorted(tree.items())
            if name.endswith(".py") and not entry.target
        }
        write(modules, scratch)
        self.run(_COMPILE, "\n".join(modules).encode(), cwd=scratch)
        made: Tree = {}
        for name, entry in modules.items():
            source = Path(name)
            code = source.parent / "__pycache__" / f"{source.stem}.{_TAG}.pyc"
            made[code.as_posix()] = Entry(entry.purl, (scratch / code).read_bytes())
        return made

    def compressed(self, content: bytes) -> bytes:
        """Content as gzip, without a name and a time."""
        return self.run(_GZIP, content)

    def run(self, script: str, given: bytes = b"", cwd: Path | None = None) -> bytes:
        """What a script prints.

        Raises:
            ImageError: it failed.
        """
        architecture = native()
        libraries = self.root / "usr" / "lib" / MULTIARCH[architecture]
        program = self.root / "usr" / "bin" / f"python{PYTHON}"
        argv: list[str | Path] = [
            libraries / LOADER[architecture],
            "--library-path",
            libraries,
            program,
        ]
        done = subprocess.run(
            [*argv, "-S", "-s", "-B", "-c", script],
            input=given,
            cwd=cwd,
            env={"PYTHONHOME": os.fspath(self.root / "usr"), "PYTHONHASHSEED": "0"},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise ImageError(f"the image's interpreter: {done.stderr.decode()[-2000:]}")
        return done.stdout
