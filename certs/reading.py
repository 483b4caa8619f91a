"""Reads certificates and keys from PEM text; refuses pairs that do not match."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID

from gpu_fraction.certs.certificate import Authority, Certificate, Leaf
from gpu_fraction.domain import keys


class PkiError(ValueError):
    """A certificate, key or chain is unreadable, or does not pass a check."""


def read_certificates(pem: str | bytes) -> list[Certificate]:
    """Every certificate of a PEM text, in order; text between the blocks is ignored.

    Raises:
        PkiError: no certificate in it, or one cannot be read.
    """
    return [facts_of(c) for c in parse(pem)]


def read_authority(certificate_pem: str | bytes, key_pem: str | bytes) -> Authority:
    """A CA from its two PEM texts.

    Raises:
        PkiError: unreadable, not a CA, or the key is another certificate's.
    """
    certificate = parse_one(certificate_pem)
    facts = facts_of(certificate)
    if not facts.is_ca:
        raise PkiError(f"certificate {facts.subject!r} is not a CA")
    _check_match(certificate, private_key(key_pem))
    return Authority(facts, _text(key_pem))


def read_leaf(chain_pem: str | bytes, key_pem: str | bytes) -> Leaf:
    """A serving certificate from a chain (leaf first) and its key.

    Raises:
        PkiError: unreadable, or the key is another certificate's.
    """
    chain = parse(chain_pem)
    _check_match(chain[0], _load_key(key_pem))
    facts = [facts_of(certificate) for certificate in chain]
    return Leaf(facts[0], "".join(f.pem for f in facts), _text(key_pem))


def facts_of(certificate: x509.Certificate) -> Certificate:
    """The facts of a certificate that this package reasons about.

    Raises:
        PkiError: a part of it cannot be read.
    """
    try:
        return _read(certificate)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise PkiError(f"a certificate cannot be read: {e}") from e


def _read(certificate: x509.Certificate) -> Certificate:
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    organisations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Certificate(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        subject=certificate.subject.rfc4514_string(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_ca=is_ca,
        own=is_ca and any(a.value == keys.GROUP for a in organisations),
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
    )


def parse(pem: str | bytes) -> list[x509.Certificate]:
    """Every certificate of a PEM text.

    Raises:
        PkiError: there is none, or one cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(_bytes(pem))
    except ValueError as e:
        raise PkiError(f"no readable certificate: {e}") from e


def parse_one(pem: str | bytes) -> x509.Certificate:
    """The only certificate of a PEM text.

    Raises:
        PkiError: there is none, there are several, or it cannot be read.
    """
    certificates = parse(pem)
    if len(certificates) != 1:
        raise PkiError(f"{len(certificates)} certificates where one is expected")
    return certificates[0]


def private_key(pem: str | bytes) -> ec.EllipticCurvePrivateKey:
    """The private key of a CA.

    Raises:
        PkiError: it cannot be read, or is no ECDSA key.
    """
    key = _load_key(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("the private key of a CA here is an ECDSA key")
    return key


def _load_key(pem: str | bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(_bytes(pem), password=None)
    except (ValueError, TypeError) as e:
        # No message may quote the key.
        raise PkiError("no readable private key") from e


def _check_match(certificate: x509.Certificate, key: PrivateKeyTypes) -> None:
    if key.public_key() != certificate.public_key():
        raise PkiError(
            f"the key does not belong to certificate {certificate.subject.rfc4514_string()!r}"
        )


def _bytes(pem: str | bytes) -> bytes:
    return pem.encode() if isinstance(pem, str) else pem


def _text(pem: str | bytes) -> str:
    # The text was read as PEM before; there may be any text around the blocks.
    return pem if isinstance(pem, str) else pem.decode("ascii", errors="ignore")
