"""A certificate that somebody else provides, as cert-manager does: a mounted pair of files.

The kubelet replaces a mounted Secret by renaming a directory inside it, which a watch on a
file never sees. So the directory is watched, what is in it is compared by content, and it is
looked at once a minute in any case.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from watchfiles import awatch

from certs import reading
from certs.certificate import Leaf
from certs.errors import PkiError
from certs.expiry import expiry_warning
from certs.lifetimes import Lifetimes
from certs.metrics import CertificateMetrics
from certs.readiness import Readiness, judge
from certs.serving import ServingContext
from certs.watched import Watched
from gpu_fraction.kube.timestamps import utc_now

__all__ = ["MountedCertificates", "MountedFiles"]

_log = structlog.get_logger(__name__)

# Chosen: the kubelet takes about a minute itself to bring a changed Secret into a Pod.
POLL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class MountedFiles:
    """Where the pair is.

    Attributes:
        directory: The mounted volume.
        certificate: Name of the chain, leaf first; ``tls.crt`` in a Secret of type TLS.
        key: Name of the key.
    """

    directory: Path
    certificate: str = "tls.crt"
    key: str = "tls.key"

    def read(self) -> tuple[bytes, bytes]:
        """Both files. Blocks.

        Raises:
            OSError: one is missing or unreadable.
        """
        return (
            (self.directory / self.certificate).read_bytes(),
            (self.directory / self.key).read_bytes(),
        )


class MountedCertificates:
    """Keeps the serving context on what the files hold.

    Attributes:
        serving: Its ``context`` is for the HTTPS server.
    """

    def __init__(
        self,
        files: MountedFiles,
        lifetimes: Lifetimes,
        *,
        metrics: CertificateMetrics,
        watched: Watched | None = None,
        poll_s: float = POLL_S,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            files: Where the pair is.
            lifetimes: When to warn and when not to be ready.
            metrics: Are told what is served.
            watched: The configurations, for readiness; run here. None where there is no
                cluster to see them in: then a valid certificate is enough.
            poll_s: Between two looks although no change was announced.
            clock: The wall clock.
        """
        self.serving = ServingContext(clock())
        self._files = files
        self._lifetimes = lifetimes
        self._metrics = metrics
        self._watched = watched
        self._poll_s = poll_s
        self._clock = clock
        self._digest = b""
        self._warned = ""

    def readiness(self) -> Readiness:
        """Whether an API server accepts what this process serves."""
        verdict = self._verdict()
        self._metrics.ready(ready=verdict.ready)
        return verdict

    def _verdict(self) -> Readiness:
        if self._watched is None:
            return judge(self._clock(), self.serving.leaf, (), self._lifetimes)
        if not self._watched.synced:
            return Readiness(ready=False, reason="the configurations have not been read yet")
        bundles = self._watched.bundles()
        return judge(self._clock(), self.serving.leaf, bundles, self._lifetimes)

    async def run(self) -> None:
        """Follow the files until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="mounted-certificate")
            if self._watched is None:
                _log.info("certs.configurations_not_seen", checked="the certificate's dates alone")
            else:
                group.create_task(self._watched.run(), name="certificates-watch")

    async def _follow(self) -> None:
        await self.load()
        while True:
            try:
                await self._follow_directory()
            except (OSError, RuntimeError) as error:
                # The volume is not there, or not any more. Or the node has no inotify left, of
                # which watchfiles tells by a RuntimeError: that may last.
                gone = isinstance(error, OSError)
                _log.warning("certs.mount_not_watched", error=str(error))
                await asyncio.sleep(min(self._poll_s, 1.0) if gone else self._poll_s)
                await self.load()

    async def _follow_directory(self) -> None:
        changes = awatch(
            self._files.directory,
            yield_on_timeout=True,
            rust_timeout=max(1, round(self._poll_s * 1000)),
            recursive=False,
        )
        async with aclosing(changes):
            async for _ in changes:
                await self.load()

    async def load(self) -> None:
        """Look at the files, and serve what is in them if it is new and whole."""
        try:
            chain_pem, key_pem = await asyncio.to_thread(self._files.read)
            digest = hashlib.sha256(chain_pem + b"\0" + key_pem).digest()
            if digest != self._digest:
                leaf = await asyncio.to_thread(reading.read_leaf, chain_pem, key_pem)
                await asyncio.to_thread(self.serving.swap, leaf)
                self._digest = digest
                self._note(leaf)
        except (OSError, PkiError) as error:
            # Also between the two writes of somebody who does not swap directories.
            _log.warning("certs.mount_not_served", error=str(error))
            self._metrics.load_failed()
        self._warn()

    def _note(self, leaf: Leaf) -> None:
        self._metrics.served(leaf)
        _log.info(
            "certs.leaf_served",
            why="the mounted files have changed",
            leaf=leaf.certificate.fingerprint[:16],
            not_after=leaf.certificate.not_after.isoformat(),
        )

    def _warn(self) -> None:
        leaf = self.serving.leaf
        if leaf is None:
            return
        what = f"the certificate in {self._files.directory}"
        message = expiry_warning(what, leaf.certificate, self._clock(), self._lifetimes)
        if message and message != self._warned:
            _log.warning("certs.leaf_expiring", message=message)
        self._warned = message
