"""The certificates and keys of one cluster. They live as long as its folder."""

import base64
import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=2)
_CLOCK_SKEW = dt.timedelta(minutes=5)


class Authority:
    """A certificate authority for servers and clients of one cluster.

    Attributes:
        folder: where ``ca.crt``, ``ca.key`` and all that it issues lie.
        certificate: path of ``ca.crt``.
        key: path of ``ca.key``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self.key = folder / "ca.key"
        self._private = new_key(self.key)
        name = _name("gpu-fraction-test", ())
        built = _builder(name, name, self._private.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self._subject = name
        self._write(built, self.certificate)

    @property
    def bundle(self) -> str:
        """Its certificate as a ``caBundle``: PEM in base64."""
        return base64.b64encode(self.certificate.read_bytes()).decode()

    def issue(
        self, stem: str, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Issues a certificate that serves as client and, for ``hosts``, as server.

        Args:
            stem: the files are ``stem.crt`` and ``stem.key``.
            user: common name, which Kubernetes takes for the user's name.
            groups: organisations, which Kubernetes takes for groups.
            hosts: names and addresses it serves.

        Returns:
            The paths of certificate and key.
        """
        certificate, key = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        public = new_key(key).public_key()
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        built = _builder(_name(user, groups), self._subject, public).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        if hosts:
            names = [_general_name(host) for host in hosts]
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._write(built, certificate)
        return certificate, key

    def _write(self, built: x509.CertificateBuilder, to: Path) -> None:
        signed = built.sign(self._private, hashes.SHA256())
        to.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new P-256 key, written to ``path``."""
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
