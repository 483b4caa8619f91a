"""Other people's mutations beside ours: webhooks before and after us, and policies.

The API server calls policies first, then webhooks by their configuration's name, and ours once
more where a later one changed the pod (``reinvocationPolicy: IfNeeded``).
"""

import asyncio
import json
from typing import Any

import pytest

from gpu_fraction.domain import keys, request_annotation
from tests.builders.pods import Raw, pod
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.mutators import Patch, policy, webhook
from tests.cluster.harness.quota import Quotas

MESH: Raw = {"name": "mesh", "image": "mesh:1"}
VARIABLE: Raw = {"name": "MESH", "value": "1"}
SHARE = {"gpu-fraction": "0.5"}
NAMED = {**SHARE, "gpu-fraction-container-name": "main"}
SLICE = {keys.SLOT: "1", keys.CORE_MILLI: "500", keys.MEMORY_MIB: "40960"}
BUDGET = {"gpus": 1, "cores": "500m", "memory": "40Gi", "pods": 1}


@pytest.fixture
def namespace(quotas: Quotas, namespace: str) -> str:
    """A namespace with a budget for one share, selected by its own name."""
    quotas.create(namespace, hard=BUDGET)
    return namespace


def first_container(raw: Raw) -> Patch:
    """A sidecar put before all others, as injectors of service meshes do."""
    if any(c["name"] == "mesh" for c in raw["spec"]["containers"]):
        return []
    return [{"op": "add", "path": "/spec/containers/0", "value": MESH}]


def first_variable(raw: Raw) -> Patch:
    """A variable put before all others of every container."""
    patch: Patch = []
    for index, one in enumerate(raw["spec"]["containers"]):
        path = f"/spec/containers/{index}/env"
        if VARIABLE in one.get("env", []):
            continue
        if "env" not in one:
            patch.append({"op": "add", "path": path, "value": []})
        patch.append({"op": "add", "path": f"{path}/0", "value": VARIABLE})
    return patch


async def created(
    client: ApiClient, namespace: str, annotations: dict[str, str], probe: Raw | None = None
) -> Raw:
    """A new pod with one container, once the server knows of the other mutation.

    Args:
        client: the administrator.
        namespace: where.
        annotations: of the pod.
        probe: annotations of a pod that the other one changes; none at all by default.
    """
    path = f"/api/v1/namespaces/{namespace}/pods"
    raw = pod(probe)
    del raw["metadata"]["namespace"]
    async with asyncio.timeout(30):
        while "mesh" not in json.dumps(await client.create(path, raw, dryRun="All")).lower():
            await asyncio.sleep(0.05)
    raw["metadata"]["annotations"] = annotations
    return await client.create(path, raw)


def shares(stored: Raw) -> dict[str, Any]:
    """By container, what it was given of our resources."""
    return {
        one["name"]: {
            name: amount
            for name, amount in one["resources"].get("limits", {}).items()
            if name.startswith(keys.PREFIX)
        }
        for one in stored["spec"]["containers"]
    }


def requested(stored: Raw) -> list[str]:
    """The containers that the request annotation names."""
    found = request_annotation.load(stored["metadata"]["annotations"][keys.REQUEST])
    return [part.container for part in found.request.slices]


async def charged_once(client: ApiClient, namespace: str) -> None:
    """The budget held one share, and that is gone now."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    another = pod(SHARE)
    another["metadata"] = {"generateName": "another-", "annotations": SHARE}
    taken = "(used|reserved): cores=500m,gpus=1,memory=40Gi,pods=1"
    with pytest.raises(StatusError, match=f"exceeded GPU quota: .*{taken}"):
        await client.create(path, another)


@pytest.mark.parametrize("annotations", [SHARE, NAMED], ids=["unnamed", "named"])
async def test_a_sidecar_put_first_after_us_gets_nothing(
    quotas: Quotas, client: ApiClient, namespace: str, annotations: dict[str, str]
) -> None:
    """What the first call chose stays chosen when we are called again."""
    async with webhook(quotas.plane, client, "z-mesh", namespace, first_container):
        stored = await created(client, namespace, annotations)
        assert shares(stored) == {"mesh": {}, "main": SLICE}
        assert list(shares(stored)) == ["mesh", "main"]
        assert requested(stored) == ["main"]
        await charged_once(client, namespace)


@pytest.mark.parametrize(
    ("annotations", "gets"), [(SHARE, "mesh"), (NAMED, "main")], ids=["unnamed", "named"]
)
async def test_a_sidecar_put_first_before_us_is_the_first(
    quotas: Quotas, client: ApiClient, namespace: str, annotations: dict[str, str], gets: str
) -> None:
    """Nothing tells it from the user's own (docs/limits.md); a name does."""
    async with webhook(quotas.plane, client, "a-mesh", namespace, first_container):
        stored = await created(client, namespace, annotations)
        assert shares(stored) == {"mesh": {}, "main": {}} | {gets: SLICE}
        assert requested(stored) == [gets]
        await charged_once(client, namespace)


