"""Which requests the match conditions of ``deploy/webhook`` let through, on a real API server.

Each webhook is registered as it is deployed, but for namespaces of its own and at an address
where nothing listens: with ``failurePolicy: Fail``, the requests that fail to call it are those
that match.
"""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain import keys
from gpu_fraction.domain.pod import Pod
from tests.builders import pod_shapes
from tests.builders.pods import Raw, container, env, pod, typed
from tests.cluster.harness.api_client import STRATEGIC_PATCH, ApiClient, StatusError
from tests.cluster.harness.cluster import Cluster
from tests.support import reaching

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "deploy" / "webhook" / "configurations.yaml"
NOWHERE = "https://127.0.0.1:1"
"""Port 1 of this machine (tcpmux, RFC 1078), where nothing listens."""

AT_ONCE = 8
CHANGES = "changes.gpu-fraction.dev"


@pytest.fixture(scope="module")
def namespaces(control_plane: Cluster) -> Iterator[dict[str, str]]:
    """By each webhook's name, the namespace whose requests go to it alone."""
    kubectl = control_plane.kubectl
    documents = list(YAML(typ="safe").load_all(CONFIGURATIONS))
    made: dict[str, str] = {}
    for document in documents:
        document["metadata"]["name"] = f"conditions-{document['kind'].lower()}"
        for webhook in document["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": NOWHERE + path}
            made[webhook["name"]] = name = control_plane.create_namespace()
            labels = {"kubernetes.io/metadata.name": name}
            webhook["namespaceSelector"] = {"matchLabels": labels}
    kubectl.apply(*documents)
    try:
        yield made
    finally:
        for document in documents:
            kubectl("delete", document["kind"], document["metadata"]["name"])
        kubectl("delete", "namespace", "--wait=false", *made.values())


async def stopped(webhook: str, request: Awaitable[object]) -> bool:
    """Whether a request fails at calling a webhook; else it is carried out.

    Raises:
        StatusError: the server refuses it for another reason.
    """
    try:
        await request
    except StatusError as e:
        if f'failed calling webhook "{webhook}"' not in e.message:
            raise
        return True
    return False


async def differing(cases: Iterable[tuple[object, bool, Awaitable[bool]]]) -> list[object]:
    """Those of the cases whose request does not come to what is expected."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def differs(expected: bool, found: Awaitable[bool]) -> bool:
        async with gate:
            return await found is not expected

    listed = list(cases)
    assert {expected for _, expected, _ in listed} == {True, False}
    wrong = await asyncio.gather(*(differs(expected, found) for _, expected, found in listed))
    return [case for (case, _, _), differ in zip(listed, wrong, strict=True) if differ]


def binding(annotations: dict[str, str] | None) -> Raw:
    """A Binding of pod ``plain``."""
    metadata: Raw = {"name": "plain"}
    if annotations is not None:
        metadata["annotations"] = annotations
    target = {"kind": "Node", "name": "n"}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}


@pytest.fixture
async def ready(namespaces: dict[str, str], client: ApiClient) -> dict[str, str]:
    """The namespaces, once the server has learned of the registrations by its watch."""
    new = pod({"gpu-fraction": "0.5"})
    del new["metadata"]["namespace"]
    for webhook, namespace in namespaces.items():
        kind, probe = "pods", new
        if webhook == CHANGES:
            kind, probe = "bindings", binding({"gpu-fraction": "0.5"})
        path = f"/api/v1/namespaces/{namespace}/{kind}"
        async with asyncio.timeout(30):
            while not await stopped(webhook, client.create(path, probe, dryRun="All")):
                await asyncio.sleep(0.05)
    return namespaces


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        ("mutate.gpu-fraction.dev", reaching.mutated),
        ("validate.gpu-fraction.dev", reaching.judged),
    ],
)
async def test_a_new_pod_reaches_what_has_to_see_it(
    webhook: str, expected: Callable[[Pod], bool], ready: dict[str, str], client: ApiClient
) -> None:
    """Every shape that the repository knows, as the domain's own rules say."""
    path = f"/api/v1/namespaces/{ready[webhook]}/pods"
    wrong = await differing(
        (raw, expected(typed(raw)), stopped(webhook, client.create(path, raw, dryRun="All")))
        for raw in pod_shapes.shapes()
    )
    assert wrong == []


