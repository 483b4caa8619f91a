"""Certificates for a scheduler and an extender that share a pod.

They talk over the pod's own loopback, so the pod makes its CA, both certificates and both
keys when it starts, in a folder in memory, and nobody else ever holds them: no Secret to
guard, none to rotate.
"""

import ipaddress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["CLIENT_NAME", "write_pod_tls"]

CLIENT_NAME: Final = "gpu-fraction-scheduler"
"""Common name of the scheduler's certificate."""

_LIFE: Final = timedelta(days=3650)
"""Chosen: longer than any pod lives, because kube-scheduler reads its files only once."""
_BACKDATE: Final = timedelta(hours=1)
"""Against clocks that differ; Source: cert-controller's default."""


def write_pod_tls(folder: Path, now: datetime) -> None:
    """Write ``ca.crt``, ``tls.crt``, ``tls.key``, ``client.crt`` and ``client.key``.

    The CA's key is thrown away, so that nothing else can ever be signed with it. Blocks.

    Args:
        folder: Where to; a volume that both containers mount.
        now: The time, UTC.

    Raises:
        OSError: a file cannot be written.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{CLIENT_NAME} pod CA")
    ca = (
        _builder(subject, subject, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    _write(folder / "ca.crt", _pem(ca))
    here: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("localhost"),
    ]
    for stem, name, usage, names in (
        ("tls", "localhost", ExtendedKeyUsageOID.SERVER_AUTH, here),
        ("client", CLIENT_NAME, ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName(CLIENT_NAME)]),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            _builder(_name(name), subject, key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        _write(folder / f"{stem}.crt", _pem(leaf))
        _write(
            folder / f"{stem}.key",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, also where it was there before."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)
