"""A namespace's admin, with a certificate alone, tries each line of the threat model."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gpu_fraction.domain import dra, keys
from tests.builders.pods import container
from tests.cluster.harness.api_client import MERGE_PATCH, ApiClient, StatusError
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubeconfig import Access
from tests.cluster.harness.policy import policy_installed
from tests.cluster.harness.ports import listens
from tests.cluster.harness.quota import Quotas, quotas_installed
from tests.cluster.harness.waiting import wait_for
from tests.cluster.hostile_attempts import (
    ATTEMPTS,
    CLAIM,
    CLAIM_GROUP,
    COUNT_LABELS,
    DEBUGGER,
    GATE,
    LOCK,
    NODE,
    OTHER,
    OWN,
    OWNER,
    PODS,
    QUARTER,
    RBAC,
    SUBRESOURCES,
    SYSTEM,
    TENANT,
    THEIRS,
    Attempt,
    base,
    pod,
)

pytestmark = pytest.mark.needs_kubernetes("1.36")

DEPLOY = Path(__file__).parents[2] / "deploy"
LINES = sorted({attempt.line for attempt in ATTEMPTS}, key=lambda line: int(line[1:]))
MAKER = "system:serviceaccount:kube-system:resource-claim-controller"
LONGEST_REASON = 2300
"""The webhook's 2000 characters, with the words of the API server around them."""

READY_S = 60
CRITICAL = "system-node-critical"
UNREACHED = "failed calling webhook"
MEANT = ("plain", "gpu", "required", "gated", *(key.partition(".")[0] for key in COUNT_LABELS))
"""The tenant's pods."""


def tenants_pods() -> Iterator[dict[str, Any]]:
    """What the tenant may make."""
    yield pod("plain", {"note": "of the tenant's"})
    yield pod("gpu", QUARTER)
    user = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    required = {**QUARTER, keys.ISOLATION: "required"}
    yield pod("required", required, container(securityContext=user))
    yield pod("gated", schedulingGates=[{"name": GATE}])
    for label, resource in COUNT_LABELS.items():
        made = pod(label.partition(".")[0], None, container(resources={resource: "16"}))
        made["metadata"]["labels"] = {label: "4"}
        yield made


@pytest.fixture(scope="module")
def quotas(own_control_plane: ControlPlane) -> Iterator[Quotas]:
    """Webhook, controller, policies and classes, and what the tenant finds there."""
    plane = own_control_plane
    kubectl = plane.kubectl
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    for namespace in (OWN, OTHER):
        kubectl("create", "namespace", namespace)
        plane.wait_for_account(namespace)
    kubectl.apply({**node, "spec": {"unschedulable": True}})
    users = (f"--user={TENANT}", f"--user={DEBUGGER}")
    kubectl.within(OWN)("create", "rolebinding", "tenant", "--clusterrole=admin", *users)
    kubectl.within(OWN).apply(*_debuggers_rights())
    try:
        with (
            policy_installed(plane),
            quotas_installed(plane, replicas=1, controllers=1) as running,
        ):
            kubectl("apply", "-f", str(DEPLOY / "crd" / "view.yaml"))
            kubectl("apply", "-f", str(DEPLOY / "dra" / "device-classes.yaml"))
            kubectl("apply", "-k", str(DEPLOY / "claims"), "--validate=strict")
            running.create(OWN, "budget", hard={"gpus": 16})
            running.create(OTHER, "budget", hard={"gpus": 16})
            kubectl.within(OTHER).apply(_theirs())
            asyncio.run(_prepare(plane))
            yield running
    finally:
        kubectl("delete", "-k", str(DEPLOY / "claims"), "--ignore-not-found")
        kubectl("delete", "node", NODE)
        kubectl("delete", "namespace", OWN, OTHER, "--wait=false")


def _debuggers_rights() -> Iterator[dict[str, Any]]:
    rules = [
        {"apiGroups": [group], "resources": [*found], "verbs": ["*"]}
        for group, found in SUBRESOURCES.items()
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "subresources"}
    head = {"apiVersion": RBAC, "metadata": {"name": "subresources"}}
    subjects = [{"kind": "User", "name": DEBUGGER}]
    yield {**head, "kind": "Role", "rules": rules}
    yield {**head, "kind": "RoleBinding", "roleRef": role, "subjects": subjects}


