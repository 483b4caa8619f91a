"""``python -m tests.cluster.assets``: fills the cache of Kubernetes binaries.

Safe to run again and at the same time: what is complete stays, one run at a time works, and what a
killed run left is removed first. The machine's packages and package lists are not touched.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.assets.apt import PrivateApt
from tests.cluster.assets.parts import (
    KUBERNETES_VERSION,
    NEXT_RELEASE,
    PARTS,
    RELEASE,
    Part,
    Workshop,
)
from tests.cluster.assets.steps import AssetError, step
from tests.cluster.assets.store import Store
from tests.cluster.harness.cache import MANIFEST, cache_root, read_manifest
from tests.cluster.harness.marks import kill_marked

MARK = "GPU_FRACTION_ASSET_BUILD"
_DISK_GIB = 6
"""What the Kubernetes build takes at its height, with some to spare."""


def main(argv: list[str] | None = None) -> int:
    """Fills the cache; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.assets", description=__doc__)
    parser.add_argument("--cache", type=Path, default=cache_root(), help="default: %(default)s")
    store = Store(parser.parse_args(argv).cache, MARK)
    target = store.root / KUBERNETES_VERSION
    began = time.monotonic()
    try:
        if not _outdated(target):
            sys.stdout.write(f"Kubernetes {KUBERNETES_VERSION} is complete in {target}\n")
            return 0
        with store.lock():
            store.clean()
            if _outdated(target):
                _fill(store, target)
    except AssetError as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    sys.stdout.write(f"{target} is complete after {time.monotonic() - began:.0f} s\n")
    return 0


def _outdated(target: Path) -> list[Part]:
    """Parts that are missing, incomplete or of another recipe."""
    manifest = read_manifest(target)
    return [
        part
        for part in PARTS
        if manifest.get(part.name, {}).get("recipe") != part.recipe
        or not all((target / file).is_file() for file in part.files)
    ]


def _fill(store: Store, target: Path) -> None:
    outdated = _outdated(target)
    names = ", ".join(part.name for part in outdated)
    sys.stdout.write(f"Filling {target}: {names}\n")
    _check_machine(store.root)
    with tempfile.TemporaryDirectory(prefix=Store.TEMPORARY, dir=store.root) as name:
        os.environ[MARK] = name  # every child carries it, so a killed build can be ended later
        try:
            store.publish(_make(Path(name), target, outdated), target)
        finally:
            kill_marked(MARK, name)  # what a command that failed has left running


def _make(folder: Path, target: Path, outdated: list[Part]) -> Path:
    """A folder with all parts: the outdated ones made, the others taken from ``target``."""
    log = folder / "log"
    apt = PrivateApt(folder / "apt", RELEASE, NEXT_RELEASE, log)
    with step("read package lists into a private folder"):
        apt.prepare()
    shop = Workshop(folder, apt, log)
    made = folder / "made"
    made.mkdir()
    for part in PARTS:
        if part in outdated:
            part.make(shop, made)
        else:
            for file in part.files:
                (made / file).parent.mkdir(exist_ok=True)
                shutil.copy2(target / file, made / file)
    parts = {part.name: {"recipe": part.recipe, "files": part.files} for part in PARTS}
    (made / MANIFEST).write_text(json.dumps({"parts": parts}, indent=2) + "\n")
    return made


def _check_machine(root: Path) -> None:
    release = ""
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            release = value.strip('"')
    if release != RELEASE:
        raise AssetError(
            f"the packages are those of Debian {RELEASE}, this is {release or 'unknown'}; "
            "set KUBEBUILDER_ASSETS to a folder with Kubernetes binaries instead"
        )
    free_gib = shutil.disk_usage(root).free / 2**30
    if free_gib < _DISK_GIB:
        raise AssetError(f"{root} has {free_gib:.1f} GiB free, the build needs {_DISK_GIB}")


if __name__ == "__main__":
    sys.exit(main())
