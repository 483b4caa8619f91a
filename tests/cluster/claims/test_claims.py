"""From the annotation to a share of a card, by the stock scheduler and controllers."""

import asyncio
import json
from collections import Counter
from functools import partial
from typing import Any

import msgspec
import pytest

from gpu_fraction.claims.objects import TemplateRecord
from gpu_fraction.claims.overlooked import LOOK_AGAIN
from gpu_fraction.domain import dra, keys
from tests.cluster.claims.rig import GRACE_S, LARGE, RESOURCES, SMALL, Rig
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.policy import Users
from tests.cluster.harness.quota import quota

pytestmark = pytest.mark.needs_kubernetes("1.36")

EDITOR = "jane"
CREATES, FITTING = 200, 10
MANY_MODELS = ",".join([*(f"M{i} x{i}" for i in range(63)), "L4"])
MANY_CARDS = ",".join([*(f"GPU-{i:080}" for i in range(63)), "GPU-small-0"])


def pod(
    name: str, annotations: dict[str, str] | None = None, *containers: str, **spec: Any
) -> dict[str, Any]:
    """A small pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": c, "image": "docker.io/library/busybox:1"}
                for c in containers or ("main",)
            ],
            **spec,
        },
    }


def pods_path(namespace: str) -> str:
    """Of a namespace's pods."""
    return f"/api/v1/namespaces/{namespace}/pods"


def templates_path(namespace: str) -> str:
    """Of a namespace's templates."""
    return f"{RESOURCES}/namespaces/{namespace}/resourceclaimtemplates"


def amounts(result: dict[str, Any]) -> tuple[str, str]:
    """What a claim took of a card."""
    taken = result["consumedCapacity"]
    return taken[dra.CORES], taken[dra.MEMORY_PPM]


