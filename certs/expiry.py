"""Which share of a certificate's life is left, as a warning for people."""

from datetime import datetime

from certs.certificate import Certificate
from certs.lifetimes import Lifetimes

__all__ = ["expiry_warning"]


def expiry_warning(
    what: str, certificate: Certificate, now: datetime, lifetimes: Lifetimes
) -> str:
    """A sentence once little of the life is left; empty before.

    The sentence changes only when the next threshold is passed.

    Args:
        what: Names the certificate.
        certificate: Whose life it is.
        now: The time, UTC.
        lifetimes: The thresholds.
    """
    left = certificate.life_left(now, lifetimes.backdate_s)
    passed = [share for share in lifetimes.warn_at if left <= share]
    if not passed:
        return ""
    ends = f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}"
    return f"{what} has {min(passed):.0%} of its life left or less: it ends {ends}"
