"""Where the cached Kubernetes binaries lie, and what makes a cached version complete."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "manifest.json"
"""Written last into a version's folder; lists each part, its recipe and its files."""


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_CACHE_HOME/gpu-fraction/kubernetes``; without the variable, ``~/.cache``.

    Source: XDG Base Directory Specification; a relative path there counts as not set.
    """
    configured = environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "gpu-fraction" / "kubernetes"


def version_key(version: str) -> tuple[int, ...]:
    """``"1.20.2"`` or ``"v1.20.2-rc.1"`` as ``(1, 20, 2)``, so that 1.9 sorts before 1.20."""
    numbers = version.removeprefix("v").partition("-")[0].partition("+")[0]
    return tuple(int(part) for part in numbers.split("."))


def read_manifest(folder: Path) -> dict[str, dict[str, object]]:
    """The parts of a cached version by name; empty if there is no manifest."""
    try:
        return dict(json.loads((folder / MANIFEST).read_text())["parts"])
    except FileNotFoundError:
        return {}


def cached_folders(root: Path) -> list[Path]:
    """Complete cached versions, newest first. Temporary folders begin with a dot."""
    if not root.is_dir():
        return []
    found = [f for f in root.iterdir() if f.name[0].isdigit() and (f / MANIFEST).is_file()]
    return sorted(found, key=lambda folder: version_key(folder.name), reverse=True)