async def create(rig: Rig, namespace: str, *manifests: dict[str, Any]) -> None:
    """Pods, one after the other."""
    async with ApiClient(rig.plane.access) as client:
        for manifest in manifests:
            await client.create(pods_path(namespace), manifest)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param({"gpu-fraction": "0.25"}, [("250", "250k")], id="a-quarter"),
        pytest.param({"gpu-fraction": "0.333"}, [("333", "333k")], id="a-third"),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-cores": "0.3"}, [("300", "500k")], id="own-cores"
        ),
        pytest.param({"gpu-fraction": "2"}, [("1k", "1M")] * 2, id="two-whole-cards"),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "3"},
            [("500", "500k")] * 3,
            id="three-halves",
        ),
        pytest.param(
            {"gpu-memory": "10Gi", keys.MODEL: "a100-sxm4"},
            [("125", "125k")],
            id="memory-of-a-model",
        ),
        pytest.param({"gpu-fraction": "0.25", keys.MODEL: "!L4,!T4"}, [("250", "250k")], id="not"),
        pytest.param(
            {"gpu-fraction": "0.25", keys.UUID: "GPU-large-2"}, [("250", "250k")], id="uuid"
        ),
        pytest.param(
            {"gpu-fraction": "0.25", keys.ISOLATION: "required"}, [("250", "250k")], id="isolated"
        ),
        pytest.param(
            {
                "gpu-fraction": "0.25",
                keys.MODEL: ",".join(f"M{i} x{i}" for i in range(63)) + ",L4",
            },
            [("250", "250k")],
            id="64-models",
        ),
        pytest.param(
            {
                "gpu-fraction": "0.25",
                keys.UUID: ",".join(f"GPU-{i:080}" for i in range(63)) + ",GPU-small-0",
            },
            [("250", "250k")],
            id="64-cards",
        ),
    ],
)
async def test_an_annotated_pod_gets_its_share(
    rig: Rig, team: str, annotations: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    """Of different cards, those that it names, and those that enforce it where it says so."""
    await create(rig, team, pod("p", annotations))
    given = await rig.given(team, "p")
    [results] = given.values()
    assert list(given) == ["gpu-fraction-0"]
    assert [amounts(result) for result in results] == expected
    assert len({(r["pool"], r["device"]) for r in results}) == len(expected)
    found = [f"GPU-{r['pool']}-{r['device'][-1]}" for r in results]
    if keys.UUID in annotations:
        assert set(found) <= set(annotations[keys.UUID].split(","))
    if keys.ISOLATION in annotations:
        assert found == ["GPU-large-1"]
    if annotations.get(keys.MODEL, "").startswith(("a100", "!")):
        assert found[0].startswith("GPU-large")
    if annotations.get(keys.MODEL, "").endswith(",L4"):
        assert found[0].startswith("GPU-small")


async def test_memory_is_taken_of_the_smallest_card_that_has_it(rig: Rig, team: str) -> None:
    """Exact MiB on each size; where the small card is full, a large one."""
    await create(
        rig,
        team,
        pod("first", {"gpu-memory": "10Gi"}),
        pod("second", {"gpu-memory": "10Gi"}),
        pod("third", {"gpu-memory": "10Gi"}),
    )
    found: Counter[tuple[str, int]] = Counter()
    for name in ("first", "second", "third"):
        [[result]] = (await rig.given(team, name)).values()
        size = SMALL if result["pool"] == "small" else LARGE
        ppm = result["consumedCapacity"][dra.MEMORY_PPM].replace("k", "000")
        found[result["request"], size * int(ppm) // 10**6] += 1
    assert sum(found.values()) == 3
    assert {mib for _, mib in found} == {10240}
    assert found["gpu/m24576", 10240] == 2


async def test_two_containers_have_claims_of_their_own(rig: Rig, team: str) -> None:
    """Beside a claim of another driver, which stays as it is; that one has no devices."""
    annotations = {keys.CONTAINER_PREFIX + "a": "0.25", keys.CONTAINER_PREFIX + "b": "0.5"}
    await create(rig, team, pod("p", annotations, "a", "b", "c"))
    given = await rig.given(team, "p")
    assert {name: [amounts(r) for r in results] for name, results in given.items()} == {
        "gpu-fraction-0": [("250", "250k")],
        "gpu-fraction-1": [("500", "500k")],
    }


async def test_cards_are_filled_and_never_beyond(rig: Rig, team: str) -> None:
    """Twelve quarters on three cards; the thirteenth waits until one goes."""
    chosen = {"gpu-fraction": "0.25", keys.MODEL: "A100"}
    await create(rig, team, *(pod(f"p{i}", chosen) for i in range(13)))

    def bound(pods: dict[str, Any]) -> list[str]:
        return [name for name, one in pods.items() if "nodeName" in one["spec"]]

    path = pods_path(team)
    pods = await rig.until(path, lambda pods: len(bound(pods)) == 12)
    (waiting,) = pods.keys() - bound(pods)

    def refused(pods: dict[str, Any]) -> bool:
        conditions = pods[waiting]["status"].get("conditions", ())
        return any("cannot allocate all claims" in c.get("message", "") for c in conditions)

    await rig.until(path, refused)
    cards: Counter[tuple[str, str]] = Counter()
    for name in bound(pods):
        [[result]] = (await rig.given(team, name)).values()
        cards[result["pool"], result["device"]] += 250
    assert cards == {("large", f"gpu-{i}"): 1000 for i in range(3)}
    async with ApiClient(rig.plane.access) as client:
        await client.delete(f"{path}/{bound(pods)[0]}")
    await rig.until(path, lambda pods: waiting in bound(pods))


def restored(name: str, uid: str, found: dict[str, Any]) -> bool:
    """Whether there is another object of that name."""
    return name in found and found[name]["metadata"]["uid"] != uid


async def test_the_server_stores_what_was_sent(rig: Rig, team: str) -> None:
    """Else each new leader would replace every template; a deleted one comes back."""
    annotations = {"gpu-memory": "10Gi", keys.ISOLATION: "required", keys.MODEL: "!T4"}
    await create(rig, team, pod("p", annotations), pod("q", {"gpu-fraction": "0.25"}))
    path = templates_path(team)
    found = await rig.until(path, lambda found: len(found) == 2)
    for name, stored in found.items():
        record = msgspec.json.decode(json.dumps(stored), type=TemplateRecord)
        assert record.intact, stored
        assert record.ours
        async with ApiClient(rig.plane.access) as client:
            await client.delete(f"{path}/{name}")
        await rig.until(path, partial(restored, name, stored["metadata"]["uid"]))


async def test_a_pod_waits_for_its_template_while_the_controller_is_away(
    rig: Rig, team: str
) -> None:
    """Kubernetes says so in an event, and the pod goes on by itself."""
    (controller,) = rig.quotas.controllers
    controller.kill()
    try:
        await create(rig, team, pod("p", {"gpu-fraction": "0.125"}))
        events = await rig.until(
            f"/api/v1/namespaces/{team}/events",
            lambda found: any(
                e["reason"] == "FailedResourceClaimCreation" for e in found.values()
            ),
        )
        assert any("gpu-fraction-125c-125m-" in e["message"] for e in events.values())
    finally:
        controller.start()
    await rig.given(team, "p")


async def test_a_deployment_has_its_template_before_its_first_pod(rig: Rig, team: str) -> None:
    """And loses it after the grace, once the Deployment is gone."""
    template = pod("", {"gpu-fraction": "0.062"})
    template["metadata"] = {**template["metadata"], "labels": {"app": "web"}}
    del template["metadata"]["name"]
    del template["spec"]["terminationGracePeriodSeconds"]
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    }
    path = f"/apis/apps/v1/namespaces/{team}/deployments"
    async with ApiClient(rig.plane.access) as client:
        await client.create(path, manifest)
        found = await rig.until(templates_path(team), lambda found: len(found) == 1)
        await client.patch(f"{path}/web", {"spec": {"replicas": 1}})
        pods = await rig.until(
            pods_path(team), lambda pods: any("nodeName" in p["spec"] for p in pods.values())
        )
        [made] = pods.values()
        [claim] = made["spec"]["resourceClaims"]
        assert [claim["resourceClaimTemplateName"]] == list(found)
        await client.delete(f"{path}/web")
        await rig.until(templates_path(team), lambda found: not found, timeout_s=60 + GRACE_S)


def claim_spec(*, device_class: str, listed: bool) -> dict[str, Any]:
    """What a claim asks for, in one of the two forms."""
    one = {"deviceClassName": device_class}
    asked = {"firstAvailable": [{"name": "a", **one}]} if listed else {"exactly": one}
    return {"devices": {"requests": [{"name": "r", **asked}]}}


async def test_claims_by_hand_are_refused_and_others_left_alone(rig: Rig, team: str) -> None:
    """Of our classes: claims, templates, and the resource of a class, by whoever may edit."""
    base = f"{RESOURCES}/namespaces/{team}"
    async with Users(rig.plane) as users:
        jane = await users.named(EDITOR)

        async def refusal(plural: str, kind: str, spec: dict[str, Any]) -> str:
            body = {
                "apiVersion": "resource.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": "mine"},
                "spec": spec,
            }
            try:
                await jane.create(f"{base}/{plural}", body, dryRun="All")
            except StatusError as e:
                assert e.code == 403, e.message
                return str(e.message)
            return ""

        for device_class in ("fraction.gpu-fraction.dev", "whole.gpu-fraction.dev", "other"):
            for listed in (False, True):
                spec = claim_spec(device_class=device_class, listed=listed)
                found = [
                    await refusal("resourceclaims", "ResourceClaim", spec),
                    await refusal(
                        "resourceclaimtemplates", "ResourceClaimTemplate", {"spec": spec}
                    ),
                ]
                if device_class == "other":
                    assert found == ["", ""]
                    continue
                for message in found:
                    assert "policy 'gpu-fraction-claims'" in message.replace("Policy", "policy")
                    assert "put the annotation gpu-fraction on the pod instead" in message
        asking = pod("p")
        asking["spec"]["containers"][0]["resources"] = {
            "limits": {"deviceclass.resource.kubernetes.io/fraction.gpu-fraction.dev": "1"}
        }
        with pytest.raises(StatusError, match="gpu-fraction-class-resources"):
            await jane.create(pods_path(team), asking, dryRun="All")
        asking["spec"]["containers"][0]["resources"] = {
            "limits": {"deviceclass.resource.kubernetes.io/other.example.com": "1"}
        }
        await jane.create(pods_path(team), asking, dryRun="All")


