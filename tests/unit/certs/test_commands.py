"""What ``gpu-fraction certs status`` says, case by case."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gpu_fraction.certs import pki
from gpu_fraction.certs.bundle import Bundle, Target, TargetKind
from gpu_fraction.certs.commands import described, render_status
from gpu_fraction.certs.leaf import Replica
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.state import CaState, Phase
from tests.support.certs_world import foreign_ca

NOW = datetime(2030, 6, 1, tzinfo=UTC)
LIFETIMES = Lifetimes()
OLD, CURRENT = (pki.new_authority("webhook", NOW - timedelta(days=30), LIFETIMES) for _ in "ab")
STATE = CaState(
    phase=Phase.RETIRE,
    since=NOW - timedelta(hours=3),
    current=CURRENT,
    previous=(OLD.certificate,),
    reason="a rotation was requested",
)


def shown(state: CaState | None, bundle: Bundle, *replicas: Replica) -> str:
    """The text for one configuration."""
    targets = [Target(TargetKind.MUTATING, "gpu-fraction", (bundle,))]
    return render_status("CA in Secret a/b", NOW, state, targets, replicas, LIFETIMES)


def test_a_rotation_under_way() -> None:
    """Phase, since when, why; each CA by role; who still serves the old one; what comes next."""
    foreign = foreign_ca(1e9)
    bundle = Bundle("mutate", (CURRENT.certificate, OLD.certificate, foreign), "webhook.ns.svc")
    until = NOW + timedelta(days=20)
    text = shown(
        STATE,
        bundle,
        Replica("a", CURRENT.fingerprint, until),
        Replica("b", OLD.fingerprint, NOW - timedelta(days=1)),
        Replica("c"),
    )
    assert (
        "phase     Retire since 2030-05-31T21:00:00Z, 3 h ago (a rotation was requested)" in text
    )
    assert f"current   {CURRENT.fingerprint[:12]} " in text
    assert "92% of its life left" in text
    assert f"{OLD.fingerprint[:12]} (previous, until" in text
    assert f"{foreign.fingerprint[:12]} (foreign, until" in text
    assert f"a: a leaf of {CURRENT.fingerprint[:12]} (current), until 2030-06-21" in text
    assert "b: a leaf of " in text
    assert "EXPIRED" in text
    assert "c: nothing yet" in text
    assert "nothing to do; the next check is within 60 min" in text


def test_trouble_is_named() -> None:
    """No Secret, no replica, an empty caBundle, an unreadable one, damage, little life left."""
    assert "does not exist" in shown(None, Bundle("mutate"))
    assert "enter Stage: there was no CA Secret" in shown(None, Bundle("mutate"))
    assert "no replica" in shown(None, Bundle("mutate"))
    assert "nothing: every call fails" in shown(STATE, Bundle("mutate"))
    assert "publish the caBundle of MutatingWebhookConfiguration" in shown(STATE, Bundle("mutate"))
    assert "mutate: unreadable" in shown(STATE, Bundle("mutate", readable=False))
    damaged = replace(STATE, problems=("ca.key: gone",))
    assert "problem   ca.key: gone" in shown(damaged, Bundle("mutate"))
    dying = pki.new_authority("webhook", NOW - timedelta(days=350), LIFETIMES)
    bundle = Bundle("mutate", (dying.certificate,))
    text = shown(CaState(phase=Phase.STEADY, since=NOW, current=dying), bundle)
    assert "warning: the current CA has 10% of its life left or less" in text
    assert "no webhook configuration exists" in render_status("t", NOW, None, [], [], LIFETIMES)


def test_for_programs() -> None:
    """The same as JSON: whole fingerprints, times as the API server writes them."""
    bundle = Bundle("mutate", (CURRENT.certificate, foreign_ca(1e9)), "webhook.ns.svc")
    targets = [Target(TargetKind.MUTATING, "gpu-fraction", (bundle,))]
    replicas = [Replica("a", OLD.fingerprint, NOW - timedelta(days=1)), Replica("b")]
    made = json.loads(json.dumps(described(NOW, STATE, targets, replicas, LIFETIMES)))
    assert (made["ca"]["phase"], made["ca"]["since"]) == ("Retire", "2030-05-31T21:00:00Z")
    assert [one["role"] for one in made["ca"]["certificates"]] == ["current", "previous"]
    (told,) = made["webhookConfigurations"]
    assert (told["kind"], told["name"]) == ("MutatingWebhookConfiguration", "gpu-fraction")
    (shown,) = told["caBundles"]
    assert [one["role"] for one in shown["certificates"]] == ["current", "foreign"]
    assert shown["certificates"][0]["fingerprint"] == CURRENT.fingerprint
    assert made["replicas"] == [
        {
            "name": "a",
            "issuer": OLD.fingerprint,
            "issuerRole": "previous",
            "notAfter": "2030-05-31T00:00:00Z",
            "serves": False,
        },
        {"name": "b", "issuer": None, "issuerRole": None, "notAfter": None, "serves": False},
    ]
    assert made["next"].startswith("publish the caBundle of MutatingWebhookConfiguration")


def test_for_programs_without_anything() -> None:
    """No Secret, no configuration, no replica."""
    made = json.loads(json.dumps(described(NOW, None, [], [], LIFETIMES)))
    assert (made["ca"], made["webhookConfigurations"], made["replicas"]) == (None, [], [])
    assert made["next"].startswith("enter Stage")
