"""The story of the demo: what two teams and an administrator do, and what comes of it.

Each scene acts through the API server as people do, waits for the outcome, and tells it in lines
whose numbers and messages are read from the objects.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gpu_fraction.certs.commands import rotate
from gpu_fraction.certs.secret import SecretStore
from gpu_fraction.certs.settings import Installation
from gpu_fraction.cli.demo import view
from gpu_fraction.cli.demo.cluster import DemoCluster
from gpu_fraction.domain import keys
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind, WriteOptions
from gpu_fraction.kube.resources import (
    CLAIM_TEMPLATES,
    DEPLOYMENTS,
    EVENTS,
    GPU_QUOTAS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.node_daemon.cards.simulated import FAULT_ANNOTATION
from gpu_fraction.sandbox.controlplane.following import objects

SCENE_S: Final = 60.0
"""A scene fails after this time: chosen, twenty times what the slowest takes on two idle cores."""

POLL_S: Final = 0.03
ASK_S: Final = 0.05
"""Between two pods that are asked for while certificates rotate: chosen."""

TEAM_A: Final = "team-a"
TEAM_B: Final = "team-b"
TEAM_C: Final = "team-c"
NOTEBOOKS: Final = 4
CORES: Final = "1250m"
"""Of the GPUQuota of team-a: room for the notebooks, and not for the training beside them."""

_TOLD: Final = (keys.SHARE_VARIABLE, keys.MEMORY_VARIABLE, keys.SIMULATED_VARIABLE)

T = TypeVar("T")
Object = dict[str, Any]


class StoryError(Exception):
    """A scene did not come out; the message says what was waited for."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens, and the coroutine that makes it happen and tells the outcome."""

    title: str
    play: Callable[[], Awaitable[list[str]]]


