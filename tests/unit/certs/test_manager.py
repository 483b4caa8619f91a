"""Real executors against an API server: no call fails whatever happens to the certificates."""

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any

from gpu_fraction.certs import commands
from gpu_fraction.certs.settings import FIELD_MANAGER
from gpu_fraction.certs.state import Phase
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import EVENTS, MUTATING_WEBHOOKS, SECRETS
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.sandbox.apiserver import Fault, Hang
from tests.support.certs_cluster import (
    INSTALLATION,
    LIFETIMES,
    NAMESPACE,
    Cluster,
    Hammer,
    cluster,
    running,
)
from tests.support.certs_world import foreign_ca

CONFIGURATION = MUTATING_WEBHOOKS.at("gpu-fraction")
SECRET = SECRETS.at(INSTALLATION.secret, namespace=NAMESPACE)


async def test_from_nothing_to_ready() -> None:
    """Three replicas agree on one CA; the Secret, the caBundles and the leaves belong together."""
    async with cluster() as made, running(made, "a", "b", "c"):
        state = await made.until_ready()
        assert state.current is not None
        assert set((await made.bundles()).values()) == {state.current.certificate.pem}
        leaves = [r.manager.serving.leaf for r in made.replicas.values()]
        assert {leaf and leaf.issuer for leaf in leaves} == {state.current.fingerprint}
        assert await made.leader() in made.replicas


async def rotate_ca(made: Cluster) -> None:
    """A person rotates the CA, and it is over."""
    before = await made.until_ready()
    await commands.rotate(made.client, INSTALLATION, ca=True)
    await made.until_rotated(before)


async def test_a_ca_rotation_fails_no_call() -> None:
    """Twice in a row, with API servers that are behind."""
    async with cluster() as made, running(made, "a", "b"):
        await made.until_ready()
        async with Hammer(made).at_work() as hammer:
            await rotate_ca(made)
            await rotate_ca(made)
        assert hammer.failed == []
        assert hammer.done > 20


async def test_a_leaf_rotation_fails_no_call() -> None:
    """Every replica has another leaf of the same CA."""
    async with cluster() as made, running(made, "a", "b"):
        state = await made.until_ready()
        before = {name: r.manager.serving.leaf for name, r in made.replicas.items()}
        async with Hammer(made).at_work() as hammer:
            await commands.rotate(made.client, INSTALLATION, ca=False)
            async with asyncio.timeout(10):
                while any(r.manager.serving.leaf == before[n] for n, r in made.replicas.items()):
                    await asyncio.sleep(0.02)
        assert hammer.failed == []
        assert (await made.until_ready()).current == state.current


async def test_a_deleted_secret_fails_no_call() -> None:
    """Replicas go on with what they have until the new CA has settled."""
    async with cluster() as made, running(made, "a", "b"):
        before = await made.until_ready()
        async with Hammer(made).at_work() as hammer:
            await made.client.delete(SECRET)
            after = await made.until_rotated(before)
        assert hammer.failed == []
        assert after.current is not None
        assert set((await made.bundles()).values()) == {after.current.certificate.pem}


async def test_a_lost_key_fails_no_call() -> None:
    """The certificate alone stays trusted until every replica has moved on."""
    damage = {"ca.key": None}
    async with cluster() as made, running(made, "a"):
        before = await made.until_ready()
        async with Hammer(made).at_work() as hammer:
            await made.client.patch(SECRET, PatchKind.MERGE, {"data": damage}, dict[str, Any])
            await made.until(
                lambda s: (
                    s is not None
                    and s.phase is Phase.STEADY
                    and not s.problems
                    and s.current is not None
                    and s.current != before.current
                ),
                "recovered",
            )
        assert hammer.failed == []


async def test_a_wiped_bundle_is_repaired() -> None:
    """Within moments, under our own field manager, and a foreign CA stays."""
    foreign = foreign_ca(1e9)
    async with cluster() as made, running(made, "a"):
        state = await made.until_ready()
        await overwrite(made, "")
        async with asyncio.timeout(5):
            while "" in (await made.bundles()).values():
                await asyncio.sleep(0.02)
        await overwrite(made, foreign.pem)
        assert state.current is not None
        wanted = state.current.certificate.pem + foreign.pem
        async with asyncio.timeout(5):
            while (await made.bundles())["mutate.gpu-fraction.dev"] != wanted:
                await asyncio.sleep(0.02)
        config = await made.client.get(CONFIGURATION, dict[str, Any])
        owners = [o["manager"] for o in config["metadata"]["managedFields"]]
        assert FIELD_MANAGER in owners
        assert config["webhooks"][0]["sideEffects"] == "None"


async def overwrite(made: Cluster, pem: str) -> None:
    """Somebody applies a manifest with a caBundle of their own."""
    bundle = base64.b64encode(pem.encode()).decode()
    body = {
        "apiVersion": CONFIGURATION.resource.api_version,
        "kind": CONFIGURATION.resource.kind,
        "metadata": {"name": "gpu-fraction"},
        "webhooks": [{"name": "mutate.gpu-fraction.dev", "clientConfig": {"caBundle": bundle}}],
    }
    await made.client.apply(
        CONFIGURATION, body, dict[str, Any], field_manager="somebody", force=True
    )