@pytest.mark.parametrize("name", ["a-mesh", "z-mesh"], ids=["before", "after"])
async def test_variables_of_others_stand_beside_ours(
    quotas: Quotas, client: ApiClient, namespace: str, name: str
) -> None:
    """Both mutations are in the pod, whoever came first."""
    async with webhook(quotas.plane, client, name, namespace, first_variable):
        stored = await created(client, namespace, SHARE)
        variables = [one["name"] for one in stored["spec"]["containers"][0]["env"]]
        assert variables == ["MESH", "GPU_FRACTION", "GPU_MEMORY_LIMIT_MIB"]
        assert shares(stored) == {"main": SLICE}
        await charged_once(client, namespace)


def undo(raw: Raw) -> Patch:
    """What we write is taken away; a pod that is not ours gets a variable."""
    if not raw["metadata"].get("annotations"):
        return first_variable(raw)
    patch: Patch = []
    if keys.REQUEST in raw["metadata"]["annotations"]:
        path = keys.REQUEST.replace("/", "~1")
        patch.append({"op": "remove", "path": f"/metadata/annotations/{path}"})
    for index, one in enumerate(raw["spec"]["containers"]):
        if keys.SLOT in one.get("resources", {}).get("limits", {}):
            patch.append({"op": "add", "path": f"/spec/containers/{index}/resources", "value": {}})
    return patch


async def test_what_another_takes_away_is_written_again(
    quotas: Quotas, client: ApiClient, namespace: str
) -> None:
    """We are called again after it, and write our fields again."""
    async with webhook(quotas.plane, client, "z-undo", namespace, undo):
        stored = await created(client, namespace, SHARE)
        assert shares(stored) == {"main": SLICE}
        assert requested(stored) == ["main"]
        await charged_once(client, namespace)


async def test_a_pod_whose_share_another_takes_away_for_good_is_refused(
    quotas: Quotas, client: ApiClient, namespace: str
) -> None:
    """Where the other is called after us again, the pod is refused, not run without its share."""
    async with webhook(quotas.plane, client, "z-undo", namespace, undo, "IfNeeded"):
        with pytest.raises(StatusError) as refused:
            await created(client, namespace, SHARE)
        assert refused.value.code == 403
        assert "another webhook removed its changes" in refused.value.message


PATCH = (
    '[JSONPatch{op: "add", path: "/spec/containers/0", '
    'value: Object.spec.containers{name: "mesh", image: "mesh:1"}}]'
)
APPLIED = (
    "Object{spec: Object.spec{containers: "
    '[Object.spec.containers{name: "mesh", image: "mesh:1"}]}}'
)
NO_MESH = "!object.spec.containers.exists(c, c.name == 'mesh')"
AFTER_US = f"{NO_MESH} && '{keys.REQUEST}' in object.metadata.?annotations.orValue({{}})"


def patching(condition: str) -> Raw:
    """A policy's mutation that puts a sidecar first."""
    expression = f"{condition} ? {PATCH} : []"
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def applying(condition: str) -> Raw:
    """A policy's mutation that adds a sidecar by server-side apply."""
    expression = f"{condition} ? {APPLIED} : Object{{}}"
    return {
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": expression},
    }


@pytest.mark.needs_kubernetes("1.36")  # MutatingAdmissionPolicy v1
@pytest.mark.parametrize(
    ("annotations", "gets"), [(SHARE, "mesh"), (NAMED, "main")], ids=["unnamed", "named"]
)
async def test_a_policys_sidecar_is_there_before_us(
    client: ApiClient, namespace: str, annotations: dict[str, str], gets: str
) -> None:
    """As one that a webhook before us puts first."""
    async with policy(client, namespace, patching(NO_MESH)):
        stored = await created(client, namespace, annotations)
        assert shares(stored) == {"mesh": {}, "main": {}} | {gets: SLICE}
        assert requested(stored) == [gets]
        await charged_once(client, namespace)


@pytest.mark.needs_kubernetes("1.36")  # MutatingAdmissionPolicy v1
@pytest.mark.parametrize(
    "mutation", [patching(AFTER_US), applying(AFTER_US)], ids=["patch", "apply"]
)
async def test_a_policys_sidecar_that_follows_us_gets_nothing(
    client: ApiClient, namespace: str, mutation: Raw
) -> None:
    """A policy that waits for our annotation adds it when the API server calls it again."""
    async with policy(client, namespace, mutation):
        stored = await created(client, namespace, SHARE, SHARE)
        assert shares(stored) == {"mesh": {}, "main": SLICE}
        assert requested(stored) == ["main"]
        await charged_once(client, namespace)
