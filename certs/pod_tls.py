"""Certificates for a scheduler and an extender that share a pod.

They talk over the pod's own loopback, so the pod makes its CA, both certificates and both
keys when it starts, in a folder in memory: there is no Secret to guard and none to rotate.
"""

from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.x509.oid import ExtendedKeyUsageOID

from gpu_fraction.certs import pki
from gpu_fraction.certs.lifetimes import DAY_S, Lifetimes

CLIENT_NAME: Final = "gpu-fraction-scheduler"
"""Common name of the scheduler's certificate."""

_LIFE_S: Final = 3650 * DAY_S
"""Chosen: longer than any pod lives, because kube-scheduler reads its files only once."""


def write_pod_tls(folder: Path, now: datetime) -> None:
    """Write ``ca.crt``, ``tls.crt``, ``tls.key``, ``client.crt`` and ``client.key``.

    The CA's key is thrown away, so that nothing else can ever be signed with it. Blocks.

    Args:
        folder: A volume that both containers mount.
        now: The time, UTC.

    Raises:
        OSError: a file cannot be written.
    """
    lifetimes = Lifetimes(ca_life_s=_LIFE_S, leaf_life_s=_LIFE_S)
    authority = pki.new_authority(f"{CLIENT_NAME} pod", now, lifetimes)
    _write(folder / "ca.crt", authority.certificate.pem)
    for stem, names, usage in (
        ("tls", ["localhost", "127.0.0.1"], ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", [CLIENT_NAME], ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        leaf = pki.issue_leaf(authority, names, now, lifetimes, usage=usage)
        _write(folder / f"{stem}.crt", leaf.chain_pem)
        _write(folder / f"{stem}.key", leaf.key_pem)


def _write(path: Path, content: str) -> None:
    """Write a file that only its owner may read, also where it was there before."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(content, encoding="ascii")
