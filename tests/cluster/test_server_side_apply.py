"""Server-side apply by kubectl, beside what the webhook and the controller write."""

import json
from pathlib import Path

import pytest

from gpu_fraction.domain import keys
from tests.builders.pods import Raw
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.quota import Quotas, quota

EXAMPLES = Path(__file__).parents[2] / "examples"
APPLY = ("apply", "--server-side", "--validate=strict", "-f")

pytestmark = pytest.mark.usefixtures("quotas")


def owned(stored: Raw, manager: str, operation: str) -> str:
    """The fields that a manager owns, as JSON."""
    return json.dumps(
        [
            one["fieldsV1"]
            for one in stored["metadata"]["managedFields"]
            if (one["manager"], one["operation"]) == (manager, operation)
        ]
    )


def read(kubectl: Kubectl, file: Path) -> Raw:
    """The object of an example, with its field managers."""
    return kubectl.json("get", "-f", str(file), "--show-managed-fields")


def state(stored: Raw) -> tuple[object, ...]:
    """What an apply could change of an object; its status is others'."""
    metadata = stored["metadata"]
    return (
        metadata["generation"],
        metadata.get("annotations"),
        owned(stored, "kubectl", "Apply"),
        stored["spec"],
    )


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_second_apply_changes_nothing(file: Path, kubectl: Kubectl) -> None:
    """No conflict either, under this manager's name or another's."""
    kubectl(*APPLY, str(file))
    first = state(read(kubectl, file))
    assert "serverside-applied" in kubectl(*APPLY, str(file))
    assert state(read(kubectl, file)) == first
    kubectl(*APPLY, str(file), "--field-manager=gitops")
    assert state(read(kubectl, file)) == first


def test_what_we_write_is_nobodys_to_take_away(kubectl: Kubectl) -> None:
    """Who applied the pod owns what was applied; a later apply leaves our fields as they are."""
    file = EXAMPLES / "notebook.yaml"
    kubectl(*APPLY, str(file))
    stored = read(kubectl, file)
    assert '"f:gpu-fraction"' in owned(stored, "kubectl", "Apply")
    ours = (keys.REQUEST, "f:resources", "GPU_FRACTION", "f:schedulerName")
    assert not [name for name in ours if name in json.dumps(stored["metadata"]["managedFields"])]
    text = file.read_text(encoding="utf-8").replace("busybox:1", "busybox:2")
    kubectl(*APPLY, "-", stdin=text)
    changed = read(kubectl, file)
    (container,) = changed["spec"]["containers"]
    assert container.pop("image") == "docker.io/library/busybox:2"
    (before,) = stored["spec"]["containers"]
    assert container == {k: v for k, v in before.items() if k != "image"}
    assert changed["metadata"]["annotations"] == stored["metadata"]["annotations"]


def test_a_quota_is_applied_beside_its_status(quotas: Quotas, namespace: str) -> None:
    """The controller writes the status alone, so that no apply conflicts with it."""
    kubectl = quotas.plane.kubectl
    for gpus in (1, 2):
        manifest = quota("team-a", namespace, hard={"gpus": gpus})
        kubectl(*APPLY, "-", stdin=manifest)
        quotas.wait(
            namespace,
            "team-a",
            lambda q: q.get("status", {}).get("hard") == {"gpus": str(gpus)},  # noqa: B023
        )
        kubectl(*APPLY, "-", stdin=manifest)
    stored = kubectl.within(namespace).json("get", "gpuquota", "team-a", "--show-managed-fields")
    managers = {
        (one["operation"], one.get("subresource")): sorted(one["fieldsV1"])
        for one in stored["metadata"]["managedFields"]
    }
    assert managers == {("Apply", None): ["f:spec"], ("Update", "status"): ["f:status"]}


def test_quotas_are_selected_by_what_they_enforce(quotas: Quotas, namespace: str) -> None:
    """Those that refuse nobody, of all namespaces."""
    kubectl = quotas.plane.kubectl
    for name, spec in (("plain", {}), ("warns", {"enforcement": "Warn"})):
        kubectl.apply(quota(name, namespace, hard={"gpus": 1}, **spec))
    words = ("get", "gpuquotas", "-A", "-o", "name", "--field-selector")
    for selector, name in (("!=Deny", "warns"), ("=Warn", "warns"), ("=Deny", "plain")):
        found = kubectl(*words, f"spec.enforcement{selector},metadata.namespace={namespace}")
        assert found.split() == [f"gpuquota.gpu-fraction.dev/{name}"]
