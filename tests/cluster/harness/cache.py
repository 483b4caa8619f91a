"""Where the cached Kubernetes binaries lie, and what makes a cached version complete."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

DEFAULT_VERSION = "1.37.2"
"""The newest stable Kubernetes that was built and tested here."""

MANIFEST = "manifest.json"
"""Written last into a version's folder; lists each part, its recipe and its files."""


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_CACHE_HOME/gpu-fraction/kubernetes``; without the variable, ``~/.cache``.

    Source: XDG Base Directory Specification; a relative path there counts as not set.
    """
    configured = environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "gpu-fraction" / "kubernetes"


def wanted_version(environ: Mapping[str, str] = os.environ) -> str:
    """The version that ``KUBERNETES_VERSION`` names, else ``DEFAULT_VERSION``.

    Raises:
        ValueError: the variable holds no version.
    """
    version = environ.get("KUBERNETES_VERSION", "").removeprefix("v") or DEFAULT_VERSION
    if not re.fullmatch(r"\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?", version):
        raise ValueError(f"KUBERNETES_VERSION: {version!r} is not a version such as 1.37.2")
    return version


def version_key(version: str) -> tuple[int, ...]:
    """``"1.37.2"`` or ``"v1.37.2-rc.1"`` as ``(1, 37, 2)``."""
    numbers = version.removeprefix("v").partition("-")[0].partition("+")[0]
    return tuple(int(part) for part in numbers.split("."))


def read_manifest(folder: Path) -> dict[str, dict[str, object]]:
    """The parts of a cached version by name; empty if there is no manifest."""
    try:
        return dict(json.loads((folder / MANIFEST).read_text())["parts"])
    except FileNotFoundError:
        return {}


def cached_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The wanted version's folder, if it is complete."""
    folder = cache_root(environ) / wanted_version(environ)
    return folder if (folder / MANIFEST).is_file() else None
