"""Settings of the certificates: names and lifetimes, for each program that needs them."""

from dataclasses import dataclass
from pathlib import Path

from gpu_fraction.certs.installation import Installation
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.settings.declaration import group, setting
from gpu_fraction.settings.parsers import path, text


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