MANY = 1001
"""One more than is searched."""

LONG = {
    "annotations": pod({f"{n:x}": "" for n in range(MANY)}),
    "containers": pod(None, *(container(f"c{n}") for n in range(MANY))),
    "init containers": pod(None, init=[container(f"i{n}") for n in range(MANY)]),
    "variables": pod(None, *(container(f"c{n}", env=env(*[("A", "")] * 501)) for n in range(2))),
    "resources": pod(None, container(resources={f"example.com/{n}": "1" for n in range(MANY)})),
    "volumes": pod(None, volumes=[{"name": f"v{n}", "emptyDir": {}} for n in range(MANY)]),
    "claims": pod(
        None,
        resourceClaims=[{"name": f"c{n}", "resourceClaimName": "c"} for n in range(MANY)],
    ),
}


@pytest.mark.parametrize("many", LONG)
async def test_what_is_long_reaches_the_webhook_unsearched(
    many: str, ready: dict[str, str], client: ApiClient
) -> None:
    """A search costs the API server the square of the length, and the length is a tenant's."""
    for webhook in ("validate.gpu-fraction.dev", "mutate.gpu-fraction.dev"):
        path = f"/api/v1/namespaces/{ready[webhook]}/pods"
        raw = copy.deepcopy(LONG[many])
        del raw["metadata"]["namespace"]
        request = client.create(path, raw, dryRun="All")
        seen = webhook.startswith("validate") or many == "annotations"
        assert await stopped(webhook, request) is seen


OURS = {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "T4"}
OTHERS = {"example.com/a": "1", "gpu-operator.example.com/driver": "1"}
STORED = {
    "plain": pod(None),
    "others": pod(OTHERS),
    "ours": pod({**OURS, **OTHERS}),
    "native": pod(None, container(resources={keys.SLOT: "1"})),
    "sidecar": pod(None, init=[container("s", {keys.SLOT: "1"}, restartPolicy="Always")]),
    "nvidia": pod(None, container(resources={"nvidia.com/gpu": "1"})),
}
EDITS: list[dict[str, str | None]] = [
    {},
    {"gpu-fraction": "0.5"},
    {"gpu-fraction": "0.9"},
    {"gpu-fraction": None},
    {"gpu-fraction.dev/request": "{}"},
    {"gpu-fraction.dev/gpu-model": None, "example.com/a": None},
    {"gpu-operator.example.com/driver": "2"},
    {"gpu-operator.example.com/driver": None},
    {"example.com/a": "2"},
    {"example.com/gpu-fraction": "1"},
]
EPHEMERAL: list[Raw] = [
    {},
    {"env": env(("A", "b"))},
    {"env": env(("NVIDIA_VISIBLE_DEVICES", "all"))},
    {"env": env(("CUDA_VISIBLE_DEVICES", "0"))},
]


@pytest.fixture
async def stored(ready: dict[str, str], client: ApiClient) -> AsyncIterator[dict[str, Raw]]:
    """By path, pods of all kinds in the namespace whose changes are looked at."""
    path = f"/api/v1/namespaces/{ready[CHANGES]}/pods"
    made = {}
    for name, raw in STORED.items():
        new = copy.deepcopy(raw)
        new["metadata"].update(name=name, namespace=ready[CHANGES])
        new["spec"]["schedulerName"] = "nobody"
        # A resize may not change the class of a pod's quality of service.
        resources = new["spec"]["containers"][0].setdefault("resources", {})
        resources.setdefault("requests", {})["cpu"] = "100m"
        made[f"{path}/{name}"] = await client.create(path, new)
    yield made
    for one in made:
        await client.delete(one, gracePeriodSeconds="0")


