"""Every review that a real API server sent, and what becomes of it.

What a pod must look like afterwards is written out here, not computed.
"""

import copy
import json
from dataclasses import dataclass

import jsonpatch
import pytest

from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import decode, encode
from tests.builders.pods import Raw
from tests.support.reviews import RECORDED, body, patch_of, recorded, rewriting

MUTATING = [name for name in RECORDED if name.endswith("-mutating")]
VALIDATING = [name for name in RECORDED if name.endswith("-validating")]

SETTLED = "becomes MiB when a GPU is chosen (the GPU's memory size is not configured)"
NO_SUCH = (
    "spec.containers[0].resources: no node offers gpu-fraction.dev/core; did you mean "
    '"gpu-fraction.dev/core-milli"?; known: gpu-fraction.dev/slot, gpu-fraction.dev/core-milli, '
    "gpu-fraction.dev/memory-mib"
)
KEPT = {"decision": "kept"}
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def ask(name: str, path: str, settings: dict[str, str]) -> Raw:
    """The answer to a recorded review."""
    asked = decode(body(recorded(name)))
    decider = Decider(rewriting(**settings))
    answer = decider.mutate(asked) if path == "mutate" else decider.validate(asked)
    response: Raw = json.loads(encode(asked.uid, answer))["response"]
    assert response["uid"] == recorded(name)["request"]["uid"]
    return response


@dataclass(frozen=True)
class Patched:
    """What a pod gets: for one container, and its one annotation."""

    request: str
    resources: dict[str, str]
    env: list[tuple[str, str]]
    scheduler: str
    more_annotations: tuple[tuple[str, str], ...] = ()
    container: int = 0

    def of(self, pod: Raw) -> Raw:
        """The whole pod as it must be."""
        made = copy.deepcopy(pod)
        made["metadata"]["annotations"]["gpu-fraction.dev/request"] = self.request
        made["metadata"]["annotations"].update(self.more_annotations)
        main = made["spec"]["containers"][self.container]
        for part in ("limits", "requests"):
            main["resources"].setdefault(part, {}).update(self.resources)
        main.setdefault("env", []).extend({"name": k, "value": v} for k, v in self.env)
        made["spec"]["schedulerName"] = self.scheduler
        made["spec"].setdefault("tolerations", []).append(GPU_TAINT)
        return made


def native(
    container: str, milli: int, share: str, *, memory: int | None = None, mib: int | None = None
) -> Patched:
    """On the native stack: ``memory`` is an amount that was asked, ``mib`` what is known."""
    amount = f'"memoryMib":{memory}' if memory else f'"memoryMilli":{milli}'
    mib = memory or mib
    return Patched(
        request=(
            f'{{"v":1,"backend":"native","containers":[{{"name":"{container}","cards":1,'
            f'"coreMilli":{milli},{amount}}}],"placement":"binpack","isolation":"preferred"}}'
        ),
        resources={
            "gpu-fraction.dev/slot": "1",
            "gpu-fraction.dev/core-milli": "1k" if milli == 1000 else str(milli),
            **({"gpu-fraction.dev/memory-mib": str(mib)} if mib else {}),
        },
        env=[
            ("GPU_FRACTION", share),
            *([("GPU_MEMORY_LIMIT_MIB", str(mib))] if mib else []),
        ],
        scheduler="gpu-fraction-scheduler",
    )


def hami(container: str, percent: int, share: str, *, memory: int | None = None) -> Patched:
    """On HAMi, no size known."""
    amount = f'"memoryMib":{memory}' if memory else f'"memoryMilli":{percent * 10}'
    return Patched(
        request=(
            f'{{"v":1,"backend":"hami","containers":[{{"name":"{container}","cards":1,'
            f'"coreMilli":{percent * 10},{amount}}}],"placement":"binpack",'
            '"isolation":"preferred"}'
        ),
        resources={
            "nvidia.com/gpu": "1",
            "nvidia.com/gpucores": str(percent),
            **(
                {"nvidia.com/gpumem": str(memory)}
                if memory
                else {"nvidia.com/gpumem-percentage": str(percent)}
            ),
        },
        env=[
            ("GPU_FRACTION", share),
            *([("GPU_MEMORY_LIMIT_MIB", str(memory))] if memory else []),
        ],
        scheduler="hami-scheduler",
        more_annotations=(
            ("hami.io/node-scheduler-policy", "binpack"),
            ("hami.io/gpu-scheduler-policy", "binpack"),
        ),
    )


