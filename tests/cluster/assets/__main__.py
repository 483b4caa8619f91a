"""``python -m tests.cluster.assets``: fills the cache of Kubernetes binaries.

``KUBERNETES_VERSION`` names the version to build. Safe to run again and at the same time: what is
complete stays, one run at a time works, and what a killed run left is removed first.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.assets.parts import Part, parts
from tests.cluster.assets.steps import AssetError
from tests.cluster.assets.store import Store
from tests.cluster.harness.cache import MANIFEST, cache_root, read_manifest, wanted_version
from tests.cluster.harness.marks import kill_marked

MARK = "GPU_FRACTION_ASSET_BUILD"
_DISK_GIB = 6
"""What the Kubernetes build takes at its height, with some to spare."""


def main(argv: list[str] | None = None) -> int:
    """Fills the cache; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.assets", description=__doc__)
    parser.add_argument("--cache", type=Path, default=cache_root(), help="default: %(default)s")
    store = Store(parser.parse_args(argv).cache, MARK)
    began = time.monotonic()
    try:
        version = wanted_version()
        target = store.root / version
        wanted = parts(version)
        if not _outdated(target, wanted):
            sys.stdout.write(f"Kubernetes {version} is complete in {target}\n")
            return 0
        with store.lock():
            store.clean()
            if outdated := _outdated(target, wanted):
                _fill(store, target, wanted, outdated)
    except (AssetError, ValueError) as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    sys.stdout.write(f"{target} is complete after {time.monotonic() - began:.0f} s\n")
    return 0


def _outdated(folder: Path, wanted: tuple[Part, ...]) -> list[Part]:
    """Parts that are missing, incomplete or of another recipe."""
    manifest = read_manifest(folder)
    return [
        part
        for part in wanted
        if manifest.get(part.name, {}).get("recipe") != part.recipe
        or not all((folder / file).is_file() for file in part.files)
    ]


def _fill(store: Store, target: Path, wanted: tuple[Part, ...], outdated: list[Part]) -> None:
    sys.stdout.write(f"Filling {target}: {', '.join(part.name for part in outdated)}\n")
    free_gib = shutil.disk_usage(store.root).free / 2**30
    if free_gib < _DISK_GIB:
        raise AssetError(f"{store.root} has {free_gib:.1f} GiB free, the build needs {_DISK_GIB}")
    with tempfile.TemporaryDirectory(prefix=Store.TEMPORARY, dir=store.root) as name:
        os.environ[MARK] = name  # every child carries it, so a killed build can be ended later
        try:
            store.publish(_make(Path(name), store, wanted), target)
        finally:
            kill_marked(MARK, name)  # what a command that failed has left running


def _make(folder: Path, store: Store, wanted: tuple[Part, ...]) -> Path:
    """A folder with all parts: made, or linked from a version of the cache that has them."""
    made = folder / "made"
    made.mkdir()
    cached = [version for version in store.root.iterdir() if (version / MANIFEST).is_file()]
    for part in wanted:
        for file in part.files:
            (made / file).parent.mkdir(exist_ok=True)
        source = next((version for version in cached if not _outdated(version, (part,))), None)
        if source is None:
            part.make(folder, made, folder / "log")
            continue
        for file in part.files:
            (made / file).hardlink_to(source / file)
    listed = {part.name: {"recipe": part.recipe, "files": part.files} for part in wanted}
    (made / MANIFEST).write_text(json.dumps({"parts": listed}, indent=2) + "\n")
    return made


if __name__ == "__main__":
    sys.exit(main())
