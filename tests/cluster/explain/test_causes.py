"""Each cause is made on a real cluster, and the command names it, its step and its action."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gpu_fraction.domain import keys
from tests.cluster.explain.rig import CARD_MIB, DRA_MIB, Rig
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.mutators import Patch, webhook
from tests.cluster.harness.process import Process

pytestmark = [pytest.mark.long, pytest.mark.needs_kubernetes("1.36")]

HALF = {keys.FRACTION: "0.5"}
BACKEND = keys.LABEL_BACKEND


@contextlib.contextmanager
def dead(process: Process) -> Iterator[None]:
    """Without that process."""
    process.kill()
    try:
        yield
    finally:
        process.log.unlink(missing_ok=True)  # it says when the process listens
        process.start()


@pytest.mark.parametrize(
    ("cause", "annotations", "says"),
    [
        ("annotation-misspelt", {"gpu-fractoin": "0.5"}, 'did you mean "gpu-fraction"'),
        ("value-out-of-range", {keys.FRACTION: "1.5"}, '"1.5" is more than one GPU'),
        ("larger-than-any-card", {keys.MEMORY: "90Gi"}, "the largest eligible GPU has"),
    ],
)
def test_the_webhook_refuses_what_an_owner_makes(
    rig: Rig, cause: str, annotations: dict[str, str], says: str
) -> None:
    """A refused pod does not exist: the Deployment's ReplicaSet has the words."""
    rig.deploy("trainer", annotations)
    found = rig.explained(cause, "deployment", "trainer")
    assert says in found["says"]
    assert (found["code"], found["state"]) == (1, "refused")
    assert found["evidence"][0]["time"]
    replica_set = rig.kubectl("get", "rs", "-o", "name").strip().rpartition("/")[2]
    assert rig.explained(cause, f"replicaset/{replica_set}")["says"] == found["says"]


def test_a_job_over_its_quota(rig: Rig) -> None:
    """The sentence with the numbers; a smaller share would pass, and the command knows."""
    rig.quotas.create(rig.namespace, hard={"cores": "300m"})
    rig.kubectl("create", "-f", "-", stdin=job("train", HALF))
    found = rig.explained("quota-exceeded", "job", "train")
    assert "requested: cores=500m, used: cores=0, limited: cores=300m" in found["says"]
    assert found["step"] == 3
    code, answer = rig.explain("job/train", "--what-if", "gpu-fraction=0.5")
    assert code == 1
    assert "exceeded GPU quota" in answer["whatIf"]["quota"]["refusals"][0]
    code, answer = rig.explain("job/train", "--what-if", "gpu-fraction=0.2")
    assert code == 0, answer["whatIf"]
    assert "GPU-" in answer["whatIf"]["placed"]


def job(name: str, annotations: dict[str, str]) -> dict[str, Any]:
    """A Job of one pod."""
    container = {"name": "main", "image": "docker.io/library/busybox:1"}
    template = {
        "metadata": {"annotations": annotations},
        "spec": {"containers": [container], "restartPolicy": "Never"},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template},
    }


def test_kubernetes_own_quota_and_pod_security(rig: Rig) -> None:
    """Neither is ours, and the command says whose it is."""
    rig.kubectl("create", "quota", "few", "--hard=pods=0")
    rig.deploy("counted", HALF)
    assert "few" in rig.explained("resource-quota", "deploy/counted")["says"]
    rig.kubectl("delete", "quota", "few")
    label = "pod-security.kubernetes.io/enforce=restricted"
    rig.kubectl("label", "namespace", rig.namespace, label)
    rig.deploy("secured", HALF)
    assert "restricted" in rig.explained("pod-security", "deploy/secured")["says"]


async def test_another_webhook_undoes_the_rewrite(rig: Rig) -> None:
    """It is called after ours, and ours is not called again."""

    def undo(raw: dict[str, Any]) -> Patch:
        if "limits" not in raw["spec"]["containers"][0].get("resources", {}):
            return []
        return [{"op": "remove", "path": "/spec/containers/0/resources"}]

    async with (
        ApiClient(rig.plane.access) as client,
        webhook(rig.plane, client, "zz-undo", rig.namespace, undo, "IfNeeded"),
    ):
        await asyncio.sleep(1)  # the server learns of it by a watch
        await asyncio.to_thread(rig.deploy, "undone", HALF)
        found = await asyncio.to_thread(rig.explained, "rewrite-undone", "deploy/undone")
        assert "another webhook" in found["says"]


