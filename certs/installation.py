"""The names of one installation's objects, set once at start."""

from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain import keys

__all__ = ["FIELD_MANAGER", "Installation"]

FIELD_MANAGER: Final = "gpu-fraction-certificates"
"""Owner of the fields that are written here (server-side apply)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The names of the objects that the certificates of one webhook need.

    Attributes:
        namespace: Of the Service, the Secret and the Leases.
        service: The webhook's Service.
        mutating: Our MutatingWebhookConfigurations.
        validating: Our ValidatingWebhookConfigurations.
        extra_names: Further DNS names or addresses for the leaf.
    """

    namespace: str = keys.SYSTEM_NAMESPACE
    service: str = "gpu-fraction-webhook"
    mutating: tuple[str, ...] = ("gpu-fraction",)
    validating: tuple[str, ...] = ("gpu-fraction",)
    extra_names: tuple[str, ...] = ()

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
