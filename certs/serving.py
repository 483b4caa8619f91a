"""The TLS context of the HTTPS server; its certificate can change under load.

If ``load_cert_chain`` fails half-way on a context in use (certificate new, key old), every later
handshake fails, and a change of the key type keeps the old certificate. So each certificate gets
a context of its own, and the listening context, which never changes, passes every handshake to
the newest one. Open connections keep theirs.
"""

import os
import ssl
from contextlib import ExitStack
from datetime import datetime
from typing import Final

from gpu_fraction.certs import pki
from gpu_fraction.certs.certificate import Leaf
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.reading import PkiError

# Go's server default, and what the API server's client demands.
_MINIMUM_VERSION: Final = ssl.TLSVersion.TLSv1_2


class ServingContext:
    """An ``SSLContext`` whose certificate is swapped, never reloaded.

    Attributes:
        context: For the HTTPS server; one for the life of the process.
        leaf: The leaf that new handshakes get; None before the first.
    """

    def __init__(self, now: datetime) -> None:
        """A context that completes handshakes from the start.

        Until the first leaf it serves a placeholder: probes work, the API server refuses it.

        Args:
            now: For that certificate's dates, UTC.
        """
        lifetimes = Lifetimes()
        authority = pki.new_authority("placeholder", now, lifetimes)
        placeholder = pki.issue_leaf(authority, ["placeholder.invalid"], now, lifetimes)
        self.leaf: Leaf | None = None
        self.context = _new_context()
        _load(self.context, placeholder)
        self._current = self.context
        self.context.sni_callback = self._choose

    def swap(self, leaf: Leaf) -> None:
        """Use this leaf for every handshake from now on.

        Blocks for about a millisecond; may be called in any thread.

        Raises:
            PkiError: it cannot be served; the leaf before it still is.
        """
        context = _new_context()
        _load(context, leaf)
        self._current = context
        self.leaf = leaf

    def _choose(
        self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        # Called for every handshake, also for one that names no server.
        connection.context = self._current


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _MINIMUM_VERSION
    context.set_alpn_protocols(["http/1.1"])
    # The API server resumes no sessions, and a resumed session would outlive its certificate.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _load(context: ssl.SSLContext, leaf: Leaf) -> None:
    """Load a pair through anonymous files in memory.

    OpenSSL's Python binding reads only files. These keep keys out of file systems and work with a
    read-only root.
    """
    with ExitStack() as stack:
        paths = []
        for name, text in (("certificate", leaf.chain_pem), ("key", leaf.key_pem)):
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
            stack.callback(os.close, descriptor)
            os.set_blocking(descriptor, False)
            os.write(descriptor, text.encode("ascii"))
            paths.append(f"/proc/self/fd/{descriptor}")
        try:
            context.load_cert_chain(paths[0], paths[1])
        except ssl.SSLError as e:
            # The library's text names the kind of fault, never the key.
            raise PkiError(f"this certificate and key cannot be served: {e.reason}") from e
