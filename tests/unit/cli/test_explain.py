"""The command ``explain`` against an API server: what it asks, prints and returns."""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import jsonpatch
import msgspec
import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli import explain_answer, main
from gpu_fraction.dashboard.explain import owners
from gpu_fraction.domain import admission, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.backends import STACKS
from gpu_fraction.domain.pod import Pod
from gpu_fraction.kube.resources import EVENTS, NODES, RESOURCE_CLAIMS
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Kind
from gpu_fraction.settings.option import SettingsError
from tests.builders.cards import card
from tests.builders.views import (
    CREATED,
    Raw,
    claim,
    device_slice,
    gpu_node,
    gpu_pod,
    quota,
    server,
)

OTHERS = {"ResourceClaim": RESOURCE_CLAIMS}
NODE = gpu_node("n", card(0), card(1))


def run(
    api: ApiServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *words: str,
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""

    async def serve() -> int:
        async with api.serve():
            argv = ["gpu-fraction", "explain", *words, "-n", "team-a", "--server", api.url]
            monkeypatch.setattr(sys, "argv", argv)
            monkeypatch.setenv("KUBECONFIG", "/nonexistent")
            return await asyncio.to_thread(main.main)

    code = asyncio.run(serve())
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command on a server."""
    return lambda api, *words: run(api, capsys, monkeypatch, *words)


def owner(kind: str, name: str, given: Mapping[str, str], **fields: Any) -> Raw:
    """An owner of pods."""
    group = "batch/v1" if kind == "Job" else "apps/v1"
    template = {
        "metadata": {"annotations": dict(given)},
        "spec": {"containers": [{"name": "main", "image": "i"}]},
    }
    return {
        "apiVersion": group,
        "kind": kind,
        "metadata": {"name": name, "namespace": "team-a", "uid": f"uid-{name}", **fields},
        "spec": {"template": template},
    }


def stored(*objects: Raw) -> ApiServer:
    """A server with the objects and their own UIDs, by which owners and pods know each other."""
    api = server(NODE)
    api.add_namespace("team-a")
    for one in objects:
        resource = owners.KINDS.get(one["kind"].lower(), OTHERS.get(one["kind"], EVENTS))
        api.storage.put(Kind(resource), ("team-a", one["metadata"]["name"]), one)
    return api


def event(kind: str, name: str, message: str, at: str = CREATED) -> Raw:
    """That an owner could not create its pod."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{kind.lower()}-{name}.1", "namespace": "team-a"},
        "involvedObject": {"kind": kind, "name": name, "uid": f"uid-{name}"},
        "reason": "FailedCreate",
        "type": "Warning",
        "message": f"Error creating: {message}",
        "source": {"component": "controller"},
        "lastTimestamp": at,
    }


def test_a_pod_that_runs(explain: Any) -> None:
    """Exit code 0, all steps, and no cause."""
    pod = gpu_pod("train", CardShare("GPU-0", 500, 8192), node="n")
    code, out, _ = explain(server(NODE, pod), "pod", "train")
    assert code == 0
    assert out.startswith("Pod team-a/train runs, with GPU-0 of n\n")
    assert [line[:1] for line in out.splitlines()[2:]] == list("123456789")
    assert "why" not in out


@pytest.mark.parametrize("words", [("train",), ("pod/train",), ("pods", "train"), ("po", "train")])
def test_a_pod_is_named_as_for_kubectl(explain: Any, words: tuple[str, ...]) -> None:
    """Or by its name alone."""
    code, out, _ = explain(server(NODE, gpu_pod("train", node="n")), *words)
    assert (code, out[:16]) == (0, "Pod team-a/train")


