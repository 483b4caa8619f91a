"""GPUQuotas on a real API server: never exceeded, whoever dies meanwhile."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.quota import TTL_S, Quotas, condition, quota, quotas_installed

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quotas")]

CREATES = 200
FITTING = 10


@pytest.fixture(scope="module")
def quotas(own_control_plane: ControlPlane) -> Iterator[Quotas]:
    """Two webhook replicas, two controllers, tokens of their own accounts."""
    with quotas_installed(own_control_plane) as running:
        yield running


def pod(name: str, fraction: str = "0.1") -> dict[str, Any]:
    """A pod that asks for a share."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {"gpu-fraction": fraction}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "docker.io/library/busybox:1"}],
        },
    }


def requiring(**requirement: Any) -> dict[str, Any]:
    """A specification that counts only pods of some priority classes."""
    return {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", **requirement}]}}


async def create_all(client: ApiClient, namespace: str, count: int) -> Counter[str]:
    """Create that many pods at once; how often each answer came."""
    answers: Counter[str] = Counter()

    async def create(number: int) -> None:
        try:
            await client.create(f"/api/v1/namespaces/{namespace}/pods", pod(f"p{number}"))
            answers["created"] += 1
        except StatusError as e:
            # How many of the ten pods are counted by then is a matter of milliseconds.
            answers[
                re.sub(r"used: .*, limited", "used: ..., limited", f"{e.code} {e.message}")
            ] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(create(number), name=f"create-{number}")
    return answers


REFUSED = (
    '403 admission webhook "validate.gpu-fraction.dev" denied the request: '
    "exceeded GPU quota: team-a, requested: cores=100m, used: ..., limited: cores=1"
)


async def test_200_concurrent_creates_against_a_quota_for_10(
    quotas: Quotas, client: ApiClient, namespace: str
) -> None:
    """Exactly 10 pods, 190 refusals with the exact sentence, nothing else."""
    quotas.create(namespace, hard={"cores": "1"})
    answers = await create_all(client, namespace, CREATES)
    assert answers == {"created": FITTING, REFUSED: CREATES - FITTING}
    pods = await client.get(f"/api/v1/namespaces/{namespace}/pods")
    assert len(pods["items"]) == FITTING
    status = quotas.wait(namespace, "team-a", lambda q: q["status"]["used"]["cores"] == "1")[
        "status"
    ]
    assert status["used"]["pods"] == "10"


async def test_a_replica_killed_in_the_middle_breaks_no_budget(
    quotas: Quotas, client: ApiClient, namespace: str
) -> None:
    """Never more than 10 pods; whoever was refused by a dead replica may come again."""
    quotas.create(namespace, hard={"cores": "1"})
    victim = quotas.admission.replicas[0]
    loop = asyncio.get_running_loop()

    async def kill() -> None:
        await asyncio.sleep(0.3)
        await loop.run_in_executor(None, victim.kill)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kill(), name="kill")
        first = tasks.create_task(create_all(client, namespace, CREATES), name="creates")
    victim.start()
    quotas.admission.wait_listening(victim)
    pods = await client.get(f"/api/v1/namespaces/{namespace}/pods")
    assert len(pods["items"]) == first.result()["created"] <= FITTING
    # Reservations of a dead replica end; then the budget can be filled to the brim.
    deadline = time.monotonic() + TTL_S + 30
    created = len(pods["items"])
    while created < FITTING and time.monotonic() < deadline:
        await asyncio.sleep(1)
        try:
            await client.create(f"/api/v1/namespaces/{namespace}/pods", pod(f"later{created}"))
            created += 1
        except StatusError as e:
            assert e.code == 403, e
    assert created == FITTING
    with pytest.raises(StatusError, match="exceeded GPU quota"):
        await client.create(f"/api/v1/namespaces/{namespace}/pods", pod("one-too-many"))


