"""The daemon's side of the API server: pods in, assignments and the Node out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from gpu_fraction.domain import frameworks, keys
from gpu_fraction.domain import inventory as inventory_format
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import NODES, PODS
from gpu_fraction.node_daemon.cards.health_events import CLEAR_ANNOTATION
from gpu_fraction.node_daemon.cluster.api_server import ApiAssigner, NodePublisher, WireNode
from gpu_fraction.node_daemon.cluster.pod_feed import PodFeed, WirePod, read
from gpu_fraction.node_daemon.state.concurrency import Observable
from gpu_fraction.node_daemon.state.errors import ApiUnavailableError, PodRef, Refusal
from gpu_fraction.node_daemon.state.pods import PodCache
from gpu_fraction.sandbox.apiserver.faults import Answer, Fault
from gpu_fraction.sandbox.apiserver.server import ApiServer
from tests.support.access import fixed
from tests.support.node_rig import inventory, rig_card

NODE = "node-1"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """An API server with this node's object."""
    made = ApiServer()
    made.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": {}})
    async with made.serve():
        yield made


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    """A client of it."""
    source = fixed(Access(server.url))
    async with connect(source, component="test", timeout_s=5.0) as made:
        yield made


@pytest.fixture
async def background() -> AsyncIterator[Callable[[Any], None]]:
    """Runs something until the test ends."""
    tasks = []

    def run(work: Any) -> None:
        tasks.append(asyncio.create_task(work))

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def add_pod(server: ApiServer, name: str, node: str = NODE, **spec: Any) -> None:
    """A pod at the server."""
    limits = {keys.SLOT: "1", keys.MEMORY_MIB: "4k", "cpu": "500m"}
    containers = [{"name": "main", "resources": {"limits": limits}}]
    server.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "annotations": {keys.ASSIGNED: "x", "other": "y"},
            },
            "spec": {"nodeName": node, "containers": containers, **spec},
            "status": {
                "phase": "Running",
                "containerStatuses": [{"name": "main", "containerID": "containerd://0123"}],
            },
        }
    )


USER = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
ROOT = {"runAsUser": 0, "allowPrivilegeEscalation": False}


@pytest.mark.parametrize(
    ("spec", "risk"),
    [
        ({}, ""),
        ({"shareProcessNamespace": True}, ""),
        ({"containers": [{"name": "main"}]}, "spec.containers[0].securityContext.runAsNonRoot: "),
        (
            {"containers": [{"name": "main", "securityContext": {"runAsUser": 1000}}]},
            "spec.containers[0].securityContext.allowPrivilegeEscalation: ",
        ),
        (
            {"initContainers": [{"name": "setup", "securityContext": ROOT}]},
            "spec.initContainers[0].securityContext.runAsUser: ",
        ),
        (
            {"ephemeralContainers": [{"name": "debug", "securityContext": ROOT}]},
            "spec.ephemeralContainers[0].securityContext.runAsUser: ",
        ),
    ],
)
def test_any_container_of_a_pod_can_make_it_a_risk(spec: dict[str, Any], risk: str) -> None:
    """They share a network, so the one without a card reaches what the other one has."""
    given = {"containers": [{"name": "main", "securityContext": USER}], **spec}
    pod = read(msgspec.convert({"spec": given}, WirePod))
    assert pod.root_risk.startswith(risk)
    assert bool(pod.root_risk) is bool(risk)


def test_variables_of_frameworks_are_read_with_the_values_that_are_known() -> None:
    """No other is; a value of a Secret, or one that the kubelet expands, is not known."""
    env: list[dict[str, Any]] = [
        {"name": "PASSWORD", "value": "x"},
        {"name": "PYTORCH_ALLOC_CONF", "value": "backend:native"},
        {"name": "XLA_CLIENT_MEM_FRACTION", "value": "$(PART)"},
        {"name": "CUPY_GPU_MEMORY_LIMIT", "valueFrom": {"secretKeyRef": {"key": "a"}}},
    ]
    given = {"spec": {"containers": [{"name": "main", "env": env}, {"name": "side"}]}}
    main, side = read(msgspec.convert(given, WirePod)).containers
    assert main.env == {
        "PYTORCH_ALLOC_CONF": "backend:native",
        "XLA_CLIENT_MEM_FRACTION": None,
        "CUPY_GPU_MEMORY_LIMIT": None,
    }
    assert side.env == {}


def test_a_config_map_may_set_any_of_them() -> None:
    """Its content is not in the pod; what the pod sets besides is known."""
    container = {
        "name": "main",
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [{"name": "PYTORCH_ALLOC_CONF", "value": "backend:native"}],
    }
    (main,) = read(msgspec.convert({"spec": {"containers": [container]}}, WirePod)).containers
    assert main.env == {
        **dict.fromkeys(frameworks.NAMES - {frameworks.OURS}),
        "PYTORCH_ALLOC_CONF": "backend:native",
    }


