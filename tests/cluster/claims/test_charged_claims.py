"""``--hand-written-claims=charge`` with ``deploy/claims-charge``."""

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from gpu_fraction.domain import dra
from tests.cluster.claims.rig import DEPLOY, RESOURCES, Rig, charging
from tests.cluster.claims.test_claims import EDITOR, pod, pods_path, templates_path
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.policy import Users

pytestmark = pytest.mark.needs_kubernetes("1.36")

CREATES = 40


@pytest.fixture(scope="module")
def charged(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The rig, while claims by hand are charged."""
    folder = tmp_path_factory.mktemp("charge")
    shutil.copytree(DEPLOY, folder / "deploy")
    (folder / "mine").mkdir()
    with charging(rig.plane, folder / "mine"):
        asyncio.run(_obeyed(rig))
        yield rig


async def _obeyed(rig: Rig) -> None:
    """Wait until the server knows the policy and the webhook."""
    namespace = rig.plane.create_namespace()
    async with asyncio.timeout(60), ApiClient(rig.plane.access) as client:
        while True:
            said = await refusal(client, namespace, claim("probe", allocationMode="All"))
            if "no quota can know" in said:
                return
            await asyncio.sleep(0.1)


def claim(name: str, milli: int = 250, **more: Any) -> dict[str, Any]:
    """A claim by hand for a part of a card."""
    amounts = {dra.CORES: str(milli), dra.MEMORY_PPM: str(1000 * milli)}
    asked = {"deviceClassName": dra.FRACTION_CLASS, "capacity": {"requests": amounts}, **more}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": asked}]}},
    }


def claims_path(namespace: str) -> str:
    """Of a namespace's claims."""
    return f"{RESOURCES}/namespaces/{namespace}/resourceclaims"


def using(name: str, **source: str) -> dict[str, Any]:
    """A pod that uses a claim, or one of a template, that somebody wrote."""
    made = pod(name, resourceClaims=[{"name": "gpu", **source}])
    made["spec"]["containers"][0]["resources"] = {"claims": [{"name": "gpu"}]}
    return made


async def refusal(client: ApiClient, namespace: str, body: dict[str, Any], **query: str) -> str:
    """Why a claim is refused; empty where it is stored."""
    try:
        await client.create(claims_path(namespace), body, **query)
    except StatusError as e:
        return str(e.message)
    return ""


def used(rig: Rig, namespace: str, cores: str) -> None:
    """Wait until the quota's count is that."""
    rig.quotas.wait(namespace, "team-a", lambda q: q["status"]["used"]["cores"] == cores)


async def test_a_claim_is_charged_once_whoever_uses_it(charged: Rig, team: str) -> None:
    """Two pods share it, a third has a claim of a template by hand; each claim is one charge."""
    charged.quotas.create(team, hard={"cores": "750m"})
    async with Users(charged.plane) as users:
        jane = await users.named(EDITOR)
        assert await refusal(jane, team, claim("dry"), dryRun="All") == ""
        assert await refusal(jane, team, claim("shared")) == ""
        for name in ("a", "b"):
            await jane.create(pods_path(team), using(name, resourceClaimName="shared"))
        template = {"metadata": {"name": "mine"}, "spec": {"spec": claim("", 500)["spec"]}}
        await jane.create(templates_path(team), template)
        await jane.create(pods_path(team), using("c", resourceClaimTemplateName="mine"))
        await charged.until(
            pods_path(team), lambda pods: all("nodeName" in p["spec"] for p in pods.values())
        )
        used(charged, team, "750m")
        said = await refusal(jane, team, claim("more"))
        assert "exceeded GPU quota: team-a, requested: cores=250m, used: cores=750m" in said
        await jane.create(pods_path(team), using("d", resourceClaimTemplateName="mine"))
        events = f"/api/v1/namespaces/{team}/events"

        def told(found: dict[str, Any]) -> bool:
            return any(
                e["reason"] == "FailedResourceClaimCreation"
                and "exceeded GPU quota: team-a" in e["message"]
                for e in found.values()
            )

        await charged.until(events, told)
        for name in ("a", "b"):
            await jane.delete(f"{pods_path(team)}/{name}")
        await charged.until(pods_path(team), lambda pods: pods.keys() == {"c", "d"})
        await jane.delete(f"{claims_path(team)}/shared")
        used(charged, team, "500m")
        with contextlib.suppress(StatusError):
            await jane.delete(f"{pods_path(team)}/d")
        await jane.delete(f"{pods_path(team)}/c")
    used(charged, team, "0")


async def test_an_annotated_pod_and_its_claim_are_charged_once(charged: Rig, team: str) -> None:
    """And nobody else can say that a claim's pod is charged."""
    charged.quotas.create(team, hard={"cores": "250m"})
    async with Users(charged.plane) as users:
        jane = await users.named(EDITOR)
        await jane.create(pods_path(team), pod("p", {"gpu-fraction": "0.25"}))
        await charged.given(team, "p")
        used(charged, team, "250m")
        labelled = claim("free")
        labelled["metadata"]["labels"] = {dra.CHARGED: dra.EXACT}
        assert "the label gpu-fraction.dev/charged" in await refusal(jane, team, labelled)
        template = {
            "metadata": {"name": "free"},
            "spec": {"metadata": {"labels": {dra.CHARGED: "x"}}, "spec": labelled["spec"]},
        }
        with pytest.raises(StatusError, match=r"the label gpu-fraction[.]dev/charged"):
            await jane.create(templates_path(team), template)
        said = await refusal(jane, team, claim("all", allocationMode="All"))
        assert "allowed: ExactCount with a count" in said


async def test_concurrent_claims_never_exceed_the_quota(charged: Rig, team: str) -> None:
    """Beside pods that want the same budget."""
    charged.quotas.create(team, hard={"cores": "1"})
    answers: Counter[str] = Counter()
    async with ApiClient(charged.plane.access) as client:

        async def one(number: int) -> None:
            try:
                if number % 2:
                    await client.create(claims_path(team), claim(f"c{number}", 100))
                else:
                    made = pod(f"p{number}", {"gpu-fraction": "0.1"})
                    await client.create(pods_path(team), made)
                answers["created"] += 1
            except StatusError as e:
                said = "exceeded GPU quota: team-a, requested: cores=100m" in e.message
                answers["refused" if said else e.message] += 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(CREATES):
                tasks.create_task(one(number))
        assert answers == {"created": 10, "refused": CREATES - 10}
        used(charged, team, "1")
        claims = (await client.get(claims_path(team)))["items"]
        for by_hand in [c for c in claims if dra.CHARGED not in c["metadata"].get("labels", {})]:
            await client.delete(f"{claims_path(team)}/{by_hand['metadata']['name']}")
