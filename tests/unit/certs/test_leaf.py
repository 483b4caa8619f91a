"""Which leaf a replica serves, case by case."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_fraction.certs import pki
from gpu_fraction.certs.bundle import Bundle
from gpu_fraction.certs.certificate import Authority, Leaf
from gpu_fraction.certs.leaf import choose_authority, renew_at
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.state import CaState, Phase

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LIFETIMES = Lifetimes()
OTHER, CURRENT, NEXT = (pki.new_authority("webhook", NOW, LIFETIMES) for _ in range(3))


def bundle(*authorities: Authority) -> Bundle:
    """A caBundle with these CAs."""
    return Bundle("entry", tuple(a.certificate for a in authorities))


def leaf_of(authority: Authority, at: datetime = NOW) -> Leaf:
    """A leaf signed then."""
    return pki.issue_leaf(authority, ["webhook.ns.svc"], at, LIFETIMES)


STEADY = CaState(phase=Phase.STEADY, since=NOW, current=CURRENT)
SETTLE = replace(STEADY, phase=Phase.SETTLE, next=NEXT)
SWITCH = replace(SETTLE, phase=Phase.SWITCH)
RECOVERY = replace(SETTLE, current=None)
BOTH = bundle(CURRENT, NEXT)


@pytest.mark.parametrize(
    ("state", "bundles", "wanted"),
    [
        pytest.param(None, [bundle()], None, id="no Secret"),
        pytest.param(STEADY, [bundle(CURRENT)], CURRENT, id="steady"),
        pytest.param(STEADY, [], CURRENT, id="no configuration yet"),
        pytest.param(STEADY, [bundle()], CURRENT, id="not published yet"),
        pytest.param(SETTLE, [BOTH], CURRENT, id="the next CA may not sign in Settle"),
        pytest.param(SWITCH, [BOTH], NEXT, id="the next CA signs in Switch"),
        pytest.param(SWITCH, [BOTH, bundle(CURRENT)], CURRENT, id="not trusted by one"),
        pytest.param(RECOVERY, [BOTH], None, id="wait for the Switch"),
    ],
)
def test_the_first_leaf(
    state: CaState | None, bundles: list[Bundle], wanted: Authority | None
) -> None:
    """A replica that starts signs with what is trusted already."""
    sign = choose_authority(NOW, state, bundles, None, None, LIFETIMES)
    assert (sign.authority if sign else None) == wanted


@pytest.mark.parametrize(
    ("state", "bundles", "issuer", "wanted"),
    [
        pytest.param(STEADY, [bundle(CURRENT)], CURRENT, None, id="steady"),
        pytest.param(SETTLE, [BOTH], CURRENT, None, id="settling"),
        pytest.param(SWITCH, [BOTH], CURRENT, NEXT, id="switch"),
        pytest.param(SWITCH, [BOTH], NEXT, None, id="switched"),
        pytest.param(SWITCH, [BOTH, bundle(CURRENT)], CURRENT, None, id="one lacks the next"),
        pytest.param(SWITCH, [BOTH, bundle(CURRENT)], NEXT, CURRENT, id="one lost the next"),
        pytest.param(SWITCH, [BOTH, bundle()], NEXT, None, id="one is empty: nothing is better"),
        pytest.param(SETTLE, [BOTH], NEXT, None, id="thrown back from Switch: stays"),
        pytest.param(STEADY, [bundle(CURRENT, OTHER)], OTHER, None, id="unknown but trusted"),
        pytest.param(STEADY, [bundle(CURRENT)], OTHER, CURRENT, id="unknown and not trusted"),
        pytest.param(STEADY, [bundle()], OTHER, CURRENT, id="unknown, nothing trusted"),
        pytest.param(STEADY, [bundle()], CURRENT, None, id="wiped: the holder repairs"),
        pytest.param(RECOVERY, [bundle(OTHER, NEXT)], OTHER, None, id="Secret was deleted"),
        pytest.param(None, [bundle(OTHER)], OTHER, None, id="Secret is deleted"),
    ],
)
def test_a_leaf_in_service(
    state: CaState | None, bundles: list[Bundle], issuer: Authority, wanted: Authority | None
) -> None:
    """It moves only to what is trusted everywhere, or away from what does not work."""
    leaf = leaf_of(issuer)
    sign = choose_authority(NOW, state, bundles, leaf, None, LIFETIMES)
    assert (sign.authority if sign else None) == wanted


def test_renewal_is_due_between_the_jitter_and_two_thirds() -> None:
    """Replicas renew at different times, all of them in time, and each always at the same."""
    leaf = leaf_of(CURRENT)
    due = [renew_at(leaf, f"replica-{i}", LIFETIMES) for i in range(50)]
    days = [(at - NOW) / timedelta(days=1) for at in due]
    assert all(18.49 <= day <= 20.01 for day in days)
    assert max(days) - min(days) > 0.5
    assert due[0] == renew_at(leaf, "replica-0", LIFETIMES)


@pytest.mark.parametrize(
    ("state", "issuer", "wanted"),
    [
        pytest.param(STEADY, CURRENT, CURRENT, id="the same CA again"),
        pytest.param(SETTLE, NEXT, NEXT, id="thrown back from Switch: the same CA again"),
        pytest.param(SETTLE, OTHER, None, id="an unknown CA waits for a Switch"),
    ],
)
def test_renewal(state: CaState, issuer: Authority, wanted: Authority | None) -> None:
    """A leaf that is due gets a successor of the same CA."""
    leaf = leaf_of(issuer)
    due = renew_at(leaf, "a", LIFETIMES)
    trusted = [bundle(CURRENT, NEXT, OTHER)]
    before = due - timedelta(seconds=1)
    assert choose_authority(before, state, trusted, leaf, due, LIFETIMES) is None
    sign = choose_authority(due, state, trusted, leaf, due, LIFETIMES)
    assert (sign.authority if sign else None) == wanted


def test_an_expired_leaf_is_replaced_whatever_is_trusted() -> None:
    """Nothing is lost by signing, even while no caBundle has the CA."""
    leaf = leaf_of(CURRENT)
    late = NOW + timedelta(days=31)
    sign = choose_authority(late, STEADY, [bundle()], leaf, None, LIFETIMES)
    assert sign is not None
    assert sign.authority == CURRENT


def test_at_the_end_of_the_ca_nothing_is_signed_again() -> None:
    """A leaf that ends with its CA has no longer-lived successor."""
    late = NOW + timedelta(days=364)
    leaf = leaf_of(CURRENT, late)
    now = late + timedelta(hours=20)
    trusted = [bundle(CURRENT)]
    assert choose_authority(now, STEADY, trusted, leaf, now, LIFETIMES) is None
    over = NOW + timedelta(days=366)
    assert choose_authority(over, STEADY, trusted, leaf, over, LIFETIMES) is None
