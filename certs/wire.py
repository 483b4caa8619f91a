"""The Kubernetes objects that are read here, as far as they are read."""

import msgspec

from gpu_fraction.kube.lease import LeaseSpec
from gpu_fraction.kube.objects import Meta

__all__ = [
    "ClientConfig",
    "ConversionCrd",
    "ReplicaLease",
    "SecretObject",
    "ServiceReference",
    "WebhookConfiguration",
    "WebhookEntry",
]


class AnnotatedMeta(Meta, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Identity and annotations."""

    annotations: dict[str, str] | None = None


class SecretObject(msgspec.Struct, frozen=True, kw_only=True):
    """A Secret; msgspec decodes the base64 of its data."""

    metadata: AnnotatedMeta = AnnotatedMeta()
    data: dict[str, bytes] | None = None

    def __repr__(self) -> str:
        """Without the content."""
        return f"SecretObject({self.metadata.namespace}/{self.metadata.name})"


class ServiceReference(msgspec.Struct, frozen=True, kw_only=True):
    """The Service behind a webhook."""

    name: str = ""
    namespace: str = ""


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How the API server reaches a webhook, and what it trusts."""

    ca_bundle: bytes | None = None
    service: ServiceReference | None = None
    url: str | None = None


class WebhookEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One webhook of a configuration."""

    name: str = ""
    client_config: ClientConfig = ClientConfig()


class WebhookConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A mutating or validating webhook configuration."""

    metadata: Meta = Meta()
    webhooks: list[WebhookEntry] | None = None


class ConversionWebhook(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The webhook of a conversion."""

    client_config: ClientConfig | None = None


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """How a CRD converts between its versions."""

    webhook: ConversionWebhook | None = None


class ConversionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a CRD that names its conversion."""

    conversion: Conversion | None = None


class ConversionCrd(msgspec.Struct, frozen=True, kw_only=True):
    """A CRD, as far as its conversion goes."""

    metadata: Meta = Meta()
    spec: ConversionSpec = ConversionSpec()


class ReplicaLease(msgspec.Struct, frozen=True, kw_only=True):
    """The Lease in which a replica says what it serves."""

    metadata: AnnotatedMeta = AnnotatedMeta()
    spec: LeaseSpec = LeaseSpec()
