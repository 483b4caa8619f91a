"""A certificate as this package reasons about it: facts and PEM text, no library objects."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from gpu_fraction.kube.timestamps import time as api_time

WARN_AT: Final = (0.25, 0.10)
"""Shares of a life left at which there is a warning. Chosen: renewal happens well before both,
so a warning always means that renewal fails."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The facts of one X.509 certificate.

    Attributes:
        fingerprint: SHA-256 of the DER encoding, lower-case hex: the identity used here.
        subject: Distinguished name as text (RFC 4514).
        not_before: First instant of validity, UTC.
        not_after: Last instant of validity, UTC.
        is_ca: basicConstraints says CA:TRUE.
        own: The subject carries this product's organisation and the certificate is a CA.
        pem: The certificate in PEM, ending in a newline.
    """

    fingerprint: str
    subject: str
    not_before: datetime
    not_after: datetime
    is_ca: bool
    own: bool
    pem: str = field(repr=False)

    def expired(self, now: datetime) -> bool:
        """Whether the last instant of validity has passed."""
        return now > self.not_after

    def renew_from(self, share: float, backdate_s: float) -> datetime:
        """The instant at which ``share`` of the life is over, counted from the issuing."""
        issued = self._issued(backdate_s)
        return issued + (self.not_after - issued) * share

    def life_left(self, now: datetime, backdate_s: float) -> float:
        """The share of the life that is left, 0 when expired, 1 when just issued."""
        life_s = (self.not_after - self._issued(backdate_s)).total_seconds()
        if life_s <= 0:
            return 0.0
        return min(1.0, max(0.0, (self.not_after - now).total_seconds() / life_s))

    def expiry_warning(self, name: str, now: datetime, backdate_s: float) -> str:
        """A warning once little of the life is left; empty before.

        The sentence changes only at the next threshold of ``WARN_AT``.

        Args:
            name: Names the certificate in the sentence.
            now: The time, UTC.
            backdate_s: As for ``renew_from``.
        """
        left = self.life_left(now, backdate_s)
        passed = [share for share in WARN_AT if left <= share]
        if not passed:
            return ""
        ends = api_time(self.not_after)
        return f"{name} has {min(passed):.0%} of its life left or less: it ends {ends}"

    def _issued(self, backdate_s: float) -> datetime:
        return min(self.not_before + timedelta(seconds=backdate_s), self.not_after)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign: its certificate and its private key (PEM, PKCS #8)."""

    certificate: Certificate
    key_pem: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the certificate."""
        return self.certificate.fingerprint


@dataclass(frozen=True, slots=True)
class Leaf:
    """A serving certificate with its key, and the CA certificate that signed it.

    Attributes:
        certificate: The leaf itself.
        chain_pem: What is sent in the handshake: the leaf, then intermediates if any.
        key_pem: Private key, PEM.
        issuer: Fingerprint of the CA certificate; empty where it is not known.
    """

    certificate: Certificate
    chain_pem: str = field(repr=False)
    key_pem: str = field(repr=False)
    issuer: str = ""