class Story:
    """The scenes of one cluster, to be played in order."""

    def __init__(self, cluster: DemoCluster) -> None:
        self._cluster = cluster
        self._client = cluster.client
        self._storage = cluster.server.storage

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """All of them."""
        return (
            Scene("team-a asks for quarters of a GPU by one annotation", self.share),
            Scene("a training that exceeds the quota of team-a is refused", self.exceed),
            Scene("team-b fills the cards, the fullest first (binpack)", self.fill),
            Scene("a card falls sick", self.sicken),
            Scene("the webhook's certificates rotate while pods are created", self.rotate),
            Scene("team-a gives room back, and the refused training starts", self.free),
            Scene("the same annotation on another backend: dra", self.claim),
        )

    async def share(self) -> list[str]:
        """Four pods of a Deployment run on one card."""
        await self._namespace(TEAM_A)
        quota = {
            "apiVersion": GPU_QUOTAS.api_version,
            "kind": GPU_QUOTAS.kind,
            "metadata": {"name": TEAM_A},
            "spec": {"hard": {"cores": CORES}},
        }
        await self._client.create(GPU_QUOTAS.at(namespace=TEAM_A), quota, Identity)
        await self._deploy(TEAM_A, "notebooks", "0.25", NOTEBOOKS)
        await self._running(TEAM_A, "notebooks", NOTEBOOKS)
        (card,) = {c.uuid: c for c in self._cards_of(TEAM_A, "notebooks")}.values()
        pod = self._pods(TEAM_A, "notebooks")[0]
        env = self._env(pod)
        return [
            f'Deployment notebooks: {NOTEBOOKS} pods with {keys.FRACTION}: "0.25"',
            f"all run on card {card.index} of {card.node}",
            "a container gets " + " ".join(f"{name}={env[name]}" for name in _TOLD),
        ]

    async def exceed(self) -> list[str]:
        """The ReplicaSet's pod is refused, with the numbers."""
        await self._deploy(TEAM_A, "training", "0.5", 1)
        event = await self._until("the refusal of training", self._refusal)
        message = event["message"].partition("denied the request: ")[2] or event["message"]
        return ['Deployment training: 1 pod with gpu-fraction: "0.5"', message]

    async def fill(self) -> list[str]:
        """Halves: two fill a card before the next one is begun."""
        await self._namespace(TEAM_B)
        await self._deploy(TEAM_B, "inference", "0.5", 3)
        await self._running(TEAM_B, "inference", 3)
        full = [c for c in view.cards(self._storage) if c.used_milli == 1000]
        return [
            'Deployment inference: 3 pods with gpu-fraction: "0.5"',
            f"{len(full)} cards are full, and one is half full",
        ]

    async def sicken(self) -> list[str]:
        """The half full card is sick: its pod stays, the next pod goes elsewhere."""
        (card,) = [c for c in view.cards(self._storage) if c.used_milli == 500]
        body = {"metadata": {"annotations": {FAULT_ANNOTATION: str(card.index)}}}
        await self._client.patch(NODES.at(card.node), PatchKind.MERGE, body, Identity)
        await self._until("a sick card", lambda: self._card(card.uuid).reason)
        event = await self._until("its Event", lambda: self._event("Node", "CardUnhealthy"))
        await self._until("its pod's Event", lambda: self._event("Pod", "CardUnhealthy"))
        await self._scale(TEAM_B, "inference", 4)
        await self._running(TEAM_B, "inference", 4)
        pod = card.held[0].pod
        await self._until(
            "the health in its pod's status", lambda: _sick_device(self._find(PODS, TEAM_B, pod))
        )
        (new,) = [
            c for c in self._cards_of(TEAM_B, "inference") if c.used_milli == 500 and not c.reason
        ]
        return [
            f"Event on {card.node}: {event['message']}",
            f"its pod {pod} continues; its status says Unhealthy",
            f"the fourth half goes to card {new.index} of {new.node}, which was empty",
        ]

    async def rotate(self) -> list[str]:
        """A new CA, trusted before it is used, and no pod lost."""
        before = await self._authorities()
        await rotate(self._client, Installation(), ca=True)
        asked = 0
        async with _deadline("the end of the rotation"):
            while not await self._rotated(before):
                asked += 1
                await self._ask()
                await asyncio.sleep(ASK_S)
        return [
            "a new CA: trusted beside the old one, then served, then the old one is dropped",
            f"{asked} pods were asked for meanwhile (dry run), and none failed",
        ]

    async def free(self) -> list[str]:
        """Fewer notebooks: the controller wakes the ReplicaSet that waited."""
        await self._scale(TEAM_A, "notebooks", 2)
        await self._until("the mark on the ReplicaSet of training", self._woken)
        await self._running(TEAM_A, "training", 1)
        counted = f"1/{CORES}"  # two quarters and a half
        await self._until(
            "the count of the quota",
            lambda: view.quotas(self._storage)[0].columns.get("cores") == counted,
        )
        (card,) = self._cards_of(TEAM_A, "training")
        return [
            "notebooks scaled from 4 to 2",
            f"the controller marks its ReplicaSet ({keys.QUOTA_FREED}), which tries again at once",
            f"training runs on card {card.index} of {card.node}",
            f"GPUQuota {TEAM_A}: cores {counted}",
        ]

    async def claim(self) -> list[str]:
        """A namespace on backend dra: the annotation becomes a claim."""
        await self._namespace(TEAM_C, {keys.LABEL_BACKEND: "dra"})
        await self._deploy(TEAM_C, "claims", "0.25", 0)
        pod = _pod("0.25")
        answer: Object = await self._client.create(
            PODS.at(namespace=TEAM_C), pod, dict, WriteOptions(dry_run=True)
        )
        (claim,) = answer["spec"]["resourceClaims"]
        name = claim["resourceClaimTemplateName"]
        template = await self._until(
            f"the template {name}",
            lambda: self._find(CLAIM_TEMPLATES, TEAM_C, name),
        )
        (request,) = template["spec"]["spec"]["devices"]["requests"]
        exactly = request["exactly"]
        amounts = " ".join(f"{k}={v}" for k, v in exactly["capacity"]["requests"].items())
        return [
            f"namespace {TEAM_C} has the label {keys.LABEL_BACKEND}=dra",
            f"the pod asks for claim {claim['name']} of template {name}",
            f"the template asks class {exactly['deviceClassName']} for {amounts}",
            "shown, not placed: this demo has no scheduler for claims",
        ]

    async def _namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        metadata = {
            "name": name,
            "labels": {"kubernetes.io/metadata.name": name, **(labels or {})},
        }
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        await self._client.create(NAMESPACES.at(), body, Identity)

    async def _deploy(self, namespace: str, name: str, fraction: str, replicas: int) -> None:
        pod = _pod(fraction)
        pod["metadata"]["labels"] = {"app": name}
        body = {
            "apiVersion": DEPLOYMENTS.api_version,
            "kind": DEPLOYMENTS.kind,
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": pod["metadata"], "spec": pod["spec"]},
            },
        }
        await self._client.create(DEPLOYMENTS.at(namespace=namespace), body, Identity)

    async def _scale(self, namespace: str, name: str, replicas: int) -> None:
        address = DEPLOYMENTS.at(name, namespace=namespace)
        body = {"spec": {"replicas": replicas}}
        await self._client.patch(address, PatchKind.MERGE, body, Identity)

    async def _ask(self) -> None:
        """One pod as a dry run, through both webhooks.

        Raises:
            StoryError: it failed.
        """
        try:
            await self._client.create(
                PODS.at(namespace=TEAM_B), _pod("0.1"), Identity, WriteOptions(dry_run=True)
            )
        except KubeError as e:
            raise StoryError(f"a pod failed while certificates rotated: {e}") from e

    async def _running(self, namespace: str, app: str, count: int) -> None:
        def holds() -> bool:
            pods = self._pods(namespace, app)
            return len(pods) == count and all(map(_runs, pods))

        await self._until(f"{count} running pods of {app}", holds)

    async def _until(self, what: str, find: Callable[[], T | None]) -> T:
        """What ``find`` returns, once that is something."""
        async with _deadline(what):
            while True:
                if found := find():
                    return found
                await asyncio.sleep(POLL_S)

    def _pods(self, namespace: str, app: str) -> list[Object]:
        return [
            pod
            for pod in objects(self._storage, PODS)
            if pod["metadata"]["namespace"] == namespace
            and (pod["metadata"].get("labels") or {}).get("app") == app
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def _cards_of(self, namespace: str, app: str) -> list[view.CardRow]:
        names = {pod["metadata"]["name"] for pod in self._pods(namespace, app)}
        return [
            card
            for card in view.cards(self._storage)
            if any(h.namespace == namespace and h.pod in names for h in card.held)
        ]

    def _card(self, uuid: str) -> view.CardRow:
        return next(card for card in view.cards(self._storage) if card.uuid == uuid)

    def _env(self, pod: Object) -> dict[str, str]:
        """What the CDI file of the pod's slice gave its container."""
        node = self._cluster.nodes[pod["spec"]["nodeName"]]
        container = pod["spec"]["containers"][0]["name"]
        return node.kubelet.running[pod["metadata"]["uid"], container].env

    def _training(self) -> Object:
        """The ReplicaSet of training; empty until it exists."""
        sets = objects(self._storage, REPLICA_SETS)
        return next((s for s in sets if s["metadata"]["name"].startswith("training-")), {})

    def _refusal(self) -> Object | None:
        """The Event about a pod of training that was refused."""
        name = self._training().get("metadata", {}).get("name")
        for event in objects(self._storage, EVENTS):
            if event["reason"] == "FailedCreate" and event["involvedObject"]["name"] == name:
                return event
        return None

    def _woken(self) -> bool:
        return keys.QUOTA_FREED in self._training()["metadata"].get("annotations", {})

    def _event(self, kind: str, reason: str) -> Object | None:
        for event in objects(self._storage, EVENTS):
            if (event["involvedObject"]["kind"], event["reason"]) == (kind, reason):
                return event
        return None

    def _find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        wanted = namespace, name
        for one in objects(self._storage, resource):
            if (one["metadata"]["namespace"], one["metadata"]["name"]) == wanted:
                return one
        return None

    async def _authorities(self) -> set[str]:
        """The fingerprints of the CAs in the Secret; two while one replaces the other."""
        held = await SecretStore(self._client, Installation()).read(utc_now())
        return {one.fingerprint for _, one in held.state.roles()} if held.state else set()

    async def _rotated(self, before: set[str]) -> bool:
        """Whether there is one CA, a new one, and nothing else is trusted any more."""
        now = await self._authorities()
        hooks = [
            hook
            for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS)
            for configuration in objects(self._storage, resource)
            for hook in configuration["webhooks"]
        ]
        trusted = [base64.b64decode(hook["clientConfig"]["caBundle"]) for hook in hooks]
        alone = all(bundle.count(b"BEGIN CERTIFICATE") == 1 for bundle in trusted)
        return alone and len(now) == 1 and not now & before


@asynccontextmanager
async def _deadline(what: str) -> AsyncIterator[None]:
    """Fail with what was waited for, and not with a bare TimeoutError."""
    try:
        async with asyncio.timeout(SCENE_S):
            yield
    except TimeoutError as e:
        raise StoryError(f"{what} did not come within {SCENE_S:g} s") from e


def _pod(fraction: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "demo-", "annotations": {keys.FRACTION: fraction}},
        "spec": {
            "containers": [{"name": "main", "image": "example.com/cuda:12"}],
            "terminationGracePeriodSeconds": 0,
        },
    }


def _runs(pod: Object) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def _sick_device(pod: Object | None) -> bool:
    """Whether the kubelet reports that a device of the pod is not healthy."""
    statuses = (pod or {}).get("status", {}).get("containerStatuses", ())
    given = [
        r
        for s in statuses
        for one in s.get("allocatedResourcesStatus", ())
        for r in one["resources"]
    ]
    return any(one["health"] == "Unhealthy" for one in given)
