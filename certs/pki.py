"""Makes and checks certificates: ECDSA P-256, random serials, key identifiers, SANs.

Every function takes the time as an argument. If the clock is before the CA's own date, a leaf is
dated from that, so that a replica whose clock is behind still signs a usable leaf.
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

from gpu_fraction.certs.certificate import Authority, Certificate, Leaf
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.reading import PkiError, facts_of, parse, parse_one, private_key
from gpu_fraction.domain import keys
from gpu_fraction.kube.timestamps import time as api_time

_CURVE: Final = ec.SECP256R1()
# X.520 ub-common-name.
_COMMON_NAME_MAX: Final = 64
# The demands of Go's verifier, hence of the API server: a CA has basicConstraints, a leaf has
# names. The library's default is the stricter profile of the web, which refuses certificates of
# other issuers that the API server accepts.
_CA_POLICY: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
)
_LEAF_POLICY: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
)


def new_authority(name: str, now: datetime, lifetimes: Lifetimes) -> Authority:
    """A new self-signed CA.

    Args:
        name: The owner of the CA; goes into the common name, cut to fit.
        now: The time, UTC.
        lifetimes: Its life and how far it is dated back.
    """
    key = ec.generate_private_key(_CURVE)
    # The subject differs from one CA to the next, so that a verifier finds the right one by
    # name even where it ignores key identifiers.
    suffix = f" CA {secrets.token_hex(4)}"
    subject = _name(name[: _COMMON_NAME_MAX - len(suffix)] + suffix)
    since = now - timedelta(seconds=lifetimes.backdate_s)
    until = now + timedelta(seconds=lifetimes.ca_life_s)
    builder = _builder(subject, subject, key, since, until, ca=True).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    return Authority(facts_of(builder.sign(key, hashes.SHA256())), _key_text(key))


def issue_leaf(
    authority: Authority,
    names: Sequence[str],
    now: datetime,
    lifetimes: Lifetimes,
    *,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Leaf:
    """A certificate with a new key.

    Args:
        authority: The CA that signs.
        names: DNS names and IP addresses of the subject, the most important first.
        now: The time, UTC.
        lifetimes: Its life and how far it is dated back.
        usage: Server or client authentication.

    Raises:
        PkiError: the CA's certificate or key cannot be read.
    """
    ca = parse_one(authority.certificate.pem)
    ca_key = private_key(authority.key_pem)
    key = ec.generate_private_key(_CURVE)
    backdate = timedelta(seconds=lifetimes.backdate_s)
    since = max(now, ca.not_valid_before_utc + backdate)
    until = min(since + timedelta(seconds=lifetimes.leaf_life_s), ca.not_valid_after_utc)
    subject = _name(names[0][:_COMMON_NAME_MAX])
    alternatives = x509.SubjectAlternativeName([_general_name(n) for n in names])
    builder = (
        _builder(subject, ca.subject, key, min(since, until) - backdate, until, ca=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(alternatives, critical=False)
        .add_extension(_issuer_key_identifier(ca, ca_key), critical=False)
    )
    facts = facts_of(builder.sign(ca_key, hashes.SHA256()))
    return Leaf(facts, facts.pem, _key_text(key), authority.fingerprint)


def check_chain(
    chain_pem: str | bytes, trusted: Iterable[Certificate], server_name: str, at: datetime
) -> None:
    """Check a chain as an API server does: signatures, dates, basic constraints, names.

    As in Go's verifier, a leaf in the caBundle needs no CA, so a self-signed certificate works.

    Args:
        chain_pem: The chain that the server sends, leaf first.
        trusted: The certificates of the caBundle.
        server_name: DNS name or IP address that the client dials.
        at: The time of the check, UTC.

    Raises:
        PkiError: an API server would refuse the chain; or a certificate cannot be read.
    """
    leaf, *intermediates = parse(chain_pem)
    known = {c.fingerprint: c for c in trusted}
    if (found := known.get(facts_of(leaf).fingerprint)) is not None:
        _check_itself(found, leaf, server_name, at)
        return
    roots = [parse_one(c.pem) for c in known.values() if c.is_ca]
    if not roots:
        raise PkiError("no CA certificate to check against")
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
        raise PkiError(f"{server_name}: {e}") from e


def _check_itself(
    facts: Certificate, leaf: x509.Certificate, server_name: str, at: datetime
) -> None:
    """Check the dates and names of a leaf that is trusted itself.

    Raises:
        PkiError: the leaf is not valid at that time or for that name.
    """
    if not facts.not_before <= at <= facts.not_after:
        valid = f"valid from {api_time(facts.not_before)} to {api_time(facts.not_after)}"
        raise PkiError(f"{server_name}: {valid}")
    if not _names(leaf, server_name):
        raise PkiError(f"{server_name}: not among the names of {facts.subject!r}")


def _names(leaf: x509.Certificate, server_name: str) -> bool:
    """True where a leaf is for this server; an asterisk matches one label (RFC 6125)."""
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


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: datetime,
    until: datetime,
    *,
    ca: bool,
) -> x509.CertificateBuilder:
    public_key = key.public_key()
    constraints = x509.BasicConstraints(ca=ca, path_length=0 if ca else None)
    return (
        x509.CertificateBuilder(issuer, subject, public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(constraints, critical=True)
        .add_extension(_key_usage(ca=ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


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
    """The CA's own identifier if it has one, because verifiers compare the two."""
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
