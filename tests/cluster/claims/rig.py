"""Backend ``dra`` over nodes that kwok simulates: what their drivers would publish, we publish.

Webhook, controller, roles and policies are those of ``deploy/``. No container runs; the
scheduler's books are what the tests look at.
"""

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gpu_fraction.domain import dra
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.quota import Quotas, quotas_installed
from tests.cluster.harness.simulated_nodes import simulated_nodes

DEPLOY = Path(__file__).parents[3] / "deploy"
RESOURCES = "/apis/resource.k8s.io/v1"
GRACE_S = 5
LARGE, SMALL = 81920, 24576
MODELS = {LARGE: "NVIDIA A100-SXM4-80GB", SMALL: "NVIDIA L4"}
CHARGE = ("--hand-written-claims", "charge")
"""Without deploy/claims-charge no claim by hand comes this far."""
NODES: Mapping[str, tuple[int, ...]] = {"large": (LARGE, LARGE, LARGE), "small": (SMALL,)}
"""Each node's cards by their memory."""


@dataclass(frozen=True)
class Rig:
    """A control plane with GPUs.

    Attributes:
        plane: The control plane.
        quotas: Webhook and controller.
    """

    plane: ControlPlane
    quotas: Quotas

    async def until(
        self, path: str, holds: Callable[[dict[str, dict[str, Any]]], bool], timeout_s: float = 60
    ) -> dict[str, dict[str, Any]]:
        """A collection by name, once something holds of it."""
        found: dict[str, dict[str, Any]] = {}
        async with ApiClient(self.plane.access) as client:
            try:
                async with asyncio.timeout(timeout_s):
                    while True:
                        listed = await client.get(path)
                        found = {item["metadata"]["name"]: item for item in listed["items"]}
                        if holds(found):
                            return found
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise TimeoutError(f"{path}: {found}") from None

    async def given(self, namespace: str, pod: str) -> dict[str, list[dict[str, Any]]]:
        """What the scheduler gave a pod, by the pod's claims, once it is bound."""
        await self.until(
            f"/api/v1/namespaces/{namespace}/pods", lambda pods: "nodeName" in pods[pod]["spec"]
        )
        claims = await self.until(
            f"{RESOURCES}/namespaces/{namespace}/resourceclaims", lambda _: True
        )
        return {
            claim["metadata"]["annotations"]["resource.kubernetes.io/pod-claim-name"]: claim[
                "status"
            ]["allocation"]["devices"]["results"]
            for claim in claims.values()
            if claim["metadata"]["ownerReferences"][0]["name"] == pod
        }


def slice_of(node: str, cards: tuple[int, ...]) -> dict[str, Any]:
    """What a driver publishes of a node's cards."""

    def capacity(whole: str) -> dict[str, Any]:
        steps = {"min": "1", "step": "1"}
        return {"value": whole, "requestPolicy": {"default": whole, "validRange": steps}}

    devices = [
        {
            "name": f"gpu-{index}",
            "allowMultipleAllocations": True,
            "attributes": {
                dra.MODEL: {"string": MODELS[mib]},
                dra.UUID: {"string": f"GPU-{node}-{index}"},
                dra.MEMORY_MIB: {"int": mib},
                dra.ENFORCES_MEMORY: {"bool": True},
                dra.ENFORCES_COMPUTE: {"bool": index == 1},
            },
            "capacity": {dra.CORES: capacity("1k"), dra.MEMORY_PPM: capacity("1M")},
        }
        for index, mib in enumerate(cards)
    ]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpus"},
        "spec": {
            "driver": dra.DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": devices,
        },
    }


def node_of(name: str) -> dict[str, Any]:
    """A node with room for many pods."""
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "500"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


@contextlib.contextmanager
def charging(plane: ControlPlane, folder: Path) -> Iterator[None]:
    """Claims by hand are charged, as with ``deploy/claims-charge``; afterwards refused again.

    Args:
        plane: The control plane, with a rig.
        folder: An empty one beside a copy of ``deploy``.
    """
    lists = {"resources": ["../deploy/webhook", "../deploy/claims"]}
    text = json.dumps({**lists, "components": ["../deploy/claims-charge"]})
    (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
    made = {
        (one["kind"], one["metadata"]["name"]): one
        for one in YAML(typ="safe").load_all(plane.kubectl("kustomize", str(folder)))
    }
    name = "validatingwebhookconfiguration", "gpu-fraction"
    before = plane.kubectl.json("get", *name)
    after = copy.deepcopy(before)
    own = made["ValidatingWebhookConfiguration", "gpu-fraction"]["webhooks"][-1]
    after["webhooks"].append({**own, "clientConfig": before["webhooks"][0]["clientConfig"]})
    after["webhooks"][-1]["timeoutSeconds"] = before["webhooks"][0]["timeoutSeconds"]
    try:
        plane.kubectl("replace", "-f", "-", stdin=after)
        plane.kubectl.apply(made["ValidatingAdmissionPolicy", "gpu-fraction-claims"])
        yield
    finally:
        plane.kubectl("apply", "-f", str(DEPLOY / "claims" / "policy.yaml"))
        restored = plane.kubectl.json("get", *name)
        restored["webhooks"] = before["webhooks"]
        plane.kubectl("replace", "-f", "-", stdin=restored)


@contextlib.contextmanager
def running_rig(
    binaries: Binaries,
    nodes: Mapping[str, tuple[int, ...]] = NODES,
    *,
    node: Callable[[str], dict[str, Any]] = node_of,
    options: ControlPlaneOptions | None = None,
    webhook_arguments: Sequence[str] = CHARGE,
) -> Iterator[Rig]:
    """A rig that is gone at the end.

    Args:
        binaries: The programs.
        nodes: Each node's cards by their memory.
        node: A node's manifest.
        options: Of the control plane.
        webhook_arguments: More flags of the webhook.
    """
    with running_control_plane(binaries, options) as plane:
        kubelets = simulated_nodes(plane)
        try:
            kubelets.start()
            asyncio.run(_publish(plane, nodes, node))
            plane.kubectl("apply", "-f", str(DEPLOY / "dra" / "device-classes.yaml"))
            plane.kubectl("apply", "-k", str(DEPLOY / "claims"), "--validate=strict")
            with quotas_installed(
                plane,
                replicas=1,
                controllers=1,
                webhook_arguments=(
                    *("--backend", "dra", "--gpu-memory-by-model", f"L4={SMALL}"),
                    *webhook_arguments,
                ),
                controller_arguments=(
                    *CHARGE,
                    *("--dra", "all", "--dra-template-grace", str(GRACE_S)),
                    *("--gpu-memory-mib", str(LARGE), "--gpu-memory-by-model", f"L4={SMALL}"),
                ),
            ) as quotas:
                yield Rig(plane, quotas)
        finally:
            kubelets.kill()


async def _publish(
    plane: ControlPlane,
    nodes: Mapping[str, tuple[int, ...]],
    node: Callable[[str], dict[str, Any]],
) -> None:
    async with ApiClient(plane.access) as client:
        for name, cards in nodes.items():
            await client.create("/api/v1/nodes", node(name))
            await client.create(f"{RESOURCES}/resourceslices", slice_of(name, cards))
        for name in nodes:
            await client.wait_for(
                f"/api/v1/nodes/{name}", lambda node: "taints" not in node["spec"]
            )
