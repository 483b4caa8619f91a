"""Lifetimes that could never work are refused with what is allowed."""

import pytest

from gpu_fraction.certs.lifetimes import CA_RENEW_AT, LEAF_RENEW_AT, LifetimeError, Lifetimes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settle_s": -1}, "settle_s=-1"),
        ({"leaf_life_s": 400 * 86400.0}, "at most ca_life_s"),
        ({"settle_s": 200 * 86400.0}, "settle_s"),
    ],
)
def test_refusals(changes: dict[str, float], message: str) -> None:
    """The message names the field and the limit."""
    with pytest.raises(LifetimeError, match=message):
        Lifetimes(**changes)  # type: ignore[arg-type]


def test_the_defaults_are_consistent() -> None:
    """What ships passes its own checks, and a rotation fits into what a CA has left."""
    lifetimes = Lifetimes()
    left_s = lifetimes.ca_life_s * (1 - CA_RENEW_AT)
    assert lifetimes.settle_s + lifetimes.retire_s < left_s


@pytest.mark.parametrize("leaf_life_s", [24.0, 1800.0, 30 * 86400.0])
def test_a_leaf_is_ready_until_it_is_renewed(leaf_life_s: float) -> None:
    """However short its life, a leaf is renewed before its replica is not ready."""
    lifetimes = Lifetimes(leaf_life_s=leaf_life_s)
    assert lifetimes.not_ready_below_s < leaf_life_s * (1 - LEAF_RENEW_AT)
