"""Settings of the certificates: names and lifetimes, for each program that needs them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.domain import keys
from gpu_fraction.settings.declaration import group, setting
from gpu_fraction.settings.parsers import path, text, words

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


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """The names and lifetimes that all programs of one installation share."""

    installation: Installation = group(Installation, prefix="cert_")
    lifetimes: Lifetimes = group(Lifetimes, prefix="cert_")


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """The certificate of a process that serves the webhook."""

    tls_cert: Path | None = setting(path, None, "file with the certificate chain, PEM")
    tls_key: Path | None = setting(path, None, "file with the private key, PEM")
    directory: Path | None = setting(
        path, None, "serve the mounted pair tls.crt, tls.key (cert-manager)", name="cert_dir"
    )
    shared: CertificateSettings = group(CertificateSettings)
    replica_name: str | None = setting(text, None, "this replica's name; default: the host's")
    replica_uid: str | None = setting(
        text, None, "uid of this replica's Pod, which then owns its Lease"
    )

    @property
    def provided(self) -> bool:
        """Whether the certificate comes in files."""
        return any(given is not None for given in (self.tls_cert, self.tls_key, self.directory))
