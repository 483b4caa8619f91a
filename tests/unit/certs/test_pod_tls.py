"""Certificates that a scheduler's pod makes for itself."""

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

from gpu_fraction.certs.pod_tls import CLIENT_NAME, write_pod_tls
from gpu_fraction.scheduler.auth import server_tls


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    """What the server learns of the client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    at_server = server.wrap_bio(to_server, to_client, server_side=True)
    at_client = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(4):
        for side in (at_client, at_server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = at_server.getpeercert()
    assert found is not None
    return dict(found)


def test_scheduler_and_extender_of_a_pod_trust_each_other(tmp_path: Path) -> None:
    """The server answers for the loopback address, the client by the name that is let in."""
    write_pod_tls(tmp_path, datetime.now(UTC))
    client = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    client.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    server = server_tls(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    subject = handshake(server, client)["subject"]
    assert isinstance(subject, tuple)
    assert (("commonName", CLIENT_NAME),) in subject


def test_keys_are_the_owners_alone_and_a_restart_writes_new_ones(tmp_path: Path) -> None:
    """An init container may run again in the same pod."""
    write_pod_tls(tmp_path, datetime.now(UTC))
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_pod_tls(tmp_path, datetime.now(UTC))
    assert set(first) == {"ca.crt", "tls.crt", "tls.key", "client.crt", "client.key"}
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() != first[path.name]
