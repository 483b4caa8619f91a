"""caBundles: the certificates that a webhook configuration tells the API server to trust.

The API server does not check a caBundle on write (only those of CRD conversions), and with an
unreadable one every call fails. So a bundle is read back before it is published.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gpu_fraction.certs import reading
from gpu_fraction.certs.certificate import Certificate
from gpu_fraction.certs.reading import PkiError


class BundleError(ValueError):
    """A caBundle must not be published; the API server does not check it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The caBundle of one webhook of one configuration.

    Attributes:
        entry: Name of the webhook in its configuration.
        certificates: Its certificates, in order.
        server_name: The name that the API server expects in the leaf when it calls this webhook.
        readable: False where the text does not parse, as after damage; then the API server
            trusts nothing and ``certificates`` is empty.
    """

    entry: str
    certificates: tuple[Certificate, ...] = ()
    server_name: str = ""
    readable: bool = True

    def fingerprints(self) -> frozenset[str]:
        """The identities of its certificates."""
        return frozenset(c.fingerprint for c in self.certificates)

    def trusts(self, fingerprint: str) -> bool:
        """Whether the certificate with this fingerprint is in it."""
        return any(c.fingerprint == fingerprint for c in self.certificates)


class TargetKind(StrEnum):
    """The kinds of objects that carry caBundles."""

    MUTATING = "MutatingWebhookConfiguration"
    VALIDATING = "ValidatingWebhookConfiguration"


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook configuration of ours that exists.

    Attributes:
        kind: Mutating or validating.
        name: Its name.
        bundles: The caBundle of each webhook in it that is ours.
        resource_version: The version that was read.
    """

    kind: TargetKind
    name: str
    bundles: tuple[Bundle, ...]
    resource_version: str = ""


def read_bundle(entry: str, pem: bytes, server_name: str = "") -> Bundle:
    """The caBundle of a PEM text; an empty one trusts nothing and is readable."""
    if not pem.strip():
        return Bundle(entry, server_name=server_name)
    try:
        return Bundle(entry, tuple(reading.read_certificates(pem)), server_name)
    except PkiError:
        return Bundle(entry, server_name=server_name, readable=False)


def render_bundle(
    certificates: Sequence[Certificate],
    must_trust: Iterable[str] = (),
    present: Iterable[str] = (),
) -> str:
    """The PEM text to publish, read back and checked.

    Args:
        certificates: The certificates to put into it.
        must_trust: Fingerprints of CAs whose leaves are served right now.
        present: Fingerprints of the certificates in it now. Other writers may trust a leaf
            itself, as with self-signed certificates; a certificate that we add is a CA.

    Raises:
        BundleError: it would be empty, gain a certificate that is not a CA, not read back
            unchanged, or lose a CA in use.
    """
    if not certificates:
        raise BundleError("an empty caBundle trusts every public CA instead of ours")
    kept = set(present)
    for certificate in certificates:
        if not certificate.is_ca and certificate.fingerprint not in kept:
            raise BundleError(f"certificate {certificate.subject!r} is not a CA")
    text = "".join(c.pem for c in certificates)
    back = [c.fingerprint for c in reading.read_certificates(text)]
    if back != [c.fingerprint for c in certificates]:
        raise BundleError("the caBundle does not read back as it was written")
    missing = sorted(set(must_trust) - set(back))
    if missing:
        raise BundleError(f"a replica still serves from {missing[0][:16]}, which is not in it")
    return text
