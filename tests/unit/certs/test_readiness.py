"""A replica is ready when an API server would accept what it serves, by every caBundle."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_fraction.certs import pki
from gpu_fraction.certs.bundle import Bundle, BundleError, read_bundle, render_bundle
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.source import fault

NOW = datetime.now(UTC)
LIFETIMES = Lifetimes()
NAME = "webhook.ns.svc"
OURS, OTHER = (pki.new_authority("webhook", NOW, LIFETIMES) for _ in range(2))
LEAF = pki.issue_leaf(OURS, [NAME], NOW, LIFETIMES)
GOOD = Bundle("validate", (OURS.certificate,), NAME)


@pytest.mark.parametrize(
    ("bundles", "reason"),
    [
        ([GOOD, GOOD], ""),
        ([], ""),
        ([replace(GOOD, certificates=(OTHER.certificate, OURS.certificate))], ""),
        ([GOOD, replace(GOOD, certificates=())], "webhook validate: no CA certificate"),
        ([GOOD, replace(GOOD, certificates=(OTHER.certificate,))], "webhook validate"),
        ([replace(GOOD, server_name="other.ns.svc")], "webhook validate: other.ns.svc"),
    ],
)
def test_every_bundle_counts(bundles: list[Bundle], reason: str) -> None:
    """One webhook that would fail is enough not to be ready, and it is named."""
    found = fault(NOW, LEAF, bundles, LIFETIMES)
    assert (found is None) == (reason == "")
    assert reason in (found or "")


def test_without_a_leaf_or_close_to_its_end() -> None:
    """Neither nothing nor something that ends in minutes is ready."""
    assert fault(NOW, None, [GOOD], LIFETIMES) == "no certificate yet"
    late = LEAF.certificate.not_after - timedelta(minutes=9)
    assert "ends" in (fault(late, LEAF, [GOOD], LIFETIMES) or "")
    assert fault(late - timedelta(minutes=2), LEAF, [GOOD], LIFETIMES) is None


def test_bundles_are_read_whatever_they_hold() -> None:
    """Nothing, text, or certificates with text between them."""
    assert read_bundle("x", b"") == Bundle("x")
    assert read_bundle("x", b"garbage") == Bundle("x", readable=False)
    pem = f"# ours\n{OURS.certificate.pem}".encode()
    assert read_bundle("x", pem).certificates == (OURS.certificate,)


def test_a_bundle_that_would_break_something_is_not_rendered() -> None:
    """An empty one, one that drops what is served, one that signs nothing."""
    with pytest.raises(BundleError, match="empty"):
        render_bundle([])
    with pytest.raises(BundleError, match="still serves"):
        render_bundle([OURS.certificate], [OTHER.fingerprint])
    with pytest.raises(BundleError, match="not a CA"):
        render_bundle([OURS.certificate, LEAF.certificate], present=[OTHER.fingerprint])
    assert render_bundle([OURS.certificate], [OURS.fingerprint]) == OURS.certificate.pem


def test_what_was_there_already_is_kept_whatever_it_is() -> None:
    """Others may trust a leaf itself; that must not keep ours from being published."""
    both = [OURS.certificate, LEAF.certificate]
    text = render_bundle(both, present=[LEAF.certificate.fingerprint])
    assert text == OURS.certificate.pem + LEAF.certificate.pem
