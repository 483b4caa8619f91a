"""What the admission policy holds where the webhook has no verdict, and what it leaves alone."""

from collections.abc import AsyncIterator, Iterator

import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain import inventory, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import connect
from gpu_fraction.node_daemon.cards.health_events import CLEAR_ANNOTATION
from gpu_fraction.node_daemon.cluster import inventory_node
from gpu_fraction.node_daemon.cluster.api_server import ApiAssigner
from gpu_fraction.node_daemon.state.errors import PodRef
from gpu_fraction.scheduler.binding import KubePodApi
from gpu_fraction.scheduler.wire import BindingArgs
from tests.cluster.harness.admission import SYSTEM_NAMESPACE
from tests.cluster.harness.api_client import STRATEGIC_PATCH, ApiClient, StatusError
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.policy import ACCOUNTS, DENIED, FOLDER, Users, pod, policy_installed
from tests.cluster.harness.waiting import wait_for

GATE = keys.PREFIX + "quota"
OTHER_GATE = "example.com/wait"
NODE = "policy-node"
CARDS = inventory.Inventory(
    v=1, cards=(inventory.Card(uuid="GPU-1", index=0, model="T4", memory_mib=15360, slots=8),)
)
SHARE = {"main": (CardShare(uuid="GPU-1", core_milli=250, memory_mib=3840),)}


@pytest.fixture(scope="module")
def plane(own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster with the policy, without the webhook, and with a node where nothing lands."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    own_control_plane.kubectl.apply({**node, "spec": {"unschedulable": True}})
    try:
        with policy_installed(own_control_plane):
            yield own_control_plane
    finally:
        own_control_plane.kubectl("delete", "node", NODE)


@pytest.fixture
async def users(plane: ControlPlane) -> AsyncIterator[Users]:
    """Everybody."""
    async with Users(plane) as made:
        yield made


@pytest.fixture
def kubectl(plane: ControlPlane, namespace: str) -> Kubectl:
    """Kubectl as administrator in the test's namespace."""
    return plane.kubectl.within(namespace)


def test_the_server_finds_no_fault_in_the_types(plane: ControlPlane) -> None:
    """Every expression fits Pods, Bindings and Nodes alike."""

    def checked() -> dict[str, object] | None:
        policy = plane.kubectl.json("get", "validatingadmissionpolicy", "gpu-fraction")
        status = policy.get("status", {})
        seen = status.get("observedGeneration") == policy["metadata"]["generation"]
        return status if seen else None

    status = wait_for(checked)
    assert status["typeChecking"] == {}


def test_messages_name_the_field_the_value_and_what_is_allowed(kubectl: Kubectl) -> None:
    """As kubectl prints them."""
    ours = f"system:serviceaccount:{SYSTEM_NAMESPACE}:gpu-fraction-"
    kubectl.apply(pod("web", {keys.REQUEST: "{}"}))
    value = 'a"b' + "c" * 100
    done = kubectl.run("annotate", "pod", "web", f"{keys.ASSIGNED}={value}")
    assert (
        f'{DENIED} request: metadata.annotations[{keys.ASSIGNED}]: "a\\"b{"c" * 61}"... is '
        f"refused, only the system writes it ({ours}scheduler, {ours}node-daemon); "
        "leave it as it is"
    ) in done.stderr
    assert "Error from server (Forbidden)" in done.stderr
    done = kubectl.run("annotate", "pod", "web", f"{keys.REQUEST}-")
    assert (
        f"metadata.annotations[{keys.REQUEST}]: its removal is refused, only the system writes "
        "it, when the pod is created; leave it as it is"
    ) in done.stderr
    done = kubectl.run("label", "--overwrite", "node", NODE, f"{keys.LABEL_COUNT}=64")
    assert (
        f'metadata.labels[{keys.LABEL_COUNT}]: "64" is refused, only the system writes it '
        f"({ours}node-daemon); leave it as it is"
    ) in done.stderr
    kubectl.apply(pod("waits", schedulingGates=[{"name": GATE}]))
    done = kubectl.run("patch", "pod", "waits", "-p", '{"spec":{"schedulingGates":null}}')
    assert (
        f"spec.schedulingGates: the removal of {GATE} is refused, only {ours}controller removes "
        "it; the pod waits for its GPUQuota"
    ) in done.stderr


async def refused(client: ApiClient, path: str, body: object, kind: str = STRATEGIC_PATCH) -> bool:
    """Whether the policy refuses a patch, on a dry run."""
    try:
        await client.patch(path, body, kind, dryRun="All")
    except StatusError as error:
        assert DENIED in error.message, error.message
        return True
    return False


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_only_the_controller_takes_our_gate_away(
    account: str, users: Users, namespace: str
) -> None:
    """Everybody may make a gated pod and take other gates away."""
    client = await users.named(ACCOUNTS[account])
    base = f"/api/v1/namespaces/{namespace}/pods"
    gates = [{"name": GATE}, {"name": OTHER_GATE}]
    await client.create(base, pod("gated", schedulingGates=gates))
    other = {"spec": {"schedulingGates": [{"$patch": "delete", "name": OTHER_GATE}]}}
    assert not await refused(client, f"{base}/gated", other)
    for left in ([{"$patch": "delete", "name": GATE}], None):
        body = {"spec": {"schedulingGates": left}}
        assert await refused(client, f"{base}/gated", body) == (account != "controller")
    removal = {**body, "metadata": {"annotations": {keys.PREFIX + "released": "now"}}}
    assert await refused(client, f"{base}/gated", removal) == (account != "controller")


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize("road", ["", "/status"])
async def test_only_the_node_daemon_writes_the_inventory(
    account: str, road: str, users: Users
) -> None:
    """Annotation and labels, by both roads to a Node, and when a Node is made."""
    client = await users.named(ACCOUNTS[account])
    path = f"/api/v1/nodes/{NODE}{road}"
    stops = account != "node-daemon"
    for field, key in (
        ("annotations", keys.INVENTORY),
        *(("labels", label) for label in inventory_node.LABELS),
    ):
        metadata = {field: {key: "other"}}
        assert await refused(client, path, {"metadata": metadata}) == stops, key
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "new", **metadata}}
        try:
            await client.create("/api/v1/nodes", node, dryRun="All")
            assert not stops
        except StatusError as error:
            assert DENIED in error.message
            assert stops
    for field, key in (("annotations", CLEAR_ANNOTATION), ("labels", "example.com/rack")):
        assert not await refused(client, path, {"metadata": {field: {key: "1"}}}), key