def _theirs() -> dict[str, Any]:
    made = pod(THEIRS, QUARTER)
    made["metadata"]["namespace"] = OTHER
    return made


async def _prepare(plane: ControlPlane) -> None:
    """The tenant's own pods, and a claim that Kubernetes made; once all of it is obeyed."""
    as_maker = ApiClient(plane.access, MAKER, "system:masters")
    async with client_of(plane) as tenant, as_maker as maker:
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    await tenant.get(base(OWN, "gpu-fraction.dev/v1alpha1") + "/gpuquotas")
                    break
                except StatusError:
                    await asyncio.sleep(0.1)
        for one in tenants_pods():
            await tenant.create(PODS, one)
        claims = f"{base(OWN, CLAIM_GROUP)}/resourceclaims"
        asked = {"exactly": {"deviceClassName": dra.FRACTION_CLASS}}
        uid = (await tenant.get(f"{PODS}/gpu"))["metadata"]["uid"]
        claim = {
            "metadata": {
                "name": CLAIM,
                "labels": {dra.CHARGED: dra.EXACT},
                "ownerReferences": [{**OWNER, "uid": uid}],
            },
            "spec": {"devices": {"requests": [{"name": "r", **asked}]}},
        }
        await maker.create(claims, claim)
        async with asyncio.timeout(READY_S):
            while await refusal(tenant, _probe(claim)) == "":
                await asyncio.sleep(0.1)


def _probe(claim: dict[str, Any]) -> Attempt:
    body = {"metadata": {"name": "probe"}, "spec": claim["spec"]}
    path = f"{base(OWN, CLAIM_GROUP)}/resourceclaims"
    return Attempt("", "", "POST", path, body, "", query={"dryRun": "All"})


def client_of(plane: ControlPlane, user_name: str = TENANT) -> ApiClient:
    """A user's client: a certificate of no group."""
    certificate, key = plane.authority.issue(f"hostile-{user_name}", user_name)
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    return ApiClient(Access(plane.access.server, plane.access.authority, user))


@pytest.fixture
async def tenants(quotas: Quotas) -> AsyncIterator[dict[str, ApiClient]]:
    """Kubernetes' role admin in one namespace, and subresources for one of the two."""
    one, other = (client_of(quotas.plane, name) for name in (TENANT, DEBUGGER))
    async with one, other:
        yield {TENANT: one, DEBUGGER: other}


async def refusal(client: ApiClient, attempt: Attempt) -> str:
    """Code and words of a refusal; empty where there is none."""
    options = {"content_type": attempt.kind, **attempt.query}
    try:
        await client.request(attempt.method, attempt.path, attempt.body, **options)
    except StatusError as e:
        return f"{e.code} {e.message}"
    return ""


@pytest.mark.parametrize("line", LINES)
async def test_the_tenant_is_refused_and_told_why(
    line: str, tenants: dict[str, ApiClient], client: ApiClient
) -> None:
    """Each attempt of the line; afterwards there is what there was."""
    found = [(a, await refusal(tenants[a.by], a)) for a in ATTEMPTS if a.line == line]
    wrong = {
        a.what: said[:LONGEST_REASON]
        for a, said in found
        if a.said not in said or not said.startswith(f"{a.code} ") or len(said) > LONGEST_REASON
    }
    assert wrong == {}
    pods = await client.get(PODS)
    assert {one["metadata"]["name"] for one in pods["items"]} == set(MEANT)


async def test_a_pod_of_many_annotations_can_be_changed_and_deleted(
    tenants: dict[str, ApiClient],
) -> None:
    """T4: no expression of ours costs the API server more than it allows."""
    tenant, path = tenants[TENANT], f"{PODS}/many"
    await tenant.create(PODS, pod("many", {f"{n:x}": "" for n in range(45_000)}))
    await tenant.patch(path, {"metadata": {"labels": {"a": "b"}}})
    said = await refusal(tenant, assigning("many"))
    assert LOCK in said, said
    await tenant.delete(path, gracePeriodSeconds="0")


