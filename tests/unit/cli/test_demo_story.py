"""The story of ``gpu-fraction demo``, scene by scene, by what is then in the cluster."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.certs.secret import SecretStore
from gpu_fraction.certs.settings import Installation
from gpu_fraction.cli.demo import view
from gpu_fraction.cli.demo.cluster import DemoCluster, running
from gpu_fraction.cli.demo.story import Story
from gpu_fraction.domain import keys
from gpu_fraction.kube.resources import (
    CLAIM_TEMPLATES,
    EVENTS,
    MUTATING_WEBHOOKS,
    NODES,
    PODS,
    REPLICA_SETS,
    Resource,
)
from gpu_fraction.kube.timestamps import utc_now


@pytest.fixture
async def cluster() -> AsyncIterator[DemoCluster]:
    """Two nodes with two cards each; a short directory, as sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="gf-", ignore_cleanup_errors=True) as root:
        async with running(Path(root), "gpu-1", "gpu-2") as made:
            yield made


class Cluster:
    """Looks at the cluster as its API server shows it."""

    def __init__(self, cluster: DemoCluster) -> None:
        self.cluster = cluster

    async def all(self, resource: Resource) -> list[dict[str, Any]]:
        """All objects of a resource."""
        return list((await self.cluster.client.list(resource.at(), dict)).items)

    async def pods(self, app: str) -> list[dict[str, Any]]:
        """The pods of a Deployment."""
        found = await self.all(PODS)
        return [p for p in found if p["metadata"].get("labels", {}).get("app") == app]

    async def phases(self, app: str) -> list[str]:
        """Their phases."""
        return [pod["status"]["phase"] for pod in await self.pods(app)]

    def used_milli(self) -> list[int]:
        """What is given away of each card, in the order of nodes and indexes."""
        return [card.used_milli for card in view.cards(self.cluster.server.storage)]

    async def authority(self) -> str:
        """The fingerprint of the CA in the Secret."""
        held = await SecretStore(self.cluster.client, Installation()).read(utc_now())
        assert held.state is not None
        ((_, certificate),) = held.state.roles()
        return certificate.fingerprint


@pytest.mark.timeout(240)  # it plays in ten seconds, where nothing else runs
async def test_the_story_comes_out(cluster: DemoCluster) -> None:
    """Each scene leaves the objects that its title promises."""
    story, seen = Story(cluster), Cluster(cluster)

    told = await story.share()
    assert await seen.phases("notebooks") == ["Running"] * 4
    assert seen.used_milli() == [1000, 0, 0, 0]
    nodes = {node["metadata"]["name"]: node for node in await seen.all(NODES)}
    assert {n["metadata"]["labels"][keys.LABEL_SIMULATED] for n in nodes.values()} == {"true"}
    for pod in await seen.pods("notebooks"):
        kubelet = cluster.nodes[pod["spec"]["nodeName"]].kubelet
        env = kubelet.running[pod["metadata"]["uid"], "main"].env
        assert (env["GPU_FRACTION"], env["GPU_MEMORY_LIMIT_MIB"]) == ("0.25", "20480")
    assert any("simulated" in line.lower() for line in told)

    told = await story.exceed()
    assert await seen.pods("training") == []
    refusals = [e for e in await seen.all(EVENTS) if e["reason"] == "FailedCreate"]
    numbers = "requested: cores=500m, used: cores=1, limited: cores=1250m"
    assert numbers in refusals[0]["message"]
    assert numbers in told[-1]

    await story.fill()
    assert await seen.phases("inference") == ["Running"] * 3
    assert sorted(seen.used_milli()) == [0, 500, 1000, 1000]

    await story.sicken()
    (sick,) = [card for card in view.cards(cluster.server.storage) if card.reason]
    assert sick.used_milli == 500
    assert await seen.phases("inference") == ["Running"] * 4
    assert sorted(seen.used_milli()) == [500, 500, 1000, 1000]
    events = {(e["involvedObject"]["kind"], e["reason"]) for e in await seen.all(EVENTS)}
    assert {("Node", "CardUnhealthy"), ("Pod", "CardUnhealthy"), ("Node", "CardsSimulated")} <= (
        events
    )

    before = await seen.authority()
    await story.rotate()
    assert await seen.authority() != before
    (configuration,) = await seen.all(MUTATING_WEBHOOKS)
    assert configuration["webhooks"][0]["clientConfig"]["caBundle"]

    await story.free()
    assert await seen.phases("training") == ["Running"]
    assert await seen.phases("notebooks") == ["Running"] * 2
    sets = {r["metadata"]["name"].rpartition("-")[0]: r for r in await seen.all(REPLICA_SETS)}
    assert keys.QUOTA_FREED in sets["training"]["metadata"]["annotations"]
    assert sorted(seen.used_milli()) == [500, 500, 1000, 1000]

    await story.claim()
    (template,) = await seen.all(CLAIM_TEMPLATES)
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["deviceClassName"] == "fraction.gpu-fraction.dev"
    assert request["exactly"]["capacity"]["requests"]["gpu-fraction.dev/cores"] == "250"


@pytest.mark.timeout(240)
async def test_objects_that_make_no_sense_leave_the_others_alone(cluster: DemoCluster) -> None:
    """The sandbox validates little: what kubectl sends by mistake must not end the demo."""
    bad = {"namespace": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Pending"}}
    asking = {"containers": [{"name": "x", "resources": {"requests": {"cpu": "many"}}}]}
    own = {"schedulerName": keys.SCHEDULER}
    cluster.server.add(
        pod | {"metadata": {"name": "empty", **bad}, "spec": {**own, "nodeName": "gpu-1"}},
        pod | {"metadata": {"name": "many", **bad}, "spec": {**own, **asking}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", **bad}},
    )
    await cluster.client.delete(NODES.at("gpu-2"))
    await Story(cluster).share()
    assert await Cluster(cluster).phases("notebooks") == ["Running"] * 4
