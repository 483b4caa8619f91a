"""A scheduler that asks an extender: kube-scheduler's calls without its plugins.

A node fits where what its pods request leaves room, it is not cordoned, and its taints are
tolerated. The extender's filter, scores and bind decide the rest.
Source: kubernetes pkg/scheduler, k8s.io/kube-scheduler/extender/v1.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from ssl import SSLContext
from typing import Any, Final, NoReturn

import aiohttp

from gpu_fraction.domain.units import UnitError, parse_quantity
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.kube.events import EventRecorder, EventType, reference
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import NODES, PODS
from gpu_fraction.sandbox.apiserver.storage import Object, Storage
from gpu_fraction.sandbox.controlplane.following import each, follow, objects

CALL_S: Final = 20.0
"""Source: deploy/scheduler/config.yaml, httpTimeout."""

Amounts = dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Extender:
    """An extender of the scheduler.

    Attributes:
        url: Where it answers.
        tls: The scheduler's certificate, and the authority of the extender's.
        resources: Pods that request one of these are its.
        names: The scheduler's names; pods of others are left alone.
    """

    url: str
    tls: SSLContext
    resources: frozenset[str]
    names: frozenset[str]


class UnschedulableError(Exception):
    """No node fits; the message is the Event's."""


class Scheduler:
    """Binds pods one after the other."""

    def __init__(self, storage: Storage, client: Client, extender: Extender) -> None:
        """Read ``storage``, write by ``client``."""
        self._storage = storage
        self._client = client
        self._extender = extender
        self._events = EventRecorder(client, component="demo-scheduler")
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> NoReturn:
        """Schedule until cancelled."""
        connector = aiohttp.TCPConnector(ssl=self._extender.tls)
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._session = session
            await follow(self._storage, self._round)
        raise AssertionError("unreachable: follows until cancelled")

    async def events(self) -> NoReturn:
        """Write Events until cancelled."""
        await self._events.run()

    async def _round(self) -> None:
        waiting = [pod for pod in objects(self._storage, PODS) if self._waits(pod)]
        waiting.sort(key=lambda pod: int(pod["metadata"]["resourceVersion"]))
        await each(waiting, self._place)

    async def _place(self, pod: Object) -> None:
        try:
            await self._schedule(pod)
        except (UnschedulableError, UnitError) as e:
            await self._tell(pod, str(e))

    def _waits(self, pod: Object) -> bool:
        spec = pod["spec"]
        return (
            spec["schedulerName"] in self._extender.names
            and not spec.get("nodeName")
            and not spec.get("schedulingGates")
            and not spec.get("resourceClaims")  # the demo has no allocator of devices
            and "deletionTimestamp" not in pod["metadata"]
        )

    async def _schedule(self, pod: Object) -> None:
        nodes = objects(self._storage, NODES)
        pods = objects(self._storage, PODS)
        wanted = _requests(pod)
        failed = {n["metadata"]["name"]: _unfit(n, pod, wanted, pods) for n in nodes}
        fitting = [name for name, why in failed.items() if not why]
        managed = bool(self._extender.resources & wanted.keys())
        if managed and fitting:
            answer = await self._call("filter", {"Pod": pod, "NodeNames": fitting})
            if answer["Error"]:
                raise UnschedulableError(answer["Error"])
            failed |= answer["FailedNodes"] | answer["FailedAndUnresolvableNodes"]
            fitting = answer["NodeNames"] or []
        if not fitting:
            raise UnschedulableError(_message(failed))
        if managed:
            await self._bind_by_extender(pod, fitting)
        else:
            await self._bind(pod, fitting[0])

    async def _bind_by_extender(self, pod: Object, fitting: list[str]) -> None:
        chosen = fitting[0]
        if len(fitting) > 1:
            scores = await self._call("prioritize", {"Pod": pod, "NodeNames": fitting})
            chosen = max(scores, key=lambda one: (one["Score"], -fitting.index(one["Host"])))[
                "Host"
            ]
        meta = pod["metadata"]
        answer = await self._call(
            "bind",
            {
                "PodName": meta["name"],
                "PodNamespace": meta["namespace"],
                "PodUID": meta["uid"],
                "Node": chosen,
            },
        )
        if answer["Error"]:
            raise UnschedulableError(answer["Error"])

    async def _bind(self, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        address = PODS.at(meta["name"], namespace=meta["namespace"], subresource="binding")
        try:
            await self._client.create(address, body, Identity)
        except KubeError as e:
            raise UnschedulableError(str(e)) from e

    async def _call(self, verb: str, body: Object) -> Any:
        """The extender's answer.

        Raises:
            UnschedulableError: there was none.
        """
        if self._session is None:
            raise AssertionError("called outside run")
        try:
            async with self._session.post(f"{self._extender.url}/{verb}", json=body) as answer:
                answer.raise_for_status()
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError) as e:
            raise UnschedulableError(f"extender: {verb}: {e}") from e

    async def _tell(self, pod: Object, message: str) -> None:
        """Write why into the pod's status and an Event, once for each reason."""
        conditions = pod["status"].get("conditions", [])
        if any(c["type"] == "PodScheduled" and c.get("message") == message for c in conditions):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        meta = pod["metadata"]
        others = [c for c in conditions if c["type"] != "PodScheduled"]
        address = PODS.at(meta["name"], namespace=meta["namespace"], subresource="status")
        body = {"status": {"conditions": [*others, condition]}}
        await self._client.patch(address, PatchKind.MERGE, body, Identity)
        about = reference(
            PODS, Meta(name=meta["name"], namespace=meta["namespace"], uid=meta["uid"])
        )
        self._events.record(about, EventType.WARNING, "FailedScheduling", message)