def test_the_webhook_is_down(rig: Rig) -> None:
    """Pods are refused, and the command needs no webhook to say so."""
    webhook_process = rig.quotas.admission.front
    with dead(webhook_process):
        rig.deploy("blocked", HALF)
        found = rig.explained("webhook-down", "deploy/blocked")
        assert "mutate.gpu-fraction.dev" in found["says"]
    rig.quotas.admission.wait_listening(webhook_process)


def test_the_webhook_does_not_look_at_the_namespace(rig: Rig) -> None:
    """The pod exists, without a GPU."""
    made = {
        "metadata": {"name": "p", "annotations": HALF},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    }
    kubectl = rig.plane.kubectl.within("kube-system")
    rig.plane.wait_for_account("kube-system")
    kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "Pod", **made})
    try:
        found = replace(rig, namespace="kube-system").explained("namespace-excluded", "pod", "p")
        assert "kubernetes.io/metadata.name NotIn (kube-system" in found["says"]
        assert found["code"] == 1
    finally:
        kubectl("delete", "pod", "p", "--wait=false")


def test_a_pod_that_is_left_to_another_scheduler(rig: Rig) -> None:
    """KAI reads the same annotations."""
    rig.create("p", HALF, schedulerName="kai-scheduler")
    found = rig.explained("left-to-scheduler", "pod", "p")
    assert "kai-scheduler" in found["says"]


@pytest.mark.parametrize(
    ("cause", "node", "annotations", "says"),
    [
        ("no-node-with-model", "plain", {**HALF, keys.MODEL: "H100"}, "is Tesla T4, asked for"),
        ("uuid-unknown", "plain", {**HALF, keys.UUID: "GPU-gone"}, "not one of the UUIDs"),
        ("card-too-small", "plain", {keys.MEMORY: "20Gi"}, f"has {CARD_MIB} MiB, 20480 needed"),
        ("isolation-not-offered", "plain", {**HALF, keys.ISOLATION: "required"}, "not enforce"),
        ("card-sick", "sick", HALF, "if its cards were well"),
        ("node-tainted", "tainted", HALF, "team=other:NoSchedule"),
        ("node-cordoned", "cordoned", HALF, "spec.unschedulable"),
        ("daemon-down", "silent", HALF, "gpu-fraction.dev/slot"),
        ("node-selector", "nowhere", HALF, "kubernetes.io/hostname"),
    ],
)
def test_no_card_for_the_pod(
    rig: Rig, cause: str, node: str, annotations: dict[str, str], says: str
) -> None:
    """The scheduler's message and the card's own numbers."""
    spec = {"securityContext": {"runAsNonRoot": True, "runAsUser": 1000}}
    rig.create("p", annotations, node=node, **spec)
    found = rig.explained(cause, "pod", "p")
    assert says in found["says"] + str(found["evidence"])
    assert (found["code"], found["step"]) == (1, 5)
    assert any("PodScheduled" in e["field"] for e in found["evidence"])


def test_cards_that_are_fragmented_and_cards_that_are_full(rig: Rig) -> None:
    """Twice 0.4 is no 0.5; the largest share that fits is named, and would start."""
    for name in ("a", "b"):
        rig.create(name, {keys.FRACTION: "0.6"}, node="pair")
        rig.until_running(name)
    rig.create("p", HALF, node="pair")
    found = rig.explained("cards-fragmented", "pod", "p")
    assert "the largest share that fits now is 0.4, on node pair" in found["says"]
    code, answer = rig.explain("pod", "p", "--what-if", "gpu-fraction=0.4")
    assert (code, answer["whatIf"]["largestShareMilli"]) == (0, 400)
    rig.create("q", {keys.FRACTION: "0.9"}, node="pair")
    assert "free" in rig.explained("cards-full", "pod", "q")["says"]
    code, answer = rig.explain("pod", "a")
    assert (code, answer["running"]) == (0, True)
    assert [step["state"] for step in answer["steps"]] == ["done"] * 8 + ["waiting"]
    code, answer = rig.explain("pod", "a", "--what-if", "gpu-fraction=0.7")
    assert (code, answer["whatIf"]["placed"][:6]) == (0, "card 0"), "its own share counts as free"


def test_the_scheduler_is_down(rig: Rig) -> None:
    """Nobody writes a condition; what does not come is told after ten seconds."""
    with dead(rig.plane.scheduler):
        rig.create("p", HALF)
        found = rig.explained("scheduler-down", "pod", "p")
        assert "gpu-fraction-scheduler has not looked at the pod" in found["says"]
    rig.plane.scheduler.wait_healthy()