async def test_a_share_is_one_pods_alone(rig: Rig, team: str) -> None:
    """A pod that names another's claim is never scheduled, and says why."""
    await create(rig, team, pod("p", {"gpu-fraction": "0.25"}))
    await rig.given(team, "p")
    [name] = await rig.until(f"{RESOURCES}/namespaces/{team}/resourceclaims", bool)
    thief = pod("thief", resourceClaims=[{"name": "theirs", "resourceClaimName": name}])
    thief["spec"]["containers"][0]["resources"] = {"claims": [{"name": "theirs"}]}
    await create(rig, team, thief)
    events = f"/api/v1/namespaces/{team}/events"

    def told(found: dict[str, Any]) -> bool:
        return any("a GPU share is one pod's alone" in e["message"] for e in found.values())

    await rig.until(events, told)
    pods = await rig.until(pods_path(team), bool)
    assert "nodeName" not in pods["thief"]["spec"]


async def test_the_scheduler_looks_again_at_waiting_pods_after_a_change_of_a_class(
    rig: Rig, team: str
) -> None:
    """What the controller relies on for pods that the scheduler overlooked."""
    await create(rig, team, pod("p", {"gpu-fraction": "8"}))
    path = f"/apis/events.k8s.io/v1/namespaces/{team}/events"

    def tries(events: dict[str, Any]) -> int:
        failed = [e for e in events.values() if e["reason"] == "FailedScheduling"]
        return sum(e.get("series", {}).get("count", 1) for e in failed)

    await rig.until(path, lambda events: tries(events) == 1)
    mark = f"{LOOK_AGAIN}=now"
    rig.plane.kubectl("annotate", "deviceclass", dra.FRACTION_CLASS, mark, "--overwrite")
    await rig.until(path, lambda events: tries(events) == 2)