def test_a_pod_that_waits_is_explained_for_people_and_programs(explain: Any) -> None:
    """The same cause; exit code 1."""
    word = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    pod = gpu_pod("next", conditions=[word])
    api = server(gpu_node("n", card(0), unschedulable=True), pod)
    code, out, _ = explain(api, "pod", "next")
    assert code == 1
    assert "waits at step 5" in out
    assert "kubectl uncordon" in out
    assert "docs/operations.md#were-unschedulable" in out
    for output, load in (("json", json.loads), ("yaml", YAML(typ="safe").load)):
        code, out, _ = explain(api, "pod", "next", "-o", output)
        answer = load(out)
        assert (answer["kind"], answer["causes"][0]["cause"]) == ("Explanation", "node-cordoned")


def test_a_pod_that_does_not_exist_points_at_owners_that_were_refused(explain: Any) -> None:
    """Exit code 2: there is nothing to explain."""
    api = server(owner("Job", "j", {}), event("Job", "j", "no"))
    code, out, err = explain(api, "pod", "j-abcde")
    assert (code, out) == (2, "")
    assert "gpu-fraction explain job/j -n team-a" in err


def test_the_newest_replica_set_speaks_for_a_deployment(explain: Any) -> None:
    """What held up an older revision does not matter any more."""
    refs = [{"kind": "Deployment", "name": "d", "uid": "uid-d", "controller": True}]
    old, new = (
        owner(
            "ReplicaSet",
            f"d-{n}",
            {keys.FRACTION: "0.5"},
            ownerReferences=refs,
            annotations={"deployment.kubernetes.io/revision": str(n)},
        )
        for n in (9, 10)
    )
    told = [
        event("ReplicaSet", "d-9", "exceeded GPU quota: q", "2026-12-01T13:00:00Z"),
        event("ReplicaSet", "d-10", "not a known annotation", "2026-12-01T12:30:00Z"),
    ]
    api = stored(owner("Deployment", "d", {}), old, new, *told)
    code, out, _ = explain(api, "deployment/d", "-o", "json")
    assert (code, json.loads(out)["causes"][0]["cause"]) == (1, "annotation-misspelt")


def test_an_owner_with_all_its_pods_is_explained_by_the_one_that_waits(explain: Any) -> None:
    """Not by an old event."""
    refs = [{"kind": "Job", "name": "j", "uid": "uid-j", "controller": True}]
    pods = [
        gpu_pod("runs", CardShare("GPU-0", 500, 8192), node="n", ownerReferences=refs),
        gpu_pod("waits", ownerReferences=refs),
    ]
    api = stored(owner("Job", "j", {}), event("Job", "j", "old"), *pods)
    code, out, _ = explain(api, "job", "j")
    assert code == 1
    assert out.startswith("Pod team-a/waits")


def test_an_owner_whose_events_are_gone_is_judged_by_the_rules(explain: Any) -> None:
    """Kubernetes keeps events for an hour."""
    api = server(owner("StatefulSet", "s", {keys.FRACTION: "1.5"}))
    code, out, err = explain(api, "sts/s")
    assert code == 1
    assert "value-out-of-range" in out
    assert "settings were not read" in err


