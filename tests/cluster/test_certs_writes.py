"""The writes of the certificates, as a real API server takes and refuses them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gpu_fraction.certs import pki
from gpu_fraction.certs.actions import PublishBundle
from gpu_fraction.certs.certificate import Authority
from gpu_fraction.certs.injection import Injector
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.replica_leases import Heartbeat, ReplicaIdentity, ReplicaLister
from gpu_fraction.certs.secret import SecretStore
from gpu_fraction.certs.settings import Installation
from gpu_fraction.certs.state import CaState, Phase
from gpu_fraction.kube import errors
from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.resources import MUTATING_WEBHOOKS
from tests.cluster.harness.control_plane import ControlPlane

NOW = datetime.now(UTC)
LIFETIMES = Lifetimes()


@pytest.fixture
async def kube(own_control_plane: ControlPlane) -> AsyncIterator[Client]:
    """Our own client, as administrator."""
    file = own_control_plane.access.write(own_control_plane.folder / "certs-writes.kubeconfig")
    async with connect(kubeconfig(str(file)), component="test") as client:
        yield client


@pytest.fixture
def installation(namespace: str) -> Installation:
    """Names that nobody else uses."""
    return Installation(
        namespace=namespace,
        mutating=(namespace,),
        validating=(),
    )


def authority() -> Authority:
    """A new CA."""
    return pki.new_authority("webhook", NOW, LIFETIMES)


async def test_the_secret_is_written_by_one_only(kube: Client, installation: Installation) -> None:
    """Create, change, and the refusal of whoever read it before the change."""
    store = SecretStore(kube, installation)
    nothing = await store.read(NOW)
    assert nothing.state is None
    first = CaState(phase=Phase.STEADY, since=NOW, current=authority(), reason="first")
    made = await store.write(nothing, first)
    with pytest.raises(errors.AlreadyExistsError):
        await store.write(nothing, first)
    await store.request("please", ca=True)
    with pytest.raises(errors.ConflictError):
        await store.write(made, first)
    read = await store.read(datetime.now(UTC))
    assert read.state is not None
    assert (read.state.rotate_ca, read.state.current) == ("please", first.current)
    second = CaState(phase=Phase.TRUST, since=NOW, next=authority())
    await store.write(read, second)
    back = (await store.read(datetime.now(UTC))).state
    assert back == second
    assert back.problems == ()


async def test_bundles_are_written_to_what_was_read(
    kube: Client, installation: Installation
) -> None:
    """Only the caBundle changes, and only where nobody has changed the object meanwhile."""
    await kube.create(MUTATING_WEBHOOKS.at(), configuration(installation), dict[str, Any])
    try:
        injector = Injector(kube, installation)
        certificate = authority().certificate
        before = await injector.read()
        assert [b.entry for t in before for b in t.bundles] == [
            "a.test.dev",
            "b.test.dev",
        ]
        for target in before:
            await injector.publish(
                [PublishBundle(target, b.entry, (certificate,)) for b in target.bundles]
            )
        after = await injector.read()
        assert all(b.certificates == (certificate,) for t in after for b in t.bundles)
        stale = PublishBundle(before[0], "a.test.dev", (certificate,))
        with pytest.raises(errors.ConflictError):
            await injector.publish([stale])
        found = await kube.get(MUTATING_WEBHOOKS.at(installation.mutating[0]), dict[str, Any])
        assert found["webhooks"][0]["timeoutSeconds"] == 7
        assert found["webhooks"][2]["clientConfig"].get("caBundle") is None
        other = authority().certificate
        one = PublishBundle(after[0], "b.test.dev", (other,))
        await injector.publish([one])
        last = (await injector.read())[0]
        assert [b.certificates for b in last.bundles] == [(certificate,), (other,)]
    finally:
        await kube.delete(MUTATING_WEBHOOKS.at(installation.mutating[0]))


async def test_presence_comes_and_goes(kube: Client, installation: Installation) -> None:
    """A replica reports what it serves, again and again, and withdraws the report."""
    lifetimes = replace(LIFETIMES, heartbeat_s=5.0)
    me = ReplicaIdentity(name="pod-a")
    heartbeat = Heartbeat(kube, installation, me, lifetimes)
    leaf = pki.issue_leaf(authority(), ["a"], NOW, LIFETIMES)
    for _ in range(2):
        await heartbeat.report(leaf, NOW)
    found = await ReplicaLister(kube, installation, lifetimes).read()
    assert [(r.issuer, r.leaf_not_after) for r in found] == [
        (leaf.issuer, leaf.certificate.not_after)
    ]
    await heartbeat.withdraw()
    assert await ReplicaLister(kube, installation, lifetimes).read() == []


def configuration(installation: Installation) -> dict[str, Any]:
    """Two webhooks of ours and one of somebody else; they match nothing."""
    ours = {"name": installation.service, "namespace": installation.namespace}

    def webhook(name: str, service: dict[str, str]) -> dict[str, Any]:
        return {
            "name": name,
            "clientConfig": {"service": service},
            "sideEffects": "None",
            "timeoutSeconds": 7,
            "admissionReviewVersions": ["v1"],
        }

    other = {"name": "other", "namespace": installation.namespace}
    webhooks = [webhook("a.test.dev", ours), webhook("b.test.dev", ours)]
    return {
        "apiVersion": MUTATING_WEBHOOKS.api_version,
        "kind": MUTATING_WEBHOOKS.kind,
        "metadata": {"name": installation.mutating[0]},
        "webhooks": [*webhooks, webhook("c.test.dev", other)],
    }
