"""The measured use of slices, from the metrics of the node daemons (docs/metrics.md)."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from gpu_fraction.dashboard.objects import COMPONENT, Pod
from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access, AccessSource
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.requests import ServerPath, get
from gpu_fraction.kube.resources import PODS

DAEMON: Final = "node-daemon"
"""Value of the label ``COMPONENT`` of the daemons."""

PORT: Final = 9446
"""Where the daemons serve metrics, unless their ``--port`` says otherwise."""

TIMEOUT_S: Final = 5.0
"""Seconds for the metrics of one daemon. Chosen: NVML answers in well under one."""

AT_ONCE: Final = 16
"""Daemons that are asked at a time. Chosen: a large cluster is read in seconds, and the API server
proxies few streams."""

SliceKey = tuple[str, str, str, str]
"""Namespace, pod, container and the card's UUID."""


@dataclass(frozen=True, slots=True)
class SliceUse:
    """What one container uses of one card.

    Attributes:
        limit_bytes: Memory that it was given.
        used_bytes: Memory that its processes hold; None where the daemon does not say.
        busy: Part of the last sample in which its kernels ran, 0 to 1; None likewise.
    """

    limit_bytes: float | None = None
    used_bytes: float | None = None
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class CardUse:
    """What is in use of one card.

    Attributes:
        used_bytes: Memory in use by any process and the driver; None where unknown.
        foreign_bytes: Memory held by processes outside pods; None likewise.
    """

    used_bytes: float | None = None
    foreign_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class NodeUse:
    """The metrics of one node.

    Attributes:
        node: The node.
        slices: The use of each slice.
        cards: The use of each card by UUID.
        problem: Why the metrics are missing; empty where they are there.
    """

    node: str
    slices: Mapping[SliceKey, SliceUse]
    cards: Mapping[str, CardUse]
    problem: str = ""


Fetch = Callable[[Pod], Awaitable[bytes]]
"""Reads the metrics of one daemon. Raises KubeError."""


def through(client: Client) -> Fetch:
    """Through the API server; needs the right to get ``pods/proxy`` in the daemons' namespace.

    The path names no port, so that the server takes the one that the daemon declares.
    Source: kubernetes pkg/registry/core/pod/strategy.go, ResourceLocation.
    """

    async def fetch(pod: Pod) -> bytes:
        address = PODS.at(pod.metadata.name, namespace=pod.metadata.namespace)
        return await client.send(
            get(ServerPath(f"{address.path}/proxy/metrics")), timeout_s=TIMEOUT_S
        )

    return fetch


async def directly(pod: Pod) -> bytes:
    """From the pod's own address, which only machines on the cluster's network reach."""
    address = pod.status.pod_ip or ""
    host = f"[{address}]" if ":" in address else address

    async def find() -> Access:
        return Access(f"http://{host}:{PORT}")

    async with connect(AccessSource(find), component="top") as client:
        return await client.send(get(ServerPath("/metrics")), timeout_s=TIMEOUT_S)


def daemons(pods: Iterable[Pod]) -> list[Pod]:
    """The node daemons among the product's own pods that can answer, by node."""
    found = [
        pod
        for pod in pods
        if (pod.metadata.labels or {}).get(COMPONENT) == DAEMON
        and pod.status.phase == "Running"
        and pod.metadata.deletion_timestamp is None
    ]
    return sorted(found, key=lambda pod: pod.spec.node_name or "")


async def read(pods: Iterable[Pod], fetch: Fetch) -> list[NodeUse]:
    """The use of every daemon's node; one that does not answer is a problem of its own.

    Args:
        pods: The daemons.
        fetch: The way to their metrics.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Pod) -> NodeUse:
        node = pod.spec.node_name or ""
        async with places:
            try:
                return parse(node, await fetch(pod))
            except (errors.KubeError, ValueError) as e:
                return NodeUse(node, {}, {}, f"{pod.metadata.name}: {e}")

    return list(await asyncio.gather(*map(one, pods)))


def parse(node: str, body: bytes) -> NodeUse:
    """The use in a daemon's metrics.

    Args:
        node: The daemon's node.
        body: Prometheus' text format.

    Raises:
        ValueError: not that format.
    """
    slices: dict[SliceKey, SliceUse] = {}
    cards: dict[str, CardUse] = {}
    for name, labels, value in samples(body):
        uuid = labels.get("uuid", "")
        if (field := _OF_SLICES.get(name)) is not None:
            key = (labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", ""))
            slices[*key, uuid] = replace(slices.get((*key, uuid), SliceUse()), **{field: value})
        elif (field := _OF_CARDS.get(name)) is not None:
            cards[uuid] = replace(cards.get(uuid, CardUse()), **{field: value})
    return NodeUse(node, slices, cards)


def samples(body: bytes) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Name, labels and value of each sample; those that are no number are left out.

    Args:
        body: Prometheus' text format.

    Raises:
        ValueError: not that format.
    """
    try:
        for family in text_string_to_metric_families(body.decode("utf-8", "replace")):
            for sample in family.samples:
                if math.isfinite(sample.value):
                    yield sample.name, sample.labels, sample.value
    except (LookupError, TypeError) as e:  # what the parser raises for some broken lines
        raise ValueError(f"not Prometheus' text format: {e}") from e


_OF_SLICES: Final = {
    "gpu_fraction_container_memory_limit_bytes": "limit_bytes",
    "gpu_fraction_container_memory_used_bytes": "used_bytes",
    "gpu_fraction_container_busy_ratio": "busy",
}
_OF_CARDS: Final = {
    "gpu_fraction_card_memory_used_bytes": "used_bytes",
    "gpu_fraction_card_memory_foreign_bytes": "foreign_bytes",
}
