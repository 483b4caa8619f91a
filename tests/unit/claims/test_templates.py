"""The controller of templates on the project's own API server, over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import jsonpatch
import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.claims import service
from gpu_fraction.claims.objects import MANAGED
from gpu_fraction.claims.service import TemplateService
from gpu_fraction.claims.settings import Mode, TemplateOptions
from gpu_fraction.domain import claim_template, keys
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.backends.dra import Dra
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.stack import BackendConfig
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import (
    CLAIM_TEMPLATES,
    CRON_JOBS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    Resource,
)
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.quota.pods import PodRecord
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault
from gpu_fraction.sandbox.apiserver.kinds import Kind
from tests.builders.pods import Raw, container, pod, typed
from tests.support.access import fixed

COSTS = BackendConfig(CardSizes(None, {"L4": 24576, "A100-80GB": 81920}))
QUARTER = {"gpu-fraction": "0.25"}
Lead = Callable[[], Coroutine[Any, Any, None]]
JOB_SETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")


def rendered(name: str, annotations: Mapping[str, str] = QUARTER, **spec: Any) -> Raw:
    """A pod after the webhook."""
    raw = pod(annotations, **spec)
    raw["metadata"]["name"] = name
    operations = admit(typed(raw), Dra(COSTS), Rules()).operations
    made: Raw = jsonpatch.JsonPatch(operations).apply(raw)
    return made


def named(raw: Raw) -> str:
    """The template of a pod's only claim."""
    (claim,) = raw["spec"]["resourceClaims"]
    found: str = claim["resourceClaimTemplateName"]
    return found


def workload(resource: Resource, spec: Raw, name: str = "web") -> Raw:
    """A workload."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": spec,
    }


def template_of(annotations: Mapping[str, str] = QUARTER) -> Raw:
    """A pod template as its author writes it."""
    made = pod(annotations, container())
    return {"metadata": {"annotations": made["metadata"]["annotations"]}, "spec": made["spec"]}


class World:
    """The server, and the service while it leads."""

    def __init__(self, server: ApiServer, client: Client, lead: Lead) -> None:
        self.server = server
        self.client = client
        self._lead = lead
        self._leading: asyncio.Task[None] | None = None

    def lead(self) -> None:
        """Begin to lead."""
        self._leading = asyncio.create_task(self._lead())

    async def lose(self) -> None:
        """Lead no longer."""
        if self._leading is not None:
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)

    async def templates(self, namespace: str = "team-a") -> dict[str, Raw]:
        """Those that exist, by name."""
        listed = await self.client.list(CLAIM_TEMPLATES.at(namespace=namespace), dict[str, Any])
        return {item["metadata"]["name"]: item for item in listed.items}

    async def until(
        self, holds: Callable[[dict[str, Raw]], object], namespace: str = "team-a"
    ) -> dict[str, Raw]:
        """The templates, once something holds of them."""
        async with asyncio.timeout(10):
            while not holds(found := await self.templates(namespace)):
                await asyncio.sleep(0.01)
        return found

    async def never(self, holds: Callable[[dict[str, Raw]], object]) -> None:
        """A template that comes after is there, so what was asked before was judged."""
        last = rendered("last", {"gpu-fraction": "0.999"})
        self.server.add(last)
        assert not holds(await self.until(lambda found: named(last) in found))

    def remove(self, name: str) -> None:
        """Delete a template behind the controller's back."""
        self.server.remove(CLAIM_TEMPLATES, name, "team-a")


@asynccontextmanager
async def world(
    mode: Mode = "all", grace_s: float = 1000, *objects: Raw, kinds: tuple[Kind, ...] = ()
) -> AsyncIterator[World]:
    """A server with objects, and a service that leads."""
    server = ApiServer(kinds=kinds)
    server.add_namespace("team-a")
    server.add(*objects)
    retry = RetryPolicy(Backoff(initial_s=0.01, cap_s=0.05))
    source = fixed(Access(server.url))
    async with server.serve():
        source = fixed(Access(server.url))
        async with connect(source, component="test", retry=retry) as client:
            options = TemplateOptions(dra=mode, dra_template_grace_s=grace_s)
            made = TemplateService(client, options, costs=COSTS, registry=CollectorRegistry())
            pods = Reflector(client, PODS.at(), PodRecord)
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(pods.run())
                here = World(server, client, partial(made.run, pods))
                here.lead()
                yield here
                await here.lose()
                watch.cancel()