async def test_what_the_system_does_goes_on(
    plane: ControlPlane, users: Users, kubectl: Kubectl, namespace: str
) -> None:
    """Extender, node daemon, kubelet and kube-scheduler, each with no more rights than it has."""
    documents = [
        document
        for folder in ("rbac", "scheduler", "node-daemon")
        for document in YAML(typ="safe").load_all(
            plane.kubectl("kustomize", str(FOLDER.parent / folder))
        )
    ]
    rights = [d for d in documents if "Role" in d["kind"] or d["kind"] == "ServiceAccount"]
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
    plane.kubectl.apply(system, *rights)
    kubectl.apply(*(pod(name, {keys.REQUEST: "{}"}) for name in ("bound", "late", "plain")))
    uids = {
        name: kubectl.json("get", "pod", name)["metadata"]["uid"]
        for name in ("bound", "late", "plain")
    }

    def account(name: str) -> str:
        return str(plane.service_account_kubeconfig(SYSTEM_NAMESPACE, f"gpu-fraction-{name}"))

    async with connect(kubeconfig(account("scheduler")), component="test") as client:
        args = BindingArgs("bound", namespace, uids["bound"], NODE)
        await KubePodApi(client).bind(args, SHARE)
    async with connect(kubeconfig(account("node-daemon")), component="test") as client:
        await ApiAssigner(client).assign(PodRef(namespace, "late", uids["late"]), "{}")
    wanted_node = inventory_node.desired(CARDS)
    patches = inventory_node.diff(inventory_node.NodeFields({}, {}, {}), wanted_node)
    daemon = await users.named(ACCOUNTS["node-daemon"], "system:serviceaccounts")
    await daemon.patch(f"/api/v1/nodes/{NODE}", patches.node)
    await daemon.patch(f"/api/v1/nodes/{NODE}/status", patches.status)

    kubelet = await users.named(f"system:node:{NODE}", "system:nodes")
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    report = {"status": {"conditions": [condition]}}
    await kubelet.patch(f"/api/v1/nodes/{NODE}/status", report, STRATEGIC_PATCH)
    path = f"/api/v1/namespaces/{namespace}/pods"
    await kubelet.patch(f"{path}/bound/status", {"status": {"phase": "Running"}}, STRATEGIC_PATCH)
    scheduler = await users.named("system:kube-scheduler", "system:authenticated")
    target = {"kind": "Node", "name": NODE}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "plain"}}
    await scheduler.create(f"{path}/plain/binding", {**binding, "target": target})

    stored = kubectl.json("get", "pod", "bound")
    assert stored["spec"]["nodeName"] == NODE
    assert keys.ASSIGNED in stored["metadata"]["annotations"]
    assert stored["status"]["phase"] == "Running"
    node = kubectl.json("get", "node", NODE)
    assert keys.INVENTORY in node["metadata"]["annotations"]
    assert node["status"]["capacity"][keys.MEMORY_MIB] == "16384"

    assert kubectl.json("get", "pod", "plain")["spec"]["nodeName"] == NODE
    late = kubectl.json("get", "pod", "late")
    assert late["metadata"]["annotations"][keys.ASSIGNED] == "{}"
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "bound"}}
    await (await users.named("jane")).create(f"{path}/bound/eviction", evict)