async def test_a_create_that_fails_later_leaves_nothing_behind(
    quotas: Quotas, client: ApiClient, namespace: str
) -> None:
    """Creates that end with AlreadyExists take no room from other pods; no reservation stays."""
    quotas.create(namespace, hard={"cores": "200m"})
    path = f"/api/v1/namespaces/{namespace}/pods"
    await client.create(path, pod("same"))
    quotas.wait(namespace, "team-a", lambda q: q["status"]["used"]["cores"] == "100m")
    for _ in range(2):
        with pytest.raises(StatusError, match="already exists"):
            await client.create(path, pod("same"))
    quotas.wait(
        namespace,
        "team-a",
        lambda q: all(r.get("counted") for r in q["status"].get("reserved") or ()),
    )
    await client.create(path, pod("other"))
    with pytest.raises(StatusError, match="exceeded GPU quota"):
        await client.create(path, pod("third"))
    quotas.wait(
        namespace, "team-a", lambda q: not q["status"].get("reserved"), timeout_s=TTL_S + 15
    )


async def test_a_controller_that_restarts_changes_nothing(
    quotas: Quotas, client: ApiClient, namespace: str
) -> None:
    """Both controllers killed and started again among 2,000 pods: not one write."""
    quotas.create(namespace, hard={"cores": "1000", "memory": "100Ti"})
    await _fill(client, namespace, 2000)
    before = quotas.wait(
        namespace, "team-a", lambda q: q["status"]["used"]["pods"] == "2000", timeout_s=180
    )
    for controller in quotas.controllers:
        controller.kill()
        controller.start()
    await asyncio.sleep(8)  # past the lease of the dead and a count by the new
    after = quotas.get(namespace)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert after["status"] == before["status"]


async def _fill(client: ApiClient, namespace: str, count: int) -> None:
    """Create that many pods, some at a time."""
    for start in range(0, count, 100):
        async with asyncio.TaskGroup() as tasks:
            for number in range(start, start + 100):
                manifest = pod(f"p{number}")
                tasks.create_task(
                    client.create(f"/api/v1/namespaces/{namespace}/pods", manifest),
                    name=f"create-{number}",
                )


def deployment(name: str, replicas: int) -> dict[str, Any]:
    """A Deployment of pods with a share each."""
    template = pod(name)
    template["metadata"] = {
        "labels": {"app": name},
        "annotations": template["metadata"]["annotations"],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": template["metadata"],
                "spec": {
                    "containers": template["spec"]["containers"],
                },
            },
        },
    }


async def test_a_blocked_deployment_comes_up_when_quota_is_freed(
    quotas: Quotas, kubectl: Kubectl, client: ApiClient, namespace: str
) -> None:
    """Within seconds, although the ReplicaSet's own next try is far off by then."""
    quotas.create(namespace, hard={"cores": "300m"})
    kubectl.apply(pod("holder", "0.3"))
    kubectl.apply(deployment("blocked", 3))
    # Long enough for the ReplicaSet's back-off to have grown past ten seconds.
    await asyncio.sleep(25)
    assert len((await client.get(f"/api/v1/namespaces/{namespace}/pods"))["items"]) == 1
    kubectl("delete", "pod", "holder", "--wait=false")

    def up(pods: Mapping[str, Any]) -> bool:
        return len([p for p in pods["items"] if p["metadata"]["name"] != "holder"]) == 3

    # Below that back-off, which the re-drive goes past: its next try comes after 41 s.
    await client.wait_for(f"/api/v1/namespaces/{namespace}/pods", up, timeout_s=13)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"enforcement": "Never"}, "spec.enforcement"),
        ({"hard": {"memory": 160}}, "a plain number counts bytes; write a unit"),
        (requiring(scopeName="Terminating", operator="Exists"), "].scopeName: Unsupported value"),
        (requiring(operator="Equals"), "].operator: Unsupported value"),
        (requiring(operator="In"), "In and NotIn need at least one value"),
        (requiring(operator="NotIn", values=[]), "In and NotIn need at least one value"),
        (requiring(operator="Exists", values=["a"]), "Exists and DoesNotExist take none"),
    ],
)
def test_the_server_refuses_what_the_schema_can_say(
    wrong: dict[str, Any], said: str, quotas: Quotas, namespace: str
) -> None:
    """Nothing checks it again: such a quota would count other pods than it says."""
    bad = quota("bad", namespace, **{"hard": {}, **wrong})
    assert said in quotas.plane.kubectl.run("create", "-f", "-", stdin=bad).stderr