def _requests(pod: Object) -> Amounts:
    """What a pod requests; init containers that end are left out."""
    total: Amounts = {}
    for container in _lasting(pod):
        for name, amount in (container.get("resources") or {}).get("requests", {}).items():
            total[name] = total.get(name, Decimal(0)) + parse_quantity(str(amount))
    return total


def _lasting(pod: Object) -> Iterator[Object]:
    yield from pod["spec"].get("containers", ())
    for container in pod["spec"].get("initContainers", ()):
        if container.get("restartPolicy") == "Always":
            yield container


def _unfit(node: Object, pod: Object, wanted: Amounts, pods: Collection[Object]) -> str:
    """Why the node cannot take the pod; empty where it can."""
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    tolerations = pod["spec"].get("tolerations", ())
    for taint in spec.get("taints", ()):
        if taint["effect"] != "PreferNoSchedule" and not any(
            _tolerates(one, taint) for one in tolerations
        ):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    labels = node["metadata"].get("labels", {})
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return "node(s) didn't match Pod's node affinity/selector"
    name = node["metadata"]["name"]
    present = [p for p in pods if p["spec"].get("nodeName") == name and _counts(p)]
    allocatable = (node.get("status") or {}).get("allocatable", {})
    for resource, amount in wanted.items():
        free = parse_quantity(str(allocatable.get(resource, "0")))
        free -= sum(_requests(p).get(resource, Decimal(0)) for p in present)
        if amount > free:
            return f"Insufficient {resource}"
    return ""


def _counts(pod: Object) -> bool:
    return pod["status"].get("phase") not in {"Succeeded", "Failed"}


def _tolerates(toleration: Object, taint: Object) -> bool:
    """Source: k8s.io/component-helpers scheduling/corev1, ToleratesTaint."""
    if toleration.get("effect", taint["effect"]) != taint["effect"]:
        return False
    if toleration.get("operator") == "Exists":
        return bool(toleration.get("key", taint["key"]) == taint["key"])
    wanted = toleration.get("key"), toleration.get("value", "")
    return bool(wanted == (taint["key"], taint.get("value", "")))


def _message(failed: dict[str, str]) -> str:
    """As kube-scheduler sums it up."""
    reasons = Counter(failed.values())
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"0/{len(failed)} nodes are available: {listed}."
