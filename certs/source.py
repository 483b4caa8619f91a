"""Serves a certificate from any provider, and reports readiness."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from gpu_fraction.certs import pki
from gpu_fraction.certs.bundle import Bundle
from gpu_fraction.certs.cache import CertificateCache
from gpu_fraction.certs.certificate import Leaf
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.reading import PkiError
from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.serving import ServingContext
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.kube.timestamps import utc_now

_log = structlog.get_logger(__name__)


def fault(
    now: datetime, leaf: Leaf | None, bundles: Sequence[Bundle], lifetimes: Lifetimes
) -> str | None:
    """Why an API server refuses a leaf, or soon will; None where every caBundle accepts it."""
    if leaf is None:
        return "no certificate yet"
    ends = leaf.certificate.not_after
    if ends - now < timedelta(seconds=lifetimes.not_ready_below_s):
        return f"the certificate ends {api_time(ends)}"
    for bundle in bundles:
        try:
            pki.check_chain(leaf.chain_pem, bundle.certificates, bundle.server_name, now)
        except PkiError as e:
            return f"webhook {bundle.entry}: {e}"
    return None


class CertificateSource:
    """Keeps a serving context on a leaf; a subclass finds the leaf.

    Attributes:
        serving: Its ``context`` is for the HTTPS server.
    """

    def __init__(
        self,
        lifetimes: Lifetimes,
        *,
        reporter: Reporter,
        cache: CertificateCache | None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare.

        Args:
            lifetimes: When a leaf is not ready.
            reporter: For metrics.
            cache: The configurations, for readiness. None without a cluster: then a valid
                certificate is enough.
            clock: The wall clock.
        """
        self.serving = ServingContext(clock())
        self._lifetimes = lifetimes
        self._reporter = reporter
        self._cache = cache
        self._clock = clock
        self._warned = ""

    def check(self) -> str | None:
        """Why this process is not ready; None where it is."""
        if self._cache is not None and not self._cache.synced:
            found: str | None = "the configurations have not been read yet"
        else:
            found = self._fault(() if self._cache is None else self._cache.bundles())
        self._reporter.ready.set(found is None)
        return found

    def _fault(self, bundles: Sequence[Bundle]) -> str | None:
        return fault(self._clock(), self.serving.leaf, bundles, self._lifetimes)

    async def _swap(self, leaf: Leaf, why: str) -> None:
        """Serve a leaf from now on.

        Raises:
            PkiError: it cannot be served; the leaf before it still is.
        """
        await asyncio.to_thread(self.serving.swap, leaf)
        self._reporter.served(leaf)
        _log.info(
            "certs.leaf_served",
            why=why,
            leaf=leaf.certificate.fingerprint[:16],
            issuer=leaf.issuer[:16],
            not_after=leaf.certificate.not_after.isoformat(),
        )

    def _expiry_warning(self, name: str) -> str:
        """Log that little life is left; returns the message if it is new, else nothing."""
        leaf = self.serving.leaf
        if leaf is None:
            return ""
        certificate, backdate_s = leaf.certificate, self._lifetimes.backdate_s
        message = certificate.expiry_warning(name, self._clock(), backdate_s)
        new = message if message != self._warned else ""
        self._warned = message
        if new:
            _log.warning("certs.leaf_expiring", message=new)
        return new
