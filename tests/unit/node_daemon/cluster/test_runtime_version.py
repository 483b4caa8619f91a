"""The daemon says where the container runtime may ignore it."""

import pytest

from gpu_fraction.domain.container_runtime import cdi_warning


@pytest.mark.parametrize(
    ("reported", "warning"),
    [
        ("containerd://2.1.9", ""),
        ("containerd://1.7.24~ds1", "enable_cdi = true"),
        ("cri-o://1.34.0", ""),
        ("docker://20.10", "not known"),
        ("", "not known"),
    ],
)
def test_warning_by_version(reported: str, warning: str) -> None:
    """Known good versions raise none; others say what is needed."""
    found = cdi_warning(reported)
    assert (warning in found) if warning else not found
