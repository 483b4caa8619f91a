"""Files of a layer in memory: who each comes from, and folders on disk made of them."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ImageError(Exception):
    """The image cannot be built; the message says what is missing or what to run."""


@dataclass(frozen=True, slots=True)
class Component:
    """Something with a version of its own that files of the image come from.

    Attributes:
        name: as its registry spells it.
        version: as its registry spells it.
        purl: package URL. Source: the purl specification, types deb, pypi and oci.
        licences: names or SPDX expressions, as the component states them; may be empty.
        sha256: of the archive it was unpacked from; empty for what is made here.
    """

    name: str
    version: str
    purl: str
    licences: tuple[str, ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a symbolic link if ``target`` is set.

    Attributes:
        purl: of the component it comes from.
        content: of a file.
        mode: permission bits of a file.
        target: of a link.
    """

    purl: str
    content: bytes = field(default=b"", repr=False)
    mode: int = 0o644
    target: str = ""


Tree = dict[str, Entry]
"""By path, without a leading slash. Folders follow from the paths."""


def write(tree: Tree, folder: Path) -> None:
    """Puts the files of a tree below a folder, beside what is there."""
    for name, entry in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.target:
            path.symlink_to(entry.target)
        else:
            path.write_bytes(entry.content)
            path.chmod(entry.mode)


def run(argv: Sequence[str | Path], **options: Any) -> str:
    """What a command prints on standard output.

    Args:
        argv: the command.
        options: of ``subprocess.run``.

    Raises:
        ImageError: it failed or is not there; with the end of what it said.
    """
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options
        )
    except OSError as e:
        raise ImageError(f"{argv[0]}: {e.strerror}") from e
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise ImageError(f"exit status {done.returncode} of {argv[0]}:\n{said}")
    return str(done.stdout)
