"""Whether a process may be sent requests: what an API server would say of its leaf."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certs import pki
from certs.bundle import Bundle
from certs.certificate import Leaf
from certs.errors import PkiError
from certs.lifetimes import Lifetimes

__all__ = ["Readiness", "judge"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """A verdict.

    Attributes:
        ready: Whether the served leaf works everywhere.
        reason: One sentence; what is missing, or what holds.
    """

    ready: bool
    reason: str


def judge(
    now: datetime, leaf: Leaf | None, bundles: Sequence[Bundle], lifetimes: Lifetimes
) -> Readiness:
    """Check a leaf against every caBundle, as an API server does in its handshake."""
    if leaf is None:
        return Readiness(ready=False, reason="no certificate yet")
    left = leaf.certificate.not_after - now
    if left < timedelta(seconds=lifetimes.not_ready_below_s):
        text = f"{leaf.certificate.not_after:%Y-%m-%dT%H:%M:%SZ}"
        return Readiness(ready=False, reason=f"the certificate ends {text}")
    for bundle in bundles:
        try:
            pki.check_chain(leaf.chain_pem, bundle.certificates, bundle.server_name, now)
        except PkiError as e:
            return Readiness(ready=False, reason=f"webhook {bundle.entry}: {e}")
    return Readiness(ready=True, reason=f"trusted by {len(bundles)} webhooks")
