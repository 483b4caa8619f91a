"""Limits on a GPU model, kept by a real kube-scheduler's extender."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gpu_fraction.domain.placement import Ask
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.quota import quota
from tests.cluster.scheduling.rig import CARDS, MODEL, Rig, bound, pod_manifest

pytestmark = pytest.mark.long

WHOLE = Ask("main", core_milli=1000, memory_milli=1000)
CAP = 3


def on_nodes(manifest: dict[str, Any], *nodes: str) -> dict[str, Any]:
    """The pod, kept to these nodes."""
    named = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [named]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    manifest["spec"]["affinity"] = {"nodeAffinity": required}
    return manifest


@asynccontextmanager
async def cards_of_model(rig: Rig, node: str, model: str) -> AsyncIterator[None]:
    """A node whose cards are of another model."""
    await rig.set_model(node, model)
    try:
        yield
    finally:
        await rig.set_model(node, MODEL)


def by_node(pods: Mapping[str, Mapping[str, Any]]) -> Counter[str]:
    """Bound pods by node."""
    return Counter(pod["spec"]["nodeName"] for pod in pods.values() if bound(pod))


async def test_pods_without_a_model_fill_a_limited_one_to_its_cap_and_go_on_to_others(
    rig: Rig,
) -> None:
    """The rest waits with the reason; a pod that ends, or a larger budget, lets it on."""
    limited, free = rig.nodes[20], rig.nodes[21]

    def apply(cap: int) -> None:
        hard = {"models": {"T4": {"gpus": cap}}}
        rig.plane.kubectl.apply(quota("budget", rig.namespace, hard=hard))

    async with cards_of_model(rig, limited, "Tesla T4"):
        apply(CAP)
        names = [f"p{at:02}" for at in range(2 * CARDS)]
        await rig.create_pods([on_nodes(pod_manifest(n, WHOLE), limited, free) for n in names])
        full = {limited: CAP, free: CARDS}
        pods = await rig.until(lambda found: by_node(found) == full)
        # Pods that wait are tried again and again meanwhile.
        await asyncio.sleep(3)
        pods = await rig.until(lambda found: by_node(found) == full)
        waiting = next(name for name, pod in pods.items() if not bound(pod))
        message = (await rig.events(waiting, "FailedScheduling"))[-1]
        assert "exceeded GPU quota: budget, requested: T4.gpus=1, used: T4.gpus=3" in message
        ended = next(name for name, pod in pods.items() if pod["spec"].get("nodeName") == limited)
        async with ApiClient(rig.plane.access) as client:
            await client.delete(f"{rig.pods_path}/{ended}")
        pods = await rig.until(lambda found: len(found) < len(names) and by_node(found) == full)
        apply(CARDS)
        await asyncio.sleep(1)
        # Nothing tells the scheduler of a quota; its own next look would be up to minutes away.
        await rig.nudge()
        await rig.until(lambda found: sum(by_node(found).values()) == len(names) - 1)
