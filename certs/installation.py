"""Where everything of one installation is: names only, set once at start."""

from dataclasses import dataclass
from typing import Final

from certs.pki import service_names
from gpu_fraction.domain import keys

__all__ = ["Installation"]

FIELD_MANAGER: Final = "gpu-fraction-certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The objects that the certificates of one webhook live in.

    Attributes:
        namespace: Where the Service, the Secret and the Leases are.
        service: The webhook's Service.
        secret: The Secret of the CA.
        mutating: Our MutatingWebhookConfigurations.
        validating: Our ValidatingWebhookConfigurations.
        crds: Our CustomResourceDefinitions that may have a conversion webhook.
        cluster_domain: The cluster's DNS domain.
        extra_names: Further DNS names or addresses that the leaf shall carry.
        field_manager: Owner of the caBundle fields (server-side apply).
    """

    namespace: str = keys.SYSTEM_NAMESPACE
    service: str = "gpu-fraction-webhook"
    secret: str = "gpu-fraction-webhook-ca"  # noqa: S105 - the name of an object
    mutating: tuple[str, ...] = ("gpu-fraction",)
    validating: tuple[str, ...] = ("gpu-fraction",)
    crds: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    extra_names: tuple[str, ...] = ()
    field_manager: str = FIELD_MANAGER

    @property
    def server_names(self) -> list[str]:
        """What a leaf is valid for; the API server's form of the Service's name first."""
        names = service_names(self.service, self.namespace, self.cluster_domain)
        return [*names, *self.extra_names]

    @property
    def election(self) -> str:
        """The Lease whose holder writes the Secret and the caBundles."""
        return f"{self.service}-certificates"

    @property
    def presence_label(self) -> tuple[str, str]:
        """The label on the Leases in which replicas say what they serve."""
        return keys.PREFIX + "certificates-of", self.service