async def test_a_share_goes_to_nobody_once_its_pod_is_gone(rig: Rig, team: str) -> None:
    """A claim that outlives its pod, or changes its owner, would be a share that nobody pays."""
    await create(rig, team, pod("p", {"gpu-fraction": "0.25"}))
    await rig.given(team, "p")
    path = f"{RESOURCES}/namespaces/{team}/resourceclaims"
    [(name, claim)] = (await rig.until(path, bool)).items()
    assert claim["metadata"]["labels"] == {dra.CHARGED: dra.EXACT}
    thief = pod("thief", resourceClaims=[{"name": "theirs", "resourceClaimName": name}])
    thief["spec"]["containers"][0]["resources"] = {"claims": [{"name": "theirs"}]}
    await create(rig, team, thief)
    found = await rig.until(pods_path(team), lambda pods: len(pods) == 2)
    owner = {**claim["metadata"]["ownerReferences"][0], "uid": found["thief"]["metadata"]["uid"]}
    async with Users(rig.plane) as users:
        jane = await users.named(EDITOR)
        for change in ({"ownerReferences": [owner]}, {"labels": {dra.CHARGED: None}}):
            with pytest.raises(StatusError, match="gpu-fraction-claim-owners"):
                await jane.patch(f"{path}/{name}", {"metadata": change})
        await jane.patch(f"{path}/{name}", {"metadata": {"labels": {"mine": "yes"}}})
    rig.plane.kubectl.within(team)("delete", "pod", "p", "--cascade=orphan")
    await rig.until(path, lambda claims: not claims[name]["metadata"].get("ownerReferences"))
    await rig.until(path, lambda claims: not claims[name]["status"].get("reservedFor"))
    events = f"/api/v1/namespaces/{team}/events"

    def told(found: dict[str, Any]) -> bool:
        return any("a GPU share is one pod's alone" in e["message"] for e in found.values())

    await rig.until(events, told)
    pods = await rig.until(pods_path(team), bool)
    assert "nodeName" not in pods["thief"]["spec"]
    rig.plane.kubectl.within(team)("delete", "resourceclaim", name, "--wait=false")