@pytest.mark.parametrize("road", ["", "/status"])
async def test_a_change_of_our_annotations_reaches_validate(
    road: str, stored: dict[str, Raw], client: ApiClient
) -> None:
    """Added, changed or removed; other changes of the same pods do not wait for us."""

    def cases() -> Iterator[tuple[object, bool, Awaitable[bool]]]:
        for (path, old), edit in itertools.product(stored.items(), EDITS):
            change = {"metadata": {"annotations": edit, "labels": {"a": "b"}}}
            after = dict(old["metadata"].get("annotations") or {}) | edit
            new = pod({key: value for key, value in after.items() if value is not None})
            request = client.patch(path + road, change, dryRun="All")
            expected = reaching.changes(typed(old), typed(new))
            yield (path + road, edit), expected, stopped(CHANGES, request)

    assert await differing(cases()) == []


async def test_a_pod_of_many_annotations_is_reported_on_and_let_go(
    ready: dict[str, str], client: ApiClient
) -> None:
    """An expression that costs too much is a refusal; no tenant may bring that on the kubelet.

    The annotations are others', and all together as large as a server takes.
    """
    path = f"/api/v1/namespaces/{ready[CHANGES]}/pods"
    new = pod({f"{n:x}": "" for n in range(45_000)})
    new["metadata"].update(name="many", namespace=ready[CHANGES], finalizers=["example.com/a"])
    new["spec"]["schedulerName"] = "nobody"
    await client.create(path, new)
    status = {"status": {"phase": "Failed"}}
    assert not await stopped(CHANGES, client.patch(f"{path}/many/status", status))
    finalizers = {"metadata": {"finalizers": None}}
    assert not await stopped(CHANGES, client.patch(f"{path}/many", finalizers))
    await client.delete(f"{path}/many", gracePeriodSeconds="0")


async def test_an_ephemeral_container_reaches_validate_where_it_could_reach_a_gpu(
    stored: dict[str, Raw], client: ApiClient
) -> None:
    """``kubectl debug`` of any other pod works while the webhook is down."""

    def cases() -> Iterator[tuple[object, bool, Awaitable[bool]]]:
        for (path, old), part in itertools.product(stored.items(), EPHEMERAL):
            added = {"ephemeralContainers": [container("debug", **part)]}
            new = {**old, "spec": {**old["spec"], **added}}
            road = "ephemeralcontainers"
            request = client.patch(
                f"{path}/{road}", {"spec": added}, STRATEGIC_PATCH, dryRun="All"
            )
            expected = reaching.changes(typed(old), typed(new), road)
            yield (path, part), expected, stopped(CHANGES, request)

    assert await differing(cases()) == []


@pytest.mark.parametrize("road", ["pods/plain/binding", "bindings"])
async def test_a_binding_reaches_validate_with_our_annotations_only(
    road: str, ready: dict[str, str], stored: dict[str, Raw], client: ApiClient
) -> None:
    """Binds of all other pods do not wait for us."""
    assert stored
    path = f"/api/v1/namespaces/{ready[CHANGES]}/{road}"

    assert (
        await differing(
            (
                annotations,
                reaching.changes(None, typed(pod(annotations))),
                stopped(CHANGES, client.create(path, binding(annotations), dryRun="All")),
            )
            for annotations in pod_shapes.ANNOTATIONS
        )
        == []
    )


async def test_a_resize_does_not_wait_for_us_and_changes_no_annotation(
    stored: dict[str, Raw], client: ApiClient
) -> None:
    """The one road to a pod that is not subscribed to leaves its annotations as they are."""
    resources = {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    change = {
        "metadata": {"annotations": {"gpu-fraction": "0.9"}},
        "spec": {"containers": [{"name": "main", "resources": resources}]},
    }
    for path, old in stored.items():
        kept = old["spec"]["containers"][0]["resources"]
        done = await client.patch(f"{path}/resize", change, STRATEGIC_PATCH, dryRun="All")
        assert done["metadata"].get("annotations") == old["metadata"].get("annotations")
        (main,) = done["spec"]["containers"]
        assert main["resources"] == {
            part: {**kept.get(part, {}), "cpu": "1"} for part in ("limits", "requests")
        }