NATIVE = {
    "dry-create-dryrun-mutating": native("dry", 300, "0.3"),
    "gen-create-mutating": native("main", 1000, "1"),
    "inference-create-mutating": native("server", 500, "0.5", memory=8192),
    "notebook-create-mutating": native("main", 250, "0.25"),
    "ssa-create-mutating": native("main", 200, "0.2"),
    "train-create-mutating": native("train", 100, "0.1"),
}
NATIVE_80G = {
    "dry-create-dryrun-mutating": native("dry", 300, "0.3", mib=24576),
    "gen-create-mutating": native("main", 1000, "1", mib=81920),
    "inference-create-mutating": native("server", 500, "0.5", memory=8192),
    "notebook-create-mutating": native("main", 250, "0.25", mib=20480),
    "ssa-create-mutating": native("main", 200, "0.2", mib=16384),
    "train-create-mutating": native("train", 100, "0.1", mib=8192),
}
HAMI = {
    "dry-create-dryrun-mutating": hami("dry", 30, "0.3"),
    "gen-create-mutating": hami("main", 100, "1"),
    "inference-create-mutating": hami("server", 50, "0.5", memory=8192),
    "notebook-create-mutating": hami("main", 25, "0.25"),
    "ssa-create-mutating": hami("main", 20, "0.2"),
    "train-create-mutating": hami("train", 10, "0.1"),
}
CLUSTERS: dict[str, tuple[dict[str, str], dict[str, Patched]]] = {
    "native": ({}, NATIVE),
    "native-80Gi": ({"gpu_memory_mib": "80Gi"}, NATIVE_80G),
    "hami": ({"backend": "hami"}, HAMI),
}


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("name", MUTATING)
def test_the_patch_makes_exactly_the_expected_pod(name: str, cluster: str) -> None:
    """Applied by another library; a review that is about no GPU gets no patch."""
    settings, patched = CLUSTERS[cluster]
    response = ask(name, "mutate", settings)
    assert response["allowed"] is True
    before = recorded(name)["request"]["object"]
    if name not in patched:
        assert patch_of(response) == []
        return
    after = jsonpatch.JsonPatch(patch_of(response)).apply(copy.deepcopy(before))
    assert after == patched[name].of(before)


TOLD: dict[str, tuple[dict[str, str], list[str]]] = {
    "agent-create-mutating": (KEPT, []),
    "db-create-mutating": (KEPT, []),
    "dry-create-dryrun-mutating": (
        {"decision": "patched", "backend": "native", "fraction": "dry=1x0.3"},
        [f"container dry: 30% of a GPU's memory {SETTLED}"],
    ),
    "filler-create-mutating": (KEPT, [NO_SUCH]),
    "gen-create-mutating": (
        {"decision": "patched", "backend": "native", "fraction": "main=1x1"},
        [f"container main: 100% of a GPU's memory {SETTLED}"],
    ),
    "inference-create-mutating": (
        {"decision": "patched", "backend": "native", "fraction": "server=1x0.5"},
        [
            (
                "container server gets the GPU because it is the first container; to give it to "
                "another (exporter), set the annotation gpu-fraction-container-name"
            )
        ],
    ),
    "notebook-create-binding-mutating": ({}, []),
    "notebook-create-mutating": (
        {"decision": "patched", "backend": "native", "fraction": "main=1x0.25"},
        [f"container main: 25% of a GPU's memory {SETTLED}"],
    ),
    "notebook-delete-mutating": ({}, []),
    "notebook-update-ephemeralcontainers-mutating": ({}, []),
    "notebook-update-mutating": ({}, []),
    "notebook-update-resize-mutating": ({}, []),
    "notebook-update-status-mutating": ({}, []),
    "ssa-create-mutating": (
        {"decision": "patched", "backend": "native", "fraction": "main=1x0.2"},
        [f"container main: 20% of a GPU's memory {SETTLED}"],
    ),
    "train-create-mutating": (
        {"decision": "patched", "backend": "native", "fraction": "train=1x0.1"},
        [f"container train: 10% of a GPU's memory {SETTLED}"],
    ),
    "train-update-mutating": ({}, []),
    "x-connect-exec-mutating": ({}, []),
    "x1-create-mutating": (KEPT, [NO_SUCH]),
    "x2-create-mutating": (KEPT, [NO_SUCH]),
}