async def test_nothing_opens_while_the_webhook_is_down(
    quotas: Quotas, tenants: dict[str, ApiClient]
) -> None:
    """T5: what the webhook would refuse fails at calling it, or the policy refuses it first."""
    webhook = quotas.admission.replicas[0]
    lines = ("T1", "T2", "T3", "T6", "T8", "T12", "T15", "T20", "T22")
    webhook.kill()
    try:
        found = [(a, await refusal(tenants[a.by], a)) for a in ATTEMPTS if a.line in lines]
    finally:
        webhook.start()
        await asyncio.to_thread(wait_for, lambda: listens("127.0.0.1", port_of(quotas)))
    wrong = {a.what: told for a, told in found if a.said not in told and UNREACHED not in told}
    assert wrong == {}
    assert any(UNREACHED in told for _, told in found)
    assert any(LOCK in told for _, told in found)


async def test_the_api_server_carries_no_review_to_the_webhook(
    quotas: Quotas, tenants: dict[str, ApiClient]
) -> None:
    """T25: by a Service of the tenant's that names the webhook's."""
    tenant, host = tenants[TENANT], f"gpu-fraction-webhook.{SYSTEM}.svc"
    spec = {"type": "ExternalName", "externalName": host, "ports": [{"port": port_of(quotas)}]}
    mirror = {"metadata": {"name": "mirror"}, "spec": spec}
    await tenant.create(f"{base(OWN)}/services", mirror)
    for port in ("", ":443", f":{port_of(quotas)}"):
        path = f"{base(OWN)}/services/https:mirror{port}/proxy/validate"
        said = await refusal(tenant, Attempt("T25", port, "POST", path, {}, ""))
        assert said.startswith("503 no "), said


async def test_a_forged_review_takes_room_for_a_while_and_frees_none(
    quotas: Quotas,
) -> None:
    """N1: what a pod does that reaches the port, where no NetworkPolicy keeps it away."""
    before = quotas.get(OTHER, "budget")["status"]
    assert await forged(quotas, "CREATE", cards=16) == (False, "exceeded GPU quota: budget")
    assert await forged(quotas, "DELETE", cards=1) == (True, "")
    assert await forged(quotas, "CREATE", cards=2) == (True, "")
    after = quotas.get(OTHER, "budget")["status"]
    assert after["used"] == before["used"]
    new = [one for one in after["reserved"] if one not in before.get("reserved", [])]
    assert [one["gpus"] for one in new] == ["2"], new


async def test_a_quota_can_refuse_priorities_that_evict_others(
    quotas: Quotas, tenants: dict[str, ApiClient]
) -> None:
    """N6: Kubernetes lets a tenant name any class."""
    critical = pod("critical", QUARTER, priorityClassName=CRITICAL)
    attempt = Attempt("N6", "", "POST", PODS, critical, "", query={"dryRun": "All"})
    assert await refusal(tenants[TENANT], attempt) == ""
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": [CRITICAL]}
    quotas.create(OWN, "critical", hard={"pods": 0}, scopeSelector={"matchExpressions": [scope]})
    said = await refusal(tenants[TENANT], attempt)
    assert "exceeded GPU quota: critical, requested: pods=1" in said


async def forged(quotas: Quotas, operation: str, cards: int) -> tuple[bool, str]:
    """A review that no API server asks for: the verdict, and the beginning of its message."""
    resources = {"nvidia.com/gpu": str(cards)}
    made = pod("forged", None, container(resources=resources))
    made["metadata"] |= {"namespace": OTHER, "uid": f"forged-{cards}"}
    request = {
        "uid": "u",
        "operation": operation,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": OTHER,
        "name": "forged",
        "userInfo": {"username": "system:admin"},
        "object" if operation == "CREATE" else "oldObject": made,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    url = f"https://127.0.0.1:{port_of(quotas)}/validate"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=review, ssl=False) as answer,
    ):
        verdict = (await answer.json())["response"]
    return verdict["allowed"], verdict.get("status", {}).get("message", "").partition(",")[0]


def port_of(quotas: Quotas) -> int:
    """The webhook's."""
    return int(str(quotas.admission.replicas[0].argv[-1]))


def assigning(name: str) -> Attempt:
    """A system annotation on a pod."""
    body = {"metadata": {"annotations": {keys.ASSIGNED: "{}"}}}
    return Attempt("T4", "", "PATCH", f"{PODS}/{name}", body, LOCK, MERGE_PATCH)
