"""The file by which a client finds a cluster and says who it is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is, whom to trust, and as whom to speak.

    Attributes:
        server: ``https://host:port``.
        authority: path of the CA's certificate.
        user: ``{"token": ...}`` or ``{"client-certificate": ..., "client-key": ...}``.
    """

    server: str
    authority: Path
    user: dict[str, str]

    def write(self, path: Path) -> Path:
        """Writes it as a kubeconfig; JSON is YAML. Returns the path."""
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": self.server,
                        "certificate-authority": str(self.authority),
                    },
                }
            ],
            "users": [{"name": "test", "user": self.user}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))
        return path