@pytest.mark.parametrize(
    "annotations",
    [
        QUARTER,
        {"gpu-fraction": "2"},
        {"gpu-memory": "8Gi"},
        {
            "gpu-memory": "8Gi",
            "gpu-cores": "0.3",
            keys.MODEL: "A100 80GB",
            keys.ISOLATION: "required",
        },
        {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2", keys.UUID: "GPU-1,GPU-2,MIG-3"},
    ],
)
async def test_a_pod_gets_its_template(annotations: dict[str, str]) -> None:
    """Whether it was there before the controller or comes later; the pod alone tells it."""
    early = rendered("early", annotations)
    async with world("labelled", 1000, early) as made:
        found = (await made.until(lambda found: found))[named(early)]
        assert claim_template.proves(named(early), found["spec"])
        assert found["metadata"]["labels"] == MANAGED
        late = rendered("late", {**annotations, keys.PLACEMENT: "binpack", keys.ISOLATION: "none"})
        made.server.add(late)
        await made.until(lambda found: named(late) in found)


async def test_sizes_of_other_settings_are_those_in_the_name() -> None:
    """The webhook may have been told of new cards before the controller."""
    raw = pod({"gpu-memory": "8Gi"})
    newer = Dra(BackendConfig(CardSizes(143771)))
    made_pod: Raw = jsonpatch.JsonPatch(admit(typed(raw), newer, Rules()).operations).apply(raw)
    async with world("all", 1000, made_pod) as made:
        found = await made.until(lambda found: found)
        assert list(found) == [named(made_pod)]
        assert claim_template.proves(named(made_pod), found[named(made_pod)]["spec"])


async def test_equal_shares_are_one_template_in_each_namespace() -> None:
    """However many pods."""
    async with world() as made:
        made.server.add_namespace("team-b")
        made.server.add(*(rendered(f"p{i}") for i in range(5)))
        other = rendered("q")
        other["metadata"]["namespace"] = "team-b"
        made.server.add(other)
        await made.until(lambda found: found, "team-b")
        assert len(await made.until(lambda found: found)) == 1
        creates = [call for call in made.server.calls if call[0] == "create"]
        assert len(creates) == 2


async def test_a_name_that_does_not_follow_from_the_request_gets_no_template() -> None:
    """Written by hand: without a request, with another, or with an unreadable one."""
    bare, other, broken = rendered("bare"), rendered("other"), rendered("broken")
    del bare["metadata"]["annotations"]
    other["metadata"]["annotations"] = rendered("x", {"gpu-fraction": "0.5"})["metadata"][
        "annotations"
    ]
    broken["metadata"]["annotations"][keys.REQUEST] = "{"
    async with world("all", 1000, bare, other, broken) as made:
        await made.never(lambda found: named(bare) in found)


async def test_a_deleted_template_is_restored_while_it_is_needed() -> None:
    """By whomever it was deleted, and also where only a pod by hand is left beside a workload."""
    raw = rendered("p")
    async with world("all", 1000, raw) as made:
        await made.until(lambda found: found)
        for _ in range(2):
            made.remove(named(raw))
            await made.until(lambda found: named(raw) in found)


async def test_what_is_not_its_name_says_is_replaced() -> None:
    """Made before the policy was installed, with our label or without."""
    for labels in ({}, MANAGED):
        raw = rendered("p")
        forged = {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": named(raw), "namespace": "team-a", "labels": labels},
            "spec": {"spec": {"devices": {"requests": [{"name": "all"}]}}},
        }
        async with world("all", 1000, raw, forged) as made:
            await made.until(
                lambda found, raw=raw: (
                    named(raw) in found
                    and claim_template.proves(named(raw), found[named(raw)]["spec"])
                )
            )


async def test_an_unused_template_is_removed_after_the_grace() -> None:
    """Once no pod names it; one that is used again in the meantime stays."""
    raw = rendered("p")
    done = rendered("done", {"gpu-fraction": "0.5"}) | {"status": {"phase": "Succeeded"}}
    async with world("all", 0.2, raw, done) as made:
        await made.until(lambda found: found)
        made.server.remove(PODS, "p", "team-a")
        await made.until(lambda found: not found)
        assert ("delete", "resourceclaimtemplates.resource.k8s.io") in made.server.calls


async def test_a_template_in_use_by_hand_stays() -> None:
    """Its pod names it, though it does not tell what is in it."""
    raw = rendered("p")
    hand = rendered("hand")
    del hand["metadata"]["annotations"]
    async with world("all", 0.2, raw, hand) as made:
        await made.until(lambda found: found)
        made.server.remove(PODS, "p", "team-a")
        await asyncio.sleep(0.5)
        await made.never(lambda found: named(raw) not in found)


async def test_templates_of_others_are_left_alone() -> None:
    """Without our label they are not even read."""
    other = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "nic", "namespace": "team-a"},
        "spec": {"spec": {}},
    }
    async with world("all", 0.05, other) as made:
        await asyncio.sleep(0.3)
        await made.never(lambda found: "nic" not in found)