def test_the_condition_ready_says_what_the_schema_cannot(
    quotas: Quotas, kubectl: Kubectl, namespace: str
) -> None:
    """Such a quota refuses every pod."""
    crossed = {"max": {"cores": "1"}, "min": {"cores": "2"}}
    quotas.plane.kubectl.apply(quota("crossed", namespace, hard={}, perPod=crossed))
    found = quotas.wait(namespace, "crossed", lambda q: condition(q, "Ready") == "False")
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert ready["reason"] == "InvalidSpec"
    assert "spec.perPod.min.cores" in ready["message"]
    denied = kubectl.run("create", "-f", "-", stdin=pod("pod"))
    assert "GPU quota crossed is invalid: spec.perPod.min.cores" in denied.stderr


def test_lowering_a_budget_evicts_nobody_and_says_so(
    quotas: Quotas, kubectl: Kubectl, namespace: str
) -> None:
    """The pod stays, the condition Exceeded says why nothing new fits."""
    quotas.create(namespace, hard={"cores": "1"})
    kubectl.apply(pod("kept", "0.5"))
    quotas.wait(namespace, "team-a", lambda q: q["status"]["used"]["cores"] == "500m")
    kubectl("patch", "gpuq", "team-a", "--type=merge", "-p", '{"spec":{"hard":{"cores":"100m"}}}')
    found = quotas.wait(namespace, "team-a", lambda q: condition(q, "Exceeded") == "True")
    exceeded = next(c for c in found["status"]["conditions"] if c["type"] == "Exceeded")
    assert "running pods continue" in exceeded["message"]
    assert kubectl("get", "pods", "-o", "name").strip() == "pod/kept"


def test_describe_explains(quotas: Quotas, kubectl: Kubectl, namespace: str) -> None:
    """Pod, quota and ReplicaSet say what happened and to whom."""
    quotas.create(namespace, hard={"cores": "500m", "memory": "40Gi", "gpus": 2})
    kubectl.apply(pod("notebook", "0.25"))
    kubectl.apply(deployment("trainer", 4))

    def told() -> bool:
        words = {"gpuq": "GPUQuotaExceeded", "pod/notebook": "GPUAssigned", "rs": "FailedCreate"}
        return all(word in kubectl("describe", about) for about, word in words.items())

    deadline = time.monotonic() + 90
    while not told():
        assert time.monotonic() < deadline, kubectl("get", "events")
        time.sleep(0.2)
    printed = kubectl("describe", "gpuq")
    assert "refused a pod of ReplicaSet trainer-" in printed


@pytest.mark.parametrize(
    ("account", "forbidden"),
    [
        ("webhook", ("update", "pods")),
        ("webhook", ("patch", "gpuquotas.gpu-fraction.dev")),
        ("webhook", ("update", "gpuquotas.gpu-fraction.dev")),
        ("webhook", ("get", "secrets")),
        ("controller", ("patch", "replicasets.apps")),
        ("controller", ("patch", "deployments.apps")),
        ("controller", ("patch", "pods")),
        ("controller", ("create", "pods")),
        ("controller", ("get", "secrets")),
        ("controller", ("update", "leases.coordination.k8s.io")),
    ],
)
def test_the_accounts_may_not_do_more(
    kubectl: Kubectl, account: str, forbidden: tuple[str, str]
) -> None:
    """What the components do they do with these accounts; this they could not."""
    user = f"system:serviceaccount:gpu-fraction-system:gpu-fraction-{account}"
    asked = kubectl.run("auth", "can-i", *forbidden, f"--as={user}")
    assert asked.stdout.strip() == "no", asked.stderr
