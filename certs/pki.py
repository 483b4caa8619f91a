"""Make and check certificates: ECDSA P-256, random serials, key identifiers, SANs.

Everything takes the time as an argument. A leaf is dated from its CA's own date when the
clock is before it, so that a replica whose clock is behind still signs something usable.
"""

import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.certificate import Authority, Certificate, Leaf
from certs.errors import ChainError
from certs.lifetimes import Lifetimes
from certs.reading import facts_of, parse, parse_one, private_key
from gpu_fraction.domain import keys

__all__ = ["check_chain", "issue_leaf", "new_authority", "service_names"]

_CURVE: Final = ec.SECP256R1()
# X.520 ub-common-name.
_COMMON_NAME_MAX: Final = 64
# What Go's verifier, hence the API server, demands: a CA has basicConstraints, a leaf has
# names. The library's default is the stricter profile of the web, which would call
# certificates of other issuers broken that the API server takes.
_CA_POLICY: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
)
_LEAF_POLICY: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
)


def service_names(
    service: str, namespace: str, cluster_domain: str = "cluster.local"
) -> list[str]:
    """Every form in which a client inside the cluster may name a Service, API server's first.

    Source: Kubernetes DNS specification; the API server uses ``<service>.<namespace>.svc``.
    """
    return [
        f"{service}.{namespace}.svc",
        service,
        f"{service}.{namespace}",
        f"{service}.{namespace}.svc.{cluster_domain}",
    ]


def new_authority(name: str, now: datetime, lifetimes: Lifetimes) -> Authority:
    """A new self-signed CA.

    Args:
        name: Whose CA it is; goes into the common name, cut to fit.
        now: The time, UTC.
        lifetimes: Its life and how far it is dated back.
    """
    key = ec.generate_private_key(_CURVE)
    serial = _serial()
    # The subject differs from one CA to the next, so that a verifier finds the right one by
    # name even where it ignores key identifiers.
    suffix = f" CA {serial & 0xFFFFFFFF:08x}"
    subject = _name(name[: _COMMON_NAME_MAX - len(suffix)] + suffix)
    builder = _dated(now, now + timedelta(seconds=lifetimes.ca_life_s), lifetimes.backdate_s)
    certificate = (
        builder.subject_name(subject)
        .issuer_name(subject)
        .serial_number(serial)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return Authority(facts_of(certificate), _key_text(key))


def issue_leaf(
    authority: Authority, names: Sequence[str], now: datetime, lifetimes: Lifetimes
) -> Leaf:
    """A serving certificate with a new key.

    Args:
        authority: The CA that signs.
        names: DNS names and IP addresses of the subject, the most important first.
        now: The time, UTC.
        lifetimes: Its life and how far it is dated back.

    Raises:
        PkiError: the CA's certificate or key cannot be read.
    """
    ca = parse_one(authority.certificate.pem)
    ca_key = private_key(authority.key_pem)
    key = ec.generate_private_key(_CURVE)
    since = max(now, ca.not_valid_before_utc + timedelta(seconds=lifetimes.backdate_s))
    until = min(since + timedelta(seconds=lifetimes.leaf_life_s), ca.not_valid_after_utc)
    builder = _dated(min(since, until), until, lifetimes.backdate_s)
    certificate = (
        builder.subject_name(_name(names[0][:_COMMON_NAME_MAX]))
        .issuer_name(ca.subject)
        .serial_number(_serial())
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issuer_key_identifier(ca, ca_key), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    facts = facts_of(certificate)
    return Leaf(facts, facts.pem, _key_text(key), authority.fingerprint)


def check_chain(
    chain_pem: str | bytes, trusted: Iterable[Certificate], server_name: str, at: datetime
) -> None:
    """Check what an API server checks: signature path, dates, basic constraints, names.

    A leaf that is itself in the caBundle needs no CA, as in Go's verifier: so a certificate
    that signed itself works, with or without a subject.

    Args:
        chain_pem: What the server sends, leaf first.
        trusted: The certificates of the caBundle.
        server_name: DNS name or IP address that the client dials.
        at: The time of the check, UTC.

    Raises:
        ChainError: it would refuse; the message says why.
        PkiError: a certificate cannot be read.
    """
    leaf, *intermediates = parse(chain_pem)
    known = {c.fingerprint: c for c in trusted}
    if (found := known.get(facts_of(leaf).fingerprint)) is not None:
        _check_itself(found, leaf, server_name, at)
        return
    roots = [parse_one(c.pem) for c in known.values() if c.is_ca]
    if not roots:
        raise ChainError("no CA certificate to check against")
    builder = (
        verification.PolicyBuilder()
        .store(verification.Store(roots))
        .time(at)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
    )
    name = _general_name(server_name)
    try:
        builder.build_server_verifier(name).verify(leaf, intermediates)
    except verification.VerificationError as e:
        # The library's message names the certificate it stopped at, without key material.
        raise ChainError(f"{server_name}: {e}") from e


def _check_itself(
    facts: Certificate, leaf: x509.Certificate, server_name: str, at: datetime
) -> None:
    """Dates and names of a leaf that is trusted itself.

    Raises:
        ChainError: it is not valid at that time, or not for that name.
    """
    if not facts.not_before <= at <= facts.not_after:
        text = f"valid from {facts.not_before:%Y-%m-%dT%H:%M:%SZ}"
        raise ChainError(f"{server_name}: {text} to {facts.not_after:%Y-%m-%dT%H:%M:%SZ}")
    if not _names(leaf, server_name):
        raise ChainError(f"{server_name}: not among the names of {facts.subject!r}")


def _names(leaf: x509.Certificate, server_name: str) -> bool:
    """Whether a leaf is for this server; an asterisk stands for one label, as RFC 6125 has it."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    wanted = _general_name(server_name)
    if isinstance(wanted, x509.IPAddress):
        return wanted.value in names.get_values_for_type(x509.IPAddress)
    found = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    label, _, parent = server_name.lower().partition(".")
    return server_name.lower() in found or (bool(label) and f"*.{parent}" in found)


def _dated(since: datetime, until: datetime, backdate_s: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .not_valid_before(since - timedelta(seconds=backdate_s))
        .not_valid_after(until)
    )


def _serial() -> int:
    # Two certificates of one issuer with one serial number are refused by some clients; 128
    # random bits need no record of what was issued.
    return secrets.randbits(128) or 1


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, keys.GROUP),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _general_name(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key_identifier(
    ca: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> x509.AuthorityKeyIdentifier:
    """The CA's own identifier, however its maker computed it: verifiers compare the two."""
    try:
        found = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")