async def test_the_holder_is_killed_in_the_switch() -> None:
    """Another replica goes on from what is stored; no call to a living one fails."""
    async with cluster() as made, running(made, "a", "b"):
        before = await made.until_ready()
        holder = await made.leader()
        async with Hammer(made).at_work() as hammer:
            await commands.rotate(made.client, INSTALLATION, ca=True)
            # It enters the phase, and hangs in the write that would leave it.
            made.api.faults.add(Fault(Hang(), verb="patch", resource="secrets", skip=4))
            await made.until_phase(Phase.SWITCH)
            await made.kill(holder)
            await made.until(
                lambda s: (
                    s is not None and s.phase is Phase.STEADY and s.current != before.current
                ),
                "rotated",
            )
        assert hammer.failed == []
        assert hammer.done > 10


async def test_a_replica_that_is_cut_off_is_not_ready() -> None:
    """It says so before the lease holder stops waiting for it."""
    async with cluster() as made, running(made, "a", "b"):
        await made.until_ready()
        made.cut_off("b")
        async with asyncio.timeout(10):
            while made.replicas["b"].manager.check() is None:
                await asyncio.sleep(0.02)
        assert "cannot be reported" in (made.replicas["b"].manager.check() or "")
        assert made.replicas["a"].manager.check() is None
        made.api.tokens["b"] = "b"  # type: ignore[index]
        await made.until_ready()


async def test_people_are_told() -> None:
    """Events on the Secret for every phase; ``status`` names who trusts and serves what."""
    async with cluster() as made, running(made, "a"):
        await rotate_ca(made)
        wanted = {"RotationStarted", "CaStaged", "CaTrusted", "CaSwitching", "CaSwitched"}
        async with asyncio.timeout(5):
            while True:
                listing = await made.client.list(EVENTS.at(namespace=NAMESPACE), dict[str, Any])
                events = [e for e in listing.items if e["involvedObject"]["kind"] == "Secret"]
                if wanted | {"CaRetired"} <= {e["reason"] for e in events}:
                    break
                await asyncio.sleep(0.02)
        secret = await made.client.get(SECRET, dict[str, Any])
        assert {e["involvedObject"]["uid"] for e in events} == {secret["metadata"]["uid"]}
        text = await commands.status(made.client, INSTALLATION, LIFETIMES)
        as_json = await commands.status(made.client, INSTALLATION, LIFETIMES, as_json=True)
        state = await made.state()
        assert state is not None
        assert state.current is not None
        short = state.current.fingerprint[:12]
        assert f"current   {short}" in text
        (current,) = json.loads(as_json)["ca"]["certificates"]
        assert current["fingerprint"] == state.current.fingerprint
        assert f"mutate.gpu-fraction.dev: {short} (current, until" in text
        assert f"gpu-fraction-webhook-replica-a: a leaf of {short} (current)" in text
        assert "PRIVATE" not in text
        served = made.replicas["a"].registry.get_sample_value(
            "gpu_fraction_certificate_not_after_timestamp_seconds",
            {"kind": "served", "role": "leaf"},
        )
        leaf = made.replicas["a"].manager.serving.leaf
        assert leaf is not None
        assert served == leaf.certificate.not_after.timestamp()
        phase = made.replicas["a"].registry.get_sample_value(
            "gpu_fraction_certificate_rotation_phase", {"phase": "Steady"}
        )
        assert phase == 1


async def test_a_replica_that_ends_is_forgotten_at_once() -> None:
    """Its Lease goes, so that no rotation waits for it."""
    async with cluster() as made, running(made, "a", "b"):
        await made.until_ready()
        assert "gpu-fraction-webhook-replica-b" in await made.leases()
        gone = made.replicas.pop("b")
        gone.task.cancel()
        await asyncio.wait([gone.task])
        assert "gpu-fraction-webhook-replica-b" not in await made.leases()


async def test_a_leaf_that_wears_out_is_announced() -> None:
    """Once, by an Event that names the replica; in production renewal comes long before."""
    late = timedelta(0)
    async with cluster() as made, running(made, "a", clock=lambda: utc_now() + late):
        await made.until_ready()
        late = timedelta(seconds=0.8 * LIFETIMES.leaf_life_s)  # as after a long suspension
        wanted = "the serving certificate of a has 25% of its life left or less"
        async with asyncio.timeout(10):
            while True:
                listing = await made.client.list(EVENTS.at(namespace=NAMESPACE), dict[str, Any])
                found = [e for e in listing.items if e["message"].startswith(wanted)]
                if found:
                    break
                await asyncio.sleep(0.02)
        assert [(e["type"], e["reason"]) for e in found] == [("Warning", "CertificateExpiring")]