async def test_a_template_named_by_hand_is_charged_for_what_its_name_says(
    rig: Rig, team: str
) -> None:
    """So a pod without an annotation has no GPU past the quota."""
    await create(rig, team, pod("p", {"gpu-fraction": "0.25"}))
    [name] = await rig.until(templates_path(team), lambda found: len(found) == 1)
    rig.quotas.create(team, hard={"cores": "500m"})
    claims = [{"name": "mine", "resourceClaimTemplateName": name}]
    await create(rig, team, pod("hand", resourceClaims=claims))
    [[result]] = (await rig.given(team, "hand")).values()
    assert amounts(result) == ("250", "250k")
    with pytest.raises(StatusError) as refused:
        await create(rig, team, pod("more", resourceClaims=claims))
    assert "requested: cores=250m, used: cores=500m, limited: cores=500m" in refused.value.message
    status = rig.quotas.wait(team, "team-a", lambda q: q["status"]["used"]["cores"] == "500m")
    assert status["status"]["used"]["gpus"] == "2"


async def test_a_list_of_sizes_is_charged_for_the_one_that_was_chosen(rig: Rig, team: str) -> None:
    """A part of the small card at first, which has more compute than the same of a large one."""
    rig.quotas.create(team, hard={"cores": "1"})
    large = {"kubernetes.io/hostname": "large"}
    await create(rig, team, pod("p", {"gpu-memory": "10Gi"}, nodeSelector=large))
    [[result]] = (await rig.given(team, "p")).values()
    assert (result["request"], amounts(result)[0]) == ("gpu/m81920", "125")
    quota = rig.quotas.wait(team, "team-a", lambda q: q["status"]["used"]["cores"] == "125m")
    assert quota["status"]["used"]["memory"] == "10Gi"


async def test_a_quota_for_10_holds_under_200_concurrent_creates(rig: Rig, team: str) -> None:
    """Exactly 10 pods, all of them bound, and the rest refused by the quota."""
    rig.plane.kubectl.apply(quota("team-a", team, hard={"cores": "1", "memory": "80Gi"}))
    rig.quotas.wait(team, "team-a", lambda q: "used" in q.get("status", {}))
    answers: Counter[str] = Counter()
    async with ApiClient(rig.plane.access) as client:

        async def one(number: int) -> None:
            try:
                await client.create(pods_path(team), pod(f"p{number}", {"gpu-fraction": "0.1"}))
                answers["created"] += 1
            except StatusError as e:
                quota_said = "exceeded GPU quota: team-a, requested: cores=100m" in e.message
                answers["refused" if quota_said else e.message] += 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(CREATES):
                tasks.create_task(one(number))
    assert answers == {"created": FITTING, "refused": CREATES - FITTING}
    await rig.until(
        pods_path(team),
        lambda pods: len(pods) == FITTING and all("nodeName" in p["spec"] for p in pods.values()),
    )
    status = rig.quotas.wait(team, "team-a", lambda q: q["status"]["used"]["cores"] == "1")
    assert status["status"]["used"]["pods"] == "10"
