"""Pods, templates and what is read of them, for the tests of the DRA driver."""

from collections.abc import Mapping
from typing import Any

import pytest

from gpu_fraction.domain import dra
from tests.cluster.daemon import Daemon
from tests.cluster.harness.kubectl import Kubectl

ON_A_NODE = [
    pytest.mark.long,
    pytest.mark.needs_kubernetes("1.36"),
    pytest.mark.usefixtures("no_share_stays"),
]
"""Marks of a module."""

CARDS = 3
NOT_PREPARED = "FailedPrepareDynamicResources"
MIB = 81_559 - 600
PRINT = 'echo "$GPU_FRACTION_DEVICES $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION"'
SLEEP = f"{PRINT}; sleep 10000"
QUARTER = {dra.CORES: "250", dra.MEMORY_PPM: "250000"}
HALF = {dra.CORES: "500", dra.MEMORY_PPM: "500000"}
Amounts = Mapping[str, str]


def template(
    name: str,
    amounts: Amounts | None = QUARTER,
    *,
    device_class: str = dra.FRACTION_CLASS,
    **fields: Any,
) -> dict[str, Any]:
    """A ResourceClaimTemplate with one request."""
    exactly: dict[str, Any] = {"deviceClassName": device_class, **fields}
    if amounts is not None:
        exactly["capacity"] = {"requests": dict(amounts)}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}},
    }


def pod(name: str, *templates: str, script: str = SLEEP, grace_s: int = 0) -> dict[str, Any]:
    """A pod with a container and a claim for each template."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": grace_s,
            "resourceClaims": [
                {"name": f"gpu-{i}", "resourceClaimTemplateName": one}
                for i, one in enumerate(templates)
            ],
            "containers": [
                {
                    "name": f"c{i}",
                    "image": "busybox:1",
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", script],
                    "resources": {"claims": [{"name": f"gpu-{i}"}]},
                }
                for i in range(len(templates))
            ],
        },
    }


def printed(daemon: Daemon, kubectl: Kubectl, name: str, container: str = "c0") -> list[str]:
    """Card, MiB and share, as a container got them."""
    return daemon.printed(kubectl.namespace, name, container).split()


def slices(daemon: Daemon) -> list[dict[str, Any]]:
    """The ResourceSlices of the driver."""
    found = daemon.node.plane.kubectl.json("get", "resourceslices")["items"]
    return [one for one in found if one["spec"]["driver"] == dra.DRIVER]


def messages(kubectl: Kubectl, name: str, reason: str) -> list[str]:
    """The Events of a pod."""
    events = kubectl.json("get", "events", f"--field-selector=involvedObject.name={name}")
    return [e["message"] for e in events["items"] if e["reason"] == reason]


def unschedulable(kubectl: Kubectl, name: str) -> str:
    """The scheduler's reason; empty while it has not looked."""
    conditions = kubectl.json("get", "pod", name)["status"].get("conditions", ())
    return "".join(c["message"] for c in conditions if c.get("reason") == "Unschedulable")


def refused(kubectl: Kubectl, name: str) -> bool:
    """Whether the scheduler has found no card for a pod."""
    return "cannot allocate all claims" in unschedulable(kubectl, name)


def on_card(uuid: str) -> dict[str, Any]:
    """A selector of one card."""
    expression = f"device.attributes['{dra.DRIVER}'].uuid == '{uuid}'"
    return {"selectors": [{"cel": {"expression": expression}}]}


def health(kubectl: Kubectl, name: str) -> list[str]:
    """The health of a pod's cards, as its status shows it."""
    (state,) = kubectl.json("get", "pod", name)["status"]["containerStatuses"]
    said = state.get("allocatedResourcesStatus", ())
    return [r["health"] for one in said for r in one["resources"]]


def restarts(kubectl: Kubectl, name: str) -> int:
    """How often a pod's container has started again."""
    (state,) = kubectl.json("get", "pod", name)["status"]["containerStatuses"]
    return int(state["restartCount"])
