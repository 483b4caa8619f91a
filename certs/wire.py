"""Kubernetes objects with the fields that certificates need."""

import msgspec

from gpu_fraction.kube.objects import Meta


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
    """The address of a webhook, and the CAs that the API server trusts for it."""

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


class ReplicaLease(msgspec.Struct, frozen=True, kw_only=True):
    """The Lease in which a replica reports its leaf."""

    metadata: AnnotatedMeta = AnnotatedMeta()
