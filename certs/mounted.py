"""A certificate from another system, such as cert-manager: a mounted pair of files.

The files are polled and compared by content, because the kubelet replaces a mounted Secret by
renaming a directory inside it, and a watch on a file does not see that.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from gpu_fraction.certs import reading
from gpu_fraction.certs.cache import CertificateCache
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.reading import PkiError
from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.source import CertificateSource
from gpu_fraction.kube.timestamps import utc_now

_log = structlog.get_logger(__name__)

POLL_S: Final = 10.0
"""Seconds between two readings. Chosen: the kubelet takes about a minute itself to bring a
changed Secret into a Pod, and two small files cost next to nothing."""


class MountedCertificates(CertificateSource):
    """Keeps the serving context on the content of the files."""

    def __init__(
        self,
        chain: Path,
        key: Path,
        lifetimes: Lifetimes,
        *,
        reporter: Reporter,
        cache: CertificateCache | None = None,
        poll_s: float = POLL_S,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            chain: The certificates in PEM, leaf first.
            key: The leaf's key in PEM.
            lifetimes: When a leaf is not ready.
            reporter: For metrics.
            cache: The configurations, for readiness; ``run`` runs it. None without a cluster.
            poll_s: Seconds between two readings.
            clock: The wall clock.
        """
        super().__init__(lifetimes, reporter=reporter, cache=cache, clock=clock)
        self._paths = chain, key
        self._poll_s = poll_s
        self._served: tuple[bytes, bytes] | None = None

    async def run(self) -> None:
        """Follow the files until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="mounted-certificate")
            if self._cache is None:
                _log.info("certs.configurations_not_seen", checked="the certificate's dates alone")
            else:
                group.create_task(self._cache.run(), name="certificates-watch")

    async def _follow(self) -> None:
        while True:
            await self._load()
            await asyncio.sleep(self._poll_s)

    async def _load(self) -> None:
        """Read the files, and serve the pair if it is new and complete."""
        try:
            chain, key = self._paths
            found = await asyncio.to_thread(lambda: (chain.read_bytes(), key.read_bytes()))
            if found != self._served:
                leaf = await asyncio.to_thread(reading.read_leaf, *found)
                await self._swap(leaf, "the mounted files have changed")
                self._served = found
        except (OSError, PkiError) as error:
            # It may be a moment between two writes of the pair.
            _log.warning("certs.mount_not_served", error=str(error))
            self._reporter.load_failures.inc()
        self._expiry_warning(f"the certificate in {self._paths[0]}")