def test_the_extender_is_down(rig: Rig) -> None:
    """The scheduler says so in its own way."""
    with dead(rig.extender):
        rig.create("p", HALF)
        found = rig.explained("extender-down", "pod", "p")
        assert "/filter" in found["evidence"][0]["text"]
    rig.extender.wait_healthy(timeout_s=30)


def test_a_runtime_that_may_ignore_the_slice(rig: Rig) -> None:
    """The pod runs, and nothing of it says that it may have no GPU."""
    rig.create("p", HALF, node="old")
    found = rig.explained("cdi-off", "pod", "p")
    assert found["code"] == 0
    assert found["state"] == "unknown"
    assert found["evidence"][0]["text"] == "containerd://1.7.24"


def test_a_stack_whose_device_plugin_is_not_there(rig: Rig) -> None:
    """Backends of others, too."""
    rig.kubectl("label", "namespace", rig.namespace, f"{BACKEND}=nvidia")
    rig.create("p", {keys.FRACTION: "1"})
    assert "nvidia.com/gpu" in rig.explained("resource-not-offered", "pod", "p")["says"]


def of_dra(rig: Rig) -> None:
    """Make the namespace one of backend ``dra``."""
    rig.kubectl("label", "namespace", rig.namespace, f"{BACKEND}=dra")


@pytest.mark.parametrize(
    ("cause", "annotations"),
    [
        ("no-node-with-model", {**HALF, keys.MODEL: "H100"}),
        ("uuid-unknown", {**HALF, keys.UUID: "GPU-gone"}),
        ("too-few-cards", {keys.FRACTION: "2"}),
    ],
)
def test_a_claim_that_no_card_can_serve(rig: Rig, cause: str, annotations: dict[str, str]) -> None:
    """Kubernetes only says "cannot allocate all claims"."""
    of_dra(rig)
    rig.create("p", annotations, node="shared")
    found = rig.explained(cause, "pod", "p")
    assert "cannot allocate all claims" in str(found["evidence"])


def test_a_claim_that_waits_for_room(rig: Rig) -> None:
    """The rest of the card is what the claims leave of it."""
    of_dra(rig)
    rig.create("first", {keys.FRACTION: "0.7"}, node="shared")
    rig.until_running("first")
    rig.create("p", HALF, node="shared")
    found = rig.explained("cards-full", "pod", "p")
    assert "the largest share that fits now is 0.3, on node shared" in found["says"]
    code, answer = rig.explain("pod", "p", "--what-if", "gpu-fraction=0.3")
    assert code == 0, answer
    assert "GPU-shared-0" in answer["whatIf"]["placed"]
    with dead(rig.plane.scheduler):
        rig.kubectl("delete", "pod", "first")
        found = rig.explained("not-looked-again", "pod", "p")
        assert "there is room on card 0 (GPU-shared-0) of node shared" in found["says"]
        assert "the scheduler has not looked again since 20" in found["says"]
    rig.plane.scheduler.wait_healthy()
    rig.until_running("p")


def test_a_template_that_is_missing(rig: Rig) -> None:
    """The controller is down: no condition, only an event of the controllers of Kubernetes."""
    of_dra(rig)
    with dead(rig.quotas.controllers[0]):
        rig.create("p", {keys.FRACTION: "0.123"}, node="shared")
        found = rig.explained("claim-missing", "pod", "p")
        assert "gpu-fraction-123c-123m" in found["says"]


def test_a_claim_that_is_missing(rig: Rig) -> None:
    """A pod that names its own claim."""
    rig.create("p", {}, resourceClaims=[{"name": "mine", "resourceClaimName": "gone"}])
    assert "ResourceClaim gone" in rig.explained("claim-missing", "pod", "p")["says"]


def test_a_size_that_is_needed_for_a_quota(rig: Rig) -> None:
    """No card of that model is known, so the memory of a share is not."""
    assert DRA_MIB != CARD_MIB
    rig.quotas.create(rig.namespace, hard={"memory": "80Gi"})
    rig.deploy("unsized", {**HALF, keys.MODEL: "Unheard"})
    found = rig.explained("quota-needs-size", "deploy/unsized")
    assert "must specify memory" in found["says"]


def test_a_pod_that_was_never_made_points_at_its_owner(rig: Rig) -> None:
    """There is nothing to read: exit code 2, and a hint."""
    code, answer = rig.explain("pod", "nobody")
    assert code == 2
    assert "not found" in answer["error"]