@pytest.mark.parametrize(
    ("resource", "spec"),
    [
        (DEPLOYMENTS, {"template": template_of()}),
        (CRON_JOBS, {"jobTemplate": {"spec": {"template": template_of()}}}),
        (
            JOB_SETS,
            {
                "replicatedJobs": [
                    {"template": {"spec": {"template": template_of({"a": "b"})}}},
                    {"template": {"spec": {"template": template_of()}}},
                ]
            },
        ),
        (
            Resource("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet"),
            {"leaderWorkerTemplate": {"workerTemplate": template_of()}},
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, Resource) else "",
)
async def test_a_workload_has_its_template_before_its_first_pod(
    resource: Resource, spec: Raw
) -> None:
    """Of each kind, the extensions' where the cluster has them."""
    extra = () if resource in {DEPLOYMENTS, CRON_JOBS} else (Kind(resource),)
    async with world("all", 0.2, workload(resource, spec), kinds=extra) as made:
        found = await made.until(lambda found: found)
        assert list(found) == [named(rendered("p"))]
        await asyncio.sleep(0.4)
        assert list(await made.templates()) == list(found)
        made.server.remove(resource, "web", "team-a")
        await made.until(lambda found: not found)


async def test_an_extension_that_comes_later_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster is asked again from time to time."""
    monkeypatch.setattr(service, "ABSENT_S", 0.05)
    async with world() as made:
        await made.never(lambda found: len(found) > 1)
        made.server.register(Kind(JOB_SETS))
        jobs = {"replicatedJobs": [{"template": {"spec": {"template": template_of()}}}]}
        made.server.add(workload(JOB_SETS, jobs))
        await made.until(lambda found: named(rendered("p")) in found)


@pytest.mark.parametrize(
    ("mode", "label", "early"),
    [
        ("all", None, True),
        ("all", "dra", True),
        ("all", "hami", False),
        ("labelled", None, False),
        ("labelled", "dra", True),
        ("labelled", "native", False),
    ],
)
async def test_only_namespaces_of_the_backend_get_templates_early(
    mode: Mode, label: str | None, early: bool
) -> None:
    """As far as the controller knows: it does not have the webhook's settings."""
    async with world(mode, 1000) as made:
        labels = {} if label is None else {keys.LABEL_BACKEND: label}
        stored = await made.client.get(NAMESPACES.at("team-a"), dict)
        stored["metadata"].setdefault("labels", {}).update(labels)
        made.server.add(workload(DEPLOYMENTS, {"template": template_of()}))
        await made.client.replace(NAMESPACES.at("team-a"), stored, dict)
        name = named(rendered("p"))
        if early:
            await made.until(lambda found: name in found)
        else:
            await made.never(lambda found: name in found)


async def test_a_workload_may_choose_its_backend_itself() -> None:
    """By its pods' annotation, before the namespace's label and the mode."""
    other, ours = template_of(QUARTER | {keys.BACKEND: "hami"}), {"gpu-fraction": "0.5"}
    chosen = workload(DEPLOYMENTS, {"template": template_of(ours | {keys.BACKEND: "dra"})}, "b")
    async with world("all", 1000, workload(DEPLOYMENTS, {"template": other}), chosen) as made:
        await made.until(lambda found: named(rendered("p", ours)) in found)
        await made.never(lambda found: named(rendered("p")) in found)


async def test_another_time_of_leading_begins_with_what_is_there() -> None:
    """What came and went meanwhile is made up for, and a former time makes nothing."""
    async with world("all", 1000, rendered("first")) as made:
        await made.until(lambda found: found)
        await made.lose()
        second = rendered("second", {"gpu-fraction": "0.5"})
        made.server.add(second)
        made.remove(named(rendered("first")))
        made.lead()
        found = await made.until(lambda found: len(found) == 2)
        assert set(found) == {named(rendered("first")), named(second)}


async def test_a_refused_workload_stops_nobody() -> None:
    """Its pods would be refused, so they need no template."""
    bad = template_of({"gpu-fraction": "1.5"})
    async with world("all", 1000, workload(DEPLOYMENTS, {"template": bad}, "bad")) as made:
        made.server.add(workload(DEPLOYMENTS, {"template": template_of()}))
        assert len(await made.until(lambda found: found)) == 1


async def test_failures_are_tried_again() -> None:
    """Refused, unavailable, or the answer lost."""
    for code in (403, 500, 503):
        async with world() as made:
            fault = Fault(Answer(code), verb="create", resource="resourceclaimtemplates", times=2)
            made.server.faults.add(fault)
            raw = rendered("p")
            made.server.add(raw)
            await made.until(lambda found, raw=raw: named(raw) in found)