def webhook(*args: str) -> Raw:
    """The webhook's Deployment with further flags."""
    container = {"name": "webhook", "image": "i", "args": ["webhook", "--port", "1", *args]}
    labels = {"app.kubernetes.io/name": "gpu-fraction", "app.kubernetes.io/component": "webhook"}
    meta = {"name": "gpu-fraction-webhook", "namespace": "gpu-fraction-system", "labels": labels}
    spec = {"template": {"spec": {"containers": [container]}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def test_the_rules_are_those_of_the_webhook_as_it_was_started(explain: Any) -> None:
    """Here two GPUs are too many."""
    job = owner("Job", "j", {keys.FRACTION: "3"})
    code, out, err = explain(server(job, webhook("--max-cards", "2")), "job/j")
    assert code == 1
    assert "allowed: at most 2" in out
    assert not err


def test_a_tenants_deployment_with_the_webhooks_labels_sets_no_rules(explain: Any) -> None:
    """The product's own namespace is believed, whatever comes before it in the list."""
    tenants = webhook("--backend=hami")
    tenants["metadata"]["namespace"] = "a-tenant"
    api = server(NODE, owner("ReplicaSet", "r", {keys.FRACTION: "0.5"}))
    for one in (tenants, webhook("--backend=native")):
        api.add_namespace(one["metadata"]["namespace"])
        api.add(one)
    _, out, _ = explain(api, "rs/r", "-o", "json")
    assert json.loads(out)["rulesFrom"] == "Deployment gpu-fraction-system/gpu-fraction-webhook"


def test_an_owner_that_makes_no_pod_and_says_nothing(explain: Any) -> None:
    """Nobody knows why, and the answer does not guess."""
    code, out, _ = explain(server(owner("Job", "j", {keys.FRACTION: "0.5"})), "job/j")
    assert code == 1
    assert "has no pod, and no event says why" in out


@pytest.mark.parametrize(
    ("kind", "field"), [("ReplicaSet", {"replicas": 0}), ("Job", {"suspend": True})]
)
def test_an_owner_that_wants_no_pods_is_not_refused(
    explain: Any, kind: str, field: dict[str, Any]
) -> None:
    """Although it was, before it was scaled down or held back."""
    made = owner(kind, "o", {keys.FRACTION: "0.5"})
    made["spec"] |= field
    code, out, _ = explain(stored(made, event(kind, "o", "exceeded GPU quota: q")), f"{kind}/o")
    assert code == 1
    assert "it makes no pods now: spec." in out
    assert "quota-exceeded" not in out
    assert "no Event says why" not in out


WHAT_IF = [
    pytest.param(["gpu-fraction=0.4"], 0, {"placed": "card 0 (GPU-0) of node n"}, id="fits"),
    pytest.param(["gpu-fraction=0.9"], 1, {"largestShareMilli": 700}, id="no-card"),
    pytest.param(["gpu-fraction=1.5"], 1, {"placed": ""}, id="refused"),
    pytest.param(["gpu-fraction-", "gpu-memory=4Gi"], 0, {"starts": True}, id="memory"),
]


@pytest.mark.parametrize(("changes", "code", "holds"), WHAT_IF)
def test_other_annotations_are_tried_on_the_cards_as_they_are(
    explain: Any, changes: list[str], code: int, holds: dict[str, Any]
) -> None:
    """The pod's own share counts as free."""
    pods = [
        gpu_pod("train", CardShare("GPU-0", 500, 8192), node="n"),
        gpu_pod("other", CardShare("GPU-0", 300, 4915), node="n", milli=300),
        gpu_pod("full", CardShare("GPU-1", 1000, 16384), node="n", milli=1000),
    ]
    words = [word for change in changes for word in ("--what-if", change)]
    found, out, _ = explain(server(NODE, *pods), "pod", "train", *words, "-o", "json")
    answer = json.loads(out)["whatIf"]
    assert found == code, answer
    assert holds.items() <= answer.items()


@pytest.mark.parametrize(("share", "code"), [("0.5", 0), ("0.7", 1)])
def test_other_annotations_are_tried_on_the_quota(explain: Any, share: str, code: int) -> None:
    """What the pod has of it counts as free; the sentence is the webhook's."""
    pod = gpu_pod("train", CardShare("GPU-0", 500, 8192), node="n")
    budget = quota("q", {"cores": "600m"}, {"cores": "500m"})
    words = ("pod", "train", "--what-if", f"gpu-fraction={share}")
    found, out, _ = explain(server(NODE, pod, budget), *words)
    assert found == code, out
    assert ("exceeded GPU quota: q, requested: cores=700m, used: cores=0" in out) == bool(code)


def test_a_claim_is_tried_on_the_cards_that_claims_leave_free(explain: Any) -> None:
    """Also where the webhook's settings may not be read: the pod says its backend."""
    pod, other = of_dra("train", "0.5"), of_dra("other", "0.3")
    held = [
        claim(name, one, "n", "GPU-0", milli, milli * 1000)
        for name, one, milli in (("c1", pod, 500), ("c2", other, 300))
    ]
    node = gpu_node("n")
    node["metadata"]["annotations"] = {}
    api = stored(pod, other, *held)
    api.remove(NODES, "n")
    api.add(node, device_slice("n", card(0)))
    for share, code in (("0.7", 0), ("0.8", 1)):
        words = ("pod", "train", "--what-if", f"gpu-fraction={share}", "-o", "json")
        found, out, _ = explain(api, *words)
        answer = json.loads(out)["whatIf"]
        assert found == code, answer
        assert answer["largestShareMilli"] == 700


def of_dra(name: str, share: str) -> Raw:
    """A running pod of backend ``dra``, as the webhook leaves it."""
    raw = gpu_pod(name, node="n")
    raw["metadata"]["annotations"] = {keys.FRACTION: share}
    raw["spec"] = {"containers": [{"name": "main", "image": "i"}]}
    written = STACKS["dra"], msgspec.convert(raw, Pod)
    operations = admission.admit(written[1], written[0], admission.Rules()).operations
    made: Raw = jsonpatch.apply_patch(raw, operations)
    made["spec"]["nodeName"] = "n"
    return made


def test_a_stack_of_others_is_tried_as_far_as_it_is_known(explain: Any) -> None:
    """Its webhook rules and quotas, not its cards."""
    job = owner("Job", "j", {keys.FRACTION: "0.5"})
    api = server(job, webhook("--backend", "hami"))
    _, out, _ = explain(api, "job/j", "--what-if", "gpu-fraction=0.2")
    assert "webhook  accepts: main gets 20%" in out
    assert "nvidia.com/gpumem" in out or "not known" in out


def test_what_may_not_be_read_is_named(explain: Any) -> None:
    """And the rest is told."""
    api = server(NODE, gpu_pod("train", CardShare("GPU-0", 500, 8192), node="n"))
    for resource in ("nodes", "events", "namespaces", "mutatingwebhookconfigurations"):
        api.faults.add(Fault(Answer(403, f"no {resource}"), resource=resource, times=None))
    code, out, err = explain(api, "pod", "train")
    assert code == 0
    assert "runs" in out
    assert "not read: nodes: no nodes" in err
    assert "not read: events: no events" in err


def test_without_the_right_to_read_the_pod_there_is_no_answer(explain: Any) -> None:
    """Exit code 2."""
    api = server(gpu_pod("train"))
    api.faults.add(Fault(Answer(403, "no"), "get", "pods", times=None))
    code, out, err = explain(api, "pod", "train")
    assert (code, out) == (2, "")
    assert "no" in err


def test_texts_of_objects_cannot_move_the_cursor(explain: Any) -> None:
    """Names in statuses are foreign."""
    word = {"type": "PodScheduled", "status": "False", "message": "x\x1b[2Jy\nz"}
    code, out, _ = explain(server(NODE, gpu_pod("p", conditions=[word])), "pod", "p")
    assert code == 1
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["node", "n"], "node cannot be explained"),
        (["deploymnet", "n"], 'did you mean "deployment"'),
        (["pod", "a", "b"], "not one object"),
        (["pod/", "a"], "not one object"),
        (["pod/a/b"], "'a/b' is not a name"),
    ],
)
def test_an_object_that_cannot_be_explained(words: list[str], told: str) -> None:
    """The message has what is allowed."""
    with pytest.raises(SettingsError, match=told):
        explain_answer.target(words)


@pytest.mark.parametrize("text", ["gpu-fraction", "=1", "-", ""])
def test_a_change_that_is_none(text: str) -> None:
    """The message has the form."""
    with pytest.raises(SettingsError, match="KEY=VALUE"):
        explain_answer.changes_of([text])
