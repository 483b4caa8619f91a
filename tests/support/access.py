"""How tests reach an API server."""

import json
from pathlib import Path

from gpu_fraction.kube.access import Access, AccessSource


def fixed(access: Access) -> AccessSource:
    """A source that always finds the same."""

    async def find() -> Access:
        return access

    return AccessSource(find)


def kubeconfig(folder: Path, server: str) -> Path:
    """A file that names the server."""
    named = {"cluster": "sandbox", "user": "sandbox"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "contexts": [{"name": "sandbox", "context": named}],
        "clusters": [{"name": "sandbox", "cluster": {"server": server}}],
        "users": [{"name": "sandbox", "user": {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    return path
