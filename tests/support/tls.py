"""Throw-away certificates."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Tls:
    """Both ends of a certificate, and its files."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    cert: Path
    key: Path


def make(folder: Path) -> Tls:
    """A certificate for loopback and who trusts it."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1", "localhost")
    cert, key = folder / "tls.crt", folder / "tls.key"
    cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client, cert, key)