@pytest.mark.parametrize("name", MUTATING)
def test_what_the_user_and_the_audit_log_are_told(name: str) -> None:
    """Of each mutating review."""
    audit, warnings = TOLD[name]
    response = ask(name, "mutate", {})
    assert response.get("auditAnnotations", {}) == audit
    assert response.get("warnings", []) == warnings
    assert "status" not in response


UNMUTATED = (
    "pod: does not match its GPU annotations (missing: "
    "{}): gpu-fraction's mutating webhook did not run, "
    "or another webhook removed its changes"
)
ANNOTATION = "/metadata/annotations/gpu-fraction.dev~1request"
MAIN = "/spec/containers/0"

VERDICTS: dict[str, str | None] = {
    "agent-create-validating": None,
    "db-create-validating": None,
    "dry-create-dryrun-validating": UNMUTATED.format(
        f"{ANNOTATION}, {MAIN}/resources/limits, {MAIN}/resources/requests"
    ),
    "filler-create-validating": None,
    "gen-create-validating": UNMUTATED.format(
        f"{ANNOTATION}, {MAIN}/resources/limits, {MAIN}/resources/requests"
    ),
    "inference-create-validating": UNMUTATED.format(
        f"{ANNOTATION}, {MAIN}/resources/limits, {MAIN}/resources/requests"
    ),
    "notebook-create-binding-validating": None,
    "notebook-create-validating": UNMUTATED.format(
        f"{ANNOTATION}, {MAIN}/resources/limits/gpu-fraction.dev~1slot, "
        f"{MAIN}/resources/limits/gpu-fraction.dev~1core-milli"
    ),
    "notebook-delete-validating": None,
    "notebook-update-ephemeralcontainers-validating": None,
    "notebook-update-resize-validating": None,
    "notebook-update-status-validating": None,
    "notebook-update-validating": (
        "metadata.annotations[gpu-fraction]: cannot change after the pod is created; create a "
        "new pod with the new value"
    ),
    "ssa-create-validating": UNMUTATED.format(
        f"{ANNOTATION}, {MAIN}/resources/limits, {MAIN}/resources/requests"
    ),
    "train-create-validating": UNMUTATED.format(
        f"{ANNOTATION}, {MAIN}/resources/limits, {MAIN}/resources/requests"
    ),
    "train-update-validating": None,
    "x-connect-exec-validating": None,
    "x1-create-validating": None,
    "x2-create-validating": None,
}
"""The recordings were made without a mutating webhook, so that no GPU pod was patched."""


@pytest.mark.parametrize("name", VALIDATING)
def test_validation(name: str) -> None:
    """A pod is stored only as it was rewritten, and keeps what it was rewritten from."""
    response = ask(name, "validate", {})
    expected = VERDICTS[name]
    assert response["allowed"] is (expected is None)
    assert "patch" not in response
    assert "patchType" not in response
    if expected is not None:
        assert response["status"]["code"] == 403
        assert response["status"]["reason"] == "Forbidden"
        assert expected in response["status"]["message"]


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_validation_passes_what_mutation_made(name: str) -> None:
    """The final object of a create, with the uid and name that it has by then."""
    final = recorded(name.replace("-mutating", "-validating"))
    final["request"]["object"] = NATIVE[name].of(final["request"]["object"])
    asked = decode(body(final))
    answer = Decider(rewriting()).validate(asked)
    assert (answer.allowed, answer.message) == (True, "")
    assert answer.audit["decision"] == "allowed"
