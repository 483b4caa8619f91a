"""The cache folder: one writer at a time, whole versions or none."""

import contextlib
import fcntl
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.cluster.harness.marks import kill_marked


@dataclass(frozen=True, slots=True)
class Store:
    """Versions in a folder.

    Attributes:
        root: the folder.
        mark: environment variable whose value is the temporary folder that a process works for.
    """

    root: Path
    mark: str

    TEMPORARY: ClassVar[str] = ".build-"
    _REPLACED: ClassVar[str] = ".old-"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Waits until no other process fills the cache. The kernel frees a dead holder's lock."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.stdout.write(f"waiting for another process that fills {self.root}\n")
                sys.stdout.flush()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def clean(self) -> None:
        """Ends and removes what killed runs left. Call it under the lock."""
        for folder in self.root.glob(f"{self.TEMPORARY}*"):
            kill_marked(self.mark, str(folder))
            shutil.rmtree(folder)
        for folder in self.root.glob(f"{self._REPLACED}*"):
            version = self.root / folder.name.removeprefix(self._REPLACED)
            if version.exists():
                shutil.rmtree(folder)
            else:
                folder.rename(version)

    def publish(self, made: Path, version: Path) -> None:
        """Puts a finished folder in a version's place. Call it under the lock.

        Killed between the two renames, it leaves the old version for ``clean`` to put back.
        """
        old = self.root / f"{self._REPLACED}{version.name}"
        if version.exists():
            version.rename(old)
        made.rename(version)
        if old.exists():
            shutil.rmtree(old)
