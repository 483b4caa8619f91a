"""Lifetimes that could never work are refused with what is allowed."""

import pytest

from certs.errors import LifetimeError
from certs.lifetimes import Lifetimes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settle_s": -1}, "settle_s=-1"),
        ({"ca_renew_at": 1.0}, "ca_renew_at=1.0"),
        ({"leaf_renew_at": 0.0}, "leaf_renew_at=0.0"),
        ({"warn_at": (0.25, 0.0)}, "warn_at"),
        ({"leaf_jitter": 0.9}, "leaf_jitter=0.9"),
        ({"leaf_life_s": 400 * 86400.0}, "at most ca_life_s"),
        ({"settle_s": 200 * 86400.0}, "settle_s"),
        ({"presence_s": 30.0}, "at most half of replica_gone_s"),
        ({"not_ready_below_s": 11 * 86400.0}, "not_ready_below_s"),
    ],
)
def test_refusals(changes: dict[str, float], message: str) -> None:
    """The message names the field and the limit."""
    with pytest.raises(LifetimeError, match=message):
        Lifetimes(**changes)  # type: ignore[arg-type]


def test_the_defaults_are_consistent() -> None:
    """What ships passes its own checks, and a rotation fits into what a CA has left."""
    lifetimes = Lifetimes()
    left_s = lifetimes.ca_life_s * (1 - lifetimes.ca_renew_at)
    assert lifetimes.settle_s + lifetimes.retire_s < left_s
