"""The daemon says where the container runtime may ignore it."""

import pytest

from node_daemon.cluster.api_server import cdi_doubt


@pytest.mark.parametrize(
    ("reported", "doubt"),
    [
        ("containerd://2.1.9", ""),
        ("containerd://1.7.24~ds1", "enable_cdi = true"),
        ("cri-o://1.34.0", ""),
        ("docker://20.10", "not known"),
        ("", "not known"),
    ],
)
def test_doubt_by_version(reported: str, doubt: str) -> None:
    """Known good versions raise none; others say what is needed."""
    found = cdi_doubt(reported)
    assert (doubt in found) if doubt else not found
