"""Writes to the API server: assignments and the daemon's own Node."""

import asyncio
from typing import Final, NoReturn

import msgspec
import structlog

from gpu_fraction.domain import keys
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.requests import PatchKind, Selection
from gpu_fraction.kube.resources import NODES, PODS
from gpu_fraction.kube.store import Change
from gpu_fraction.node_daemon.cards.health_events import CLEAR_ANNOTATION
from gpu_fraction.node_daemon.cluster import inventory_node
from gpu_fraction.node_daemon.state.concurrency import Observable, first_completed
from gpu_fraction.node_daemon.state.errors import ApiUnavailableError, PodRef, Reason, Refusal

ASSIGN_TIMEOUT_S: Final = 8.0
"""Time for one annotation with its retries. Chosen: a container start can fail well before
the kubelet's 30 s."""

RETRY_S: Final = 5.0
"""Pause after the Node could not be written: chosen."""

_log = structlog.get_logger()


class ApiAssigner:
    """Writes ``assigned`` where no scheduler did."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def assign(self, pod: PodRef, text: str) -> None:
        """Annotate the pod, provided it is that UID.

        Raises:
            Refusal: the pod no longer exists, or the server refuses the request.
            ApiUnavailableError: not confirmed; it may have been written all the same.
        """
        body = {"metadata": {"uid": pod.uid, "annotations": {keys.ASSIGNED: text}}}
        address = PODS.at(pod.name, namespace=pod.namespace)
        try:
            await self._client.patch(
                address, PatchKind.MERGE, body, Identity, timeout_s=ASSIGN_TIMEOUT_S
            )
        except (errors.NotFoundError, errors.ConflictError, errors.InvalidError) as e:
            # A UID is immutable: to write another one is refused as a conflict or as invalid.
            raise Refusal(Reason.POD_REPLACED, f"pod {pod.uid} is gone: {e}", pod) from e
        except errors.KubeError as e:
            raise ApiUnavailableError(str(e)) from e


class _Meta(Meta, frozen=True, kw_only=True, rename="camel"):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _NodeInfo(msgspec.Struct, frozen=True, rename="camel"):
    container_runtime_version: str = ""


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    capacity: dict[str, str] | None = None
    node_info: _NodeInfo = _NodeInfo()


class WireNode(msgspec.Struct, frozen=True):
    """A Node, in the fields that the daemon reads."""

    metadata: _Meta = _Meta()
    status: _Status = _Status()


class NodePublisher:
    """Keeps labels, inventory and capacity of this Node as the cards are.

    Level triggered: what is missing is written again, whatever removed it.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        inventory: Observable[Inventory],
        *,
        offers: bool = True,
    ) -> None:
        """Publish ``inventory``; without ``offers`` no capacity, as claims are given instead."""
        self._client = client
        self._offers = offers
        self._node_name = node_name
        self._inventory = inventory
        self.node: Observable[WireNode] = Observable()
        """The Node as last seen."""
        self._obeyed: WireNode | None = None
        self._reflector = Reflector(
            client,
            NODES.at(),
            WireNode,
            selection=Selection(fields=f"metadata.name={node_name}"),
        )
        self._reflector.subscribe(self._take)

    def _take(self, change: Change[WireNode]) -> None:
        if change.new is not None:
            self.node.set(change.new)

    async def container_runtime(self) -> str:
        """The node's container runtime, ``name://version``, once the kubelet has reported it."""
        node = await self.node.wait()
        while not node.status.node_info.container_runtime_version:
            node = await self.node.changed_from(node)
        return node.status.node_info.container_runtime_version

    async def clear_asked(self) -> str:
        """The cards that an administrator declares healthy; the annotation is then removed."""
        # A watch that lags still shows the Node with what was taken away.
        node = self._obeyed
        while True:
            node = await (self.node.wait() if node is None else self.node.changed_from(node))
            asked = (node.metadata.annotations or {}).get(CLEAR_ANNOTATION)
            if asked is None:
                continue
            body = {"metadata": {"annotations": {CLEAR_ANNOTATION: None}}}
            try:
                await self._client.patch(
                    NODES.at(self._node_name), PatchKind.MERGE, body, Identity
                )
            except errors.KubeError as e:
                _log.warning("clear_annotation_stays", error=str(e))
                await asyncio.sleep(RETRY_S)
                node = None
                continue
            self._obeyed = node
            return asked

    async def run(self) -> NoReturn:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reflector.run(), name="node watch")
            tasks.create_task(self._publish_forever(), name="node publisher")
        raise AssertionError("unreachable: the tasks run until cancelled")

    async def _publish_forever(self) -> NoReturn:
        while True:
            inventory, node = await self._inventory.wait(), await self.node.wait()
            try:
                await self._publish(inventory, node)
            except errors.KubeError as e:
                _log.warning("node_not_published", error=str(e), retry_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            await first_completed(
                inventory=self._inventory.changed_from(inventory),
                node=self.node.changed_from(node),
            )

    async def _publish(self, inventory: Inventory, node: WireNode) -> None:
        seen = inventory_node.NodeFields(
            labels=node.metadata.labels or {},
            annotations=node.metadata.annotations or {},
            capacity=node.status.capacity or {},
        )
        patches = inventory_node.diff(seen, inventory_node.desired(inventory, offers=self._offers))
        address = NODES.at(self._node_name)
        if patches.node is not None:
            await self._client.patch(address, PatchKind.MERGE, patches.node, Identity)
        if patches.status is not None:
            status = address.sub("status")
            await self._client.patch(status, PatchKind.MERGE, patches.status, Identity)
        if patches.node is not None or patches.status is not None:
            _log.info("node_published", cards=len(inventory.cards))