async def test_pods_of_this_node_are_followed(
    server: ApiServer, client: Client, background: Callable[[Any], None]
) -> None:
    """Pods of other nodes are not; what the daemon needs of a pod is read, and its end seen."""
    add_pod(
        server,
        "mine",
        initContainers=[
            {"name": "side", "restartPolicy": "Always"},
            {"name": "setup"},
        ],
    )
    add_pod(server, "others", node="node-2")
    cache = PodCache()
    background(PodFeed(client, NODE, cache).run())
    async with asyncio.timeout(5):
        await cache.wait_synced()
    pod = cache.get("default", "mine")
    assert pod is not None
    assert cache.get("default", "others") is None
    assert [(c.name, c.kind) for c in pod.containers] == [
        ("side", "sidecar"),
        ("setup", "init"),
        ("main", "app"),
    ]
    main = pod.containers[2]
    assert main.limits == {keys.SLOT: 1, keys.MEMORY_MIB: 4000}
    assert main.container_id == "0123"
    assert pod.annotations == {keys.ASSIGNED: "x"}
    add_pod(server, "late")
    assert await cache.wait_for("default", "late", 5) is not None
    cache.departed.clear()
    await client.delete(PODS.at("mine", namespace="default"), {"gracePeriodSeconds": 0})
    async with asyncio.timeout(5):
        await cache.departed.wait()
    assert not cache.lives(pod.uid)


async def test_assignment_is_written_to_that_pod_alone(server: ApiServer, client: Client) -> None:
    """A successor of the same name is not annotated, and a missing pod is no success."""
    add_pod(server, "mine")
    stored = await client.get(PODS.at("mine", namespace="default"), dict)
    assigner = ApiAssigner(client)
    uid = stored["metadata"]["uid"]
    await assigner.assign(PodRef("default", "mine", uid), "cards")
    after = await client.get(PODS.at("mine", namespace="default"), dict)
    assert after["metadata"]["annotations"] == {keys.ASSIGNED: "cards", "other": "y"}
    for ref in (PodRef("default", "mine", "other-uid"), PodRef("default", "none", uid)):
        with pytest.raises(Refusal, match="is gone"):
            await assigner.assign(ref, "cards")
    server.faults.add(Fault(Answer(422, "no"), resource="pods"))
    with pytest.raises(Refusal):
        await assigner.assign(PodRef("default", "mine", uid), "cards")
    server.faults.add(Fault(Answer(403, "busy"), resource="pods"))
    with pytest.raises(ApiUnavailableError, match="busy"):
        await assigner.assign(PodRef("default", "mine", uid), "cards")


async def read_node(client: Client) -> dict[str, Any]:
    """The Node."""
    found: dict[str, Any] = await client.get(NODES.at(NODE), dict)
    return found


async def test_node_is_published_and_repaired(
    client: Client, background: Callable[[Any], None]
) -> None:
    """Inventory, labels and capacity follow the cards, and return when somebody resets them."""
    cards = Observable(inventory(rig_card(0), rig_card(1)))
    background(NodePublisher(client, NODE, cards).run())
    capacity: dict[str, Any] = {}

    async def capacity_is(core_milli: str, memory_mib: str) -> None:
        async with asyncio.timeout(5):
            while True:
                node = await read_node(client)
                capacity.clear()
                capacity.update(node["status"].get("capacity", {}))
                wanted = {keys.CORE_MILLI: core_milli, keys.MEMORY_MIB: memory_mib}
                if wanted.items() <= capacity.items():
                    return
                await asyncio.sleep(0.01)

    await capacity_is("2000", "81920")
    node = await read_node(client)
    assert node["metadata"]["labels"][keys.LABEL_COUNT] == "2"
    published = inventory_format.parse(node["metadata"]["annotations"][keys.INVENTORY])
    assert published.cards == cards.value.cards  # type: ignore[union-attr]
    cards.set(inventory(rig_card(0), rig_card(1, healthy=False)))
    await capacity_is("1000", "40960")
    reset = {"status": {"capacity": {keys.CORE_MILLI: "0", keys.MEMORY_MIB: "0"}}}
    await client.patch(NODES.at(NODE).sub("status"), PatchKind.MERGE, reset, dict)
    await capacity_is("1000", "40960")
    gone = {"metadata": {"annotations": {keys.INVENTORY: None}}}
    node = await client.patch(NODES.at(NODE), PatchKind.MERGE, gone, dict)
    async with asyncio.timeout(5):
        while keys.INVENTORY not in (node["metadata"].get("annotations") or {}):
            node = await read_node(client)
            await asyncio.sleep(0.01)


async def test_clear_annotation_is_obeyed_once(
    client: Client, background: Callable[[Any], None]
) -> None:
    """An administrator declares cards fine; the annotation is taken away."""
    publisher = NodePublisher(client, NODE, Observable(inventory(rig_card(0))))
    background(publisher.run())
    asked = {"metadata": {"annotations": {CLEAR_ANNOTATION: "GPU-0"}}}
    await client.patch(NODES.at(NODE), PatchKind.MERGE, asked, dict)
    async with asyncio.timeout(5):
        assert await publisher.clear_asked() == "GPU-0"
        node = await read_node(client)
    assert CLEAR_ANNOTATION not in (node["metadata"].get("annotations") or {})


async def test_clear_annotation_is_not_obeyed_again_while_the_watch_lags(client: Client) -> None:
    """The Node is still shown with what was taken away; the next thing asked is obeyed."""
    publisher = NodePublisher(client, NODE, Observable(inventory(rig_card(0), rig_card(1))))

    async def ask(what: str) -> WireNode:
        asked = {"metadata": {"annotations": {CLEAR_ANNOTATION: what}}}
        return await client.patch(NODES.at(NODE), PatchKind.MERGE, asked, WireNode)

    publisher.node.set(await ask("GPU-0"))
    async with asyncio.timeout(5):
        assert await publisher.clear_asked() == "GPU-0"
        again = asyncio.create_task(publisher.clear_asked())
        publisher.node.set(await ask("GPU-1"))
        assert await again == "GPU-1"
