"""The backends that namespaces select with a label."""

import msgspec

from gpu_fraction.domain.keys import LABEL_BACKEND
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.reflector import PROMPT, Reflector
from gpu_fraction.kube.resources import NAMESPACES


class _NamespaceMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    labels: dict[str, str] | None = None


class _Namespace(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _NamespaceMeta = _NamespaceMeta()


class NamespaceLabels:
    """The labels of namespaces, kept current by a watch."""

    def __init__(self, client: Client) -> None:
        self._namespaces = Reflector(client, NAMESPACES.at(), _Namespace, settings=PROMPT)
        self.run = self._namespaces.run
        self.unsynced = self._namespaces.unsynced

    def backend(self, namespace: str) -> str | None:
        """The backend that a namespace selects; None for none."""
        found = self._namespaces.store.get(namespace)
        return (found.metadata.labels or {}).get(LABEL_BACKEND) if found else None
