"""The names of one installation's objects, set once at start."""

from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain import keys
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import text, words

FIELD_MANAGER: Final = "gpu-fraction-certificates"
"""Owner of the fields that are written here (server-side apply)."""

_OURS: Final = ("gpu-fraction",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The names of the objects that the certificates of one webhook need."""

    namespace: str = setting(text, keys.SYSTEM_NAMESPACE, "namespace of the webhook's Service")
    service: str = setting(text, "gpu-fraction-webhook", "the webhook's Service")
    mutating: tuple[str, ...] = setting(words, _OURS, "our MutatingWebhookConfigurations")
    validating: tuple[str, ...] = setting(words, _OURS, "our ValidatingWebhookConfigurations")
    extra_names: tuple[str, ...] = setting(words, (), "more DNS names or addresses of the leaf")

    @property
    def server_names(self) -> list[str]:
        """The names that a leaf is valid for, the one that the API server uses first.

        Source: Kubernetes DNS specification; the API server uses ``<service>.<namespace>.svc``.
        """
        short = f"{self.service}.{self.namespace}"
        forms = [f"{short}.svc", self.service, short, f"{short}.svc.cluster.local"]
        return [*forms, *self.extra_names]

    @property
    def secret(self) -> str:
        """The Secret of the CA."""
        return f"{self.service}-ca"

    @property
    def election(self) -> str:
        """The Lease whose holder writes the Secret and the caBundles."""
        return f"{self.service}-certificates"
