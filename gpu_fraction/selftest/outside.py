"""Starts the Jobs of a self-test, waits for their answers, and removes them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gpu_fraction.domain import assignment, inventory, keys
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.requests import Selection, ServerPath, get
from gpu_fraction.kube.resources import JOBS, NODES, PODS
from gpu_fraction.selftest.inside import Measured
from gpu_fraction.selftest.protocol import SECONDS, STEPS, Slice, Step, job

POLL_S: Final = 1.0
"""Chosen: a container runs for many seconds."""

WAIT_S: Final = 300.0
"""For one step. Chosen: an image is pulled in minutes, the rest takes seconds."""

SIMULATED_WAIT_S: Final = 30.0
"""For the cards of a pod on a simulated node, whose containers may never run."""

PRODUCT: Final = "app.kubernetes.io/name=gpu-fraction,app.kubernetes.io/component=node-daemon"


class SelftestError(Exception):
    """The test cannot begin; the message says what would help."""


class _Meta(Meta, frozen=True, kw_only=True, rename="camel"):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()


class _Container(msgspec.Struct, frozen=True, kw_only=True):
    image: str = ""


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    message: str = ""


class _Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    phase: str = ""
    message: str = ""
    conditions: list[_Condition] | None = None


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    node_name: str | None = None
    containers: list[_Container] | None = None


class _Pod(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.annotations or {}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the test runs.

    Attributes:
        node: The node's name.
        hostname: Its label ``kubernetes.io/hostname``.
        card: A card without any share.
        driver: The driver's version.
        simulated: Whether the card does not exist.
        image: Of the containers.
        namespace: Of the Jobs.
    """

    node: str
    hostname: str
    card: Card
    driver: str
    simulated: bool
    image: str
    namespace: str


async def find(client: Client, *, node: str, image: str, namespace: str) -> Place:
    """The first card without any share, of the named node or of any.

    Args:
        client: The connection.
        node: The node; empty for any.
        image: The image; empty for that of the node daemon.
        namespace: Of the Jobs.

    Raises:
        SelftestError: there is none, or the image is not known.
        KubeError: nodes or pods cannot be read.
    """
    nodes = (await client.list(NODES.at(), _Node)).items
    pods = (await client.list(PODS.at(), _Pod, on_malformed=lambda *_: None)).items
    known = {one.metadata.name: found for one in nodes if (found := _inventory(one))}
    if node and node not in {one.metadata.name for one in nodes}:
        raise SelftestError(f"node {node} does not exist")
    if not known or (node and node not in known):
        where = f"node {node} has" if node else "no node has"
        raise SelftestError(
            f"{where} no GPU that gpu-fraction knows (annotation {keys.INVENTORY});"
            " gpu-fraction doctor says why"
        )
    used = set(_given(pods))
    for one in nodes:
        name, labels = one.metadata.name, one.metadata.labels or {}
        if node not in {"", name}:
            continue
        for card in known[name].cards if name in known else ():
            if card.healthy and not card.parent and (name, card.uuid) not in used:
                return Place(
                    name,
                    labels.get("kubernetes.io/hostname", name),
                    card,
                    known[name].driver_version,
                    labels.get(keys.LABEL_SIMULATED) == "true",
                    image or await _own_image(client),
                    namespace,
                )
    raise SelftestError(
        f"no healthy card of {node or 'any node'} is free: the test needs one of which nothing "
        "is given"
        " (gpu-fraction status)"
    )


def _inventory(node: _Node) -> Inventory | None:
    text = (node.metadata.annotations or {}).get(keys.INVENTORY, "")
    try:
        return inventory.parse(text)
    except inventory.InventoryError:
        return None


def _given(pods: Iterable[_Pod]) -> Iterable[tuple[str, str]]:
    for pod in pods:
        if pod.status.phase not in {"Succeeded", "Failed"}:
            for shares in assignment.find(pod.annotations).values():
                yield from ((pod.spec.node_name or "", share.uuid) for share in shares)


async def _own_image(client: Client) -> str:
    """The image of the node daemon; a tenant's pod with its labels is not run."""
    found = (await client.list(PODS.at(), _Pod, Selection(labels=PRODUCT))).items
    usual = [pod for pod in found if pod.metadata.namespace == keys.SYSTEM_NAMESPACE]
    places = sorted({pod.metadata.namespace for pod in usual or found})
    if len(places) > 1:
        raise SelftestError(
            f"pods in {', '.join(places)} have the labels of the node daemon: give --image"
        )
    images = (c.image for pod in usual or found for c in pod.spec.containers or ())
    if image := next(images, ""):
        return image
    raise SelftestError("no pod of the node daemon runs whose image could be used: give --image")


