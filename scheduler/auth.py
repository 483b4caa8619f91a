"""Authentication of kube-scheduler, by its client certificate or by a token.

A caller of bind binds pods with our rights, so a caller without certificate and token is refused.
kube-scheduler sends a client certificate (``tlsConfig``). It cannot send a bearer token, but it
sends the text before ``@`` in ``urlPrefix`` as basic authentication.
"""

import base64
import binascii
import hmac
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

_BASIC: Final = "basic "
_BEARER: Final = "bearer "


class AuthError(ValueError):
    """The settings accept no caller, or their files cannot be used."""


@dataclass(frozen=True, slots=True)
class Callers:
    """The callers that are accepted; either proof is enough.

    Attributes:
        names: Common names or DNS names of client certificates; the certificate itself is
            verified against the client CA in the TLS handshake.
        token: The secret of callers without a certificate; empty accepts no token.
    """

    names: frozenset[str] = frozenset()
    token: str = ""

    def __post_init__(self) -> None:
        if not self.names and not self.token:
            raise AuthError("no caller is accepted: name client certificates or set a token")

    def __repr__(self) -> str:
        """The names, without the token."""
        return f"Callers(names={sorted(self.names)!r})"

    def admit(self, request: web.Request) -> bool:
        """True for a caller with a valid certificate or token."""
        return self._by_certificate(request) or self._by_token(request)

    def _by_certificate(self, request: web.Request) -> bool:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport else None
        return certificate is not None and not self.names.isdisjoint(_names(certificate))

    def _by_token(self, request: web.Request) -> bool:
        if not self.token:
            return False
        given = _secret(request.headers.get("Authorization", ""))
        # Compared in constant time, so that the time tells nothing about the token.
        return hmac.compare_digest(given, self.token.encode())


def _secret(header: str) -> bytes:
    """The token in an Authorization header; empty where there is none."""
    kind = header[: len(_BEARER)].lower()
    if kind == _BEARER:
        return header[len(_BEARER) :].strip().encode()
    if kind.startswith(_BASIC):
        try:
            pair = base64.b64decode(header[len(_BASIC) :].strip(), validate=True)
        except binascii.Error:
            return b""
        return pair.partition(b":")[2]
    return b""


def _names(certificate: dict[str, Any]) -> set[str]:
    """Common name and DNS names, as ``ssl.SSLSocket.getpeercert`` gives them."""
    names = {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    for part in certificate.get("subject", ()):
        names |= {value for kind, value in part if kind == "commonName"}
    return names


def server_tls(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS for the extender's server. Blocks: reads files.

    Client certificates are optional, so that probes and metrics need none; each request of
    kube-scheduler is checked on its own.

    Args:
        certificate: The server's certificate chain, PEM.
        key: Its key, PEM.
        client_ca: CA of the callers' certificates, PEM; None accepts none.

    Raises:
        AuthError: a file is missing or does not parse.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # kube-scheduler never resumes a session (crypto/tls needs a ClientSessionCache for that), and
    # tickets are a quarter of the cost of a handshake, one for every third pod.
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except OSError as e:
        raise AuthError(f"TLS files {certificate}, {key}, {client_ca}: {e}") from e
    return context
