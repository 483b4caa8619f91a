"""What is kept of a pod: the controller holds one object for each pod of the cluster."""

import json
from typing import Any

import pytest

from gpu_fraction.kube import objects
from gpu_fraction.quota.pods import PodRecord, facts_of

VARIABLES = [{"name": f"E{i}", "value": "v" * 180} for i in range(100)]
GPU = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}


def decoded(annotations: dict[str, str] | None = None, **container: Any) -> PodRecord:
    """A pod as the API server sends it; its container has the given fields."""
    body = {
        "metadata": {
            "name": "plain",
            "namespace": "team-a",
            "uid": "u1",
            "resourceVersion": "7",
            "annotations": annotations,
        },
        "spec": {
            "priorityClassName": "research",
            "containers": [{"name": "m", "image": "x", **container}],
            "volumes": [{"hostPath": {"path": "/data"}}],
        },
        "status": {"phase": "Running"},
    }
    return objects.decode(PodRecord, json.dumps(body).encode())


@pytest.mark.parametrize("resources", [None, {"limits": {"cpu": "1"}}])
def test_a_pod_without_gpus_keeps_its_identity_only(resources: Any) -> None:
    """Neither variables nor annotations, volumes or resources."""
    fat = decoded({"note": "n" * 5000}, env=VARIABLES, resources=resources)
    assert fat == decoded()
    assert (fat.spec, fat.metadata.annotations) == (PodRecord().spec, None)
    assert (fat.metadata.name, fat.metadata.uid, fat.metadata.resource_version) == (
        "plain",
        "u1",
        "7",
    )


def test_a_pod_with_gpus_keeps_what_its_charge_depends_on() -> None:
    """No variables and volumes; container, priority class and annotations stay."""
    annotations = {"gpu-fraction": "1", "gpu-fraction.dev/gpu-model": "A100"}
    fat = decoded(annotations, env=VARIABLES, resources=GPU)
    assert fat == decoded(annotations, resources=GPU)
    facts = facts_of(fat)
    assert (facts.demand.cards, facts.priority_class) == (1, "research")
    assert (facts.models, facts.containers) == (("A100",), ("m",))