async def run(
    client: Client,
    place: Place,
    *,
    seconds: float = SECONDS,
    steps: Sequence[Step] = STEPS,
    tell: Callable[[str], None] = lambda _: None,
    wait_s: float = WAIT_S,
) -> list[Slice]:
    """Run the steps one after the other; what they started is removed, also on Ctrl-C.

    Args:
        client: The connection.
        place: Where.
        seconds: Time of the kernels.
        steps: Which.
        tell: Told what happens.
        wait_s: For one step.

    Raises:
        KubeError: a Job cannot be made or read; a refusal of the webhook has its words.
    """
    found: list[Slice] = []
    for step in steps:
        tell(f"{step.name}: {step.text}")
        async with _started(client, place, step, seconds) as jobs:
            found += await asyncio.gather(
                *(_answer(client, place, step, share, name, wait_s) for share, name in jobs)
            )
        await _gone(client, place, [name for _, name in jobs], wait_s)
    return found


@asynccontextmanager
async def _started(
    client: Client, place: Place, step: Step, seconds: float
) -> AsyncIterator[list[tuple[int, str]]]:
    """The Jobs of a step: share and name of each; removed with their pods afterwards."""
    made: list[tuple[int, str]] = []
    try:
        for share in step.shares:
            body = job(
                step, share, place.namespace, place.image, place.hostname, place.card.uuid, seconds
            )
            name = str(body["metadata"]["name"])
            made.append((share, name))
            await client.create(JOBS.at(namespace=place.namespace), body, Identity)
        yield made
    finally:
        for _, name in made:
            await _removed(client, place, name)


async def _removed(client: Client, place: Place, name: str) -> None:
    try:
        address = JOBS.at(name, namespace=place.namespace)
        await client.delete(address, {"propagationPolicy": "Background"})
    except errors.NotFoundError:
        pass  # it was never made


async def _answer(
    client: Client, place: Place, step: Step, share: int, name: str, wait_s: float
) -> Slice:
    """What the container of a Job says, once it has ended."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + (min(wait_s, SIMULATED_WAIT_S) if place.simulated else wait_s)
    pod: _Pod | None = None
    while loop.time() < end_s:
        found = await client.list(
            PODS.at(namespace=place.namespace), _Pod, Selection(labels=f"job-name={name}")
        )
        pod = found.items[0] if found.items else None
        if pod is not None and pod.status.phase in {"Succeeded", "Failed"}:
            break
        if pod is not None and place.simulated and keys.ASSIGNED in pod.annotations:
            break
        await asyncio.sleep(POLL_S)
    given = assignment.find(pod.annotations).get("selftest", ()) if pod else ()
    promise: dict[str, Any] = {
        "step": step.name,
        "share_milli": share,
        "promise_mib": sum(one.memory_mib for one in given),
        "promise_core_milli": sum(one.core_milli for one in given),
    }
    if pod is not None and pod.status.phase in {"Succeeded", "Failed"}:
        measured = _parsed(await _log(client, pod))
        if measured is not None:
            return Slice(**promise, measured=measured, problem=measured.problem)
    if place.simulated:
        return Slice(**promise, measured=Measured(simulated=True))
    return Slice(**promise, problem=_why(pod, name))


def _why(pod: _Pod | None, name: str) -> str:
    if pod is None:
        return f"Job {name} made no pod: kubectl describe job {name}"
    said = [one.message for one in pod.status.conditions or () if one.message]
    return pod.status.message or "; ".join(said) or f"pod is {pod.status.phase or 'unknown'}"


async def _log(client: Client, pod: _Pod) -> str:
    address = PODS.at(pod.metadata.name, namespace=pod.metadata.namespace, subresource="log")
    try:
        return (await client.send(get(ServerPath(address.path)))).decode("utf-8", "replace")
    except errors.KubeError as e:
        return str(e)


def _parsed(log: str) -> Measured | None:
    """The last line that is an answer."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                return msgspec.json.decode(line, type=Measured)
            except msgspec.MsgspecError:
                continue
    return None


async def _gone(client: Client, place: Place, names: Sequence[str], wait_s: float) -> None:
    """Wait until pods of these Jobs are gone, so that the card is free for the next step."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + wait_s
    selection = Selection(labels=f"job-name in ({','.join(names)})")
    while loop.time() < end_s:
        if not (await client.list(PODS.at(namespace=place.namespace), Identity, selection)).items:
            return
        await asyncio.sleep(POLL_S)
