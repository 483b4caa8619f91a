"""The health of the cards for the kubelet, which shows it in the status of their pods.

Source: k8s.io/kubelet pkg/apis/dra-health; v1 from Kubernetes 1.37, v1alpha1 before.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.kubelet_api import dra_health_v1_pb2 as v1
from gpu_fraction.kubelet_api import dra_health_v1_pb2_grpc as v1_grpc
from gpu_fraction.kubelet_api import dra_health_v1alpha1_pb2 as v1alpha1
from gpu_fraction.kubelet_api import dra_health_v1alpha1_pb2_grpc as v1alpha1_grpc
from gpu_fraction.node_daemon.dra.devices import device_name
from gpu_fraction.node_daemon.state.concurrency import Observable, first_completed

TIMEOUT_S: Final = 30
"""After which the kubelet takes an answer for unknown; its own default."""

RESEND_S: Final = TIMEOUT_S / 3

_Context = grpc.aio.ServicerContext[Any, Any]


class Health:
    """The list of all cards, now, after each change and often enough to stay known."""

    def __init__(self, node_name: str, inventory: Observable[Inventory]) -> None:
        self._node_name = node_name
        self._inventory = inventory
        self.end = asyncio.Event()
        """Set to end every stream: a server that cancels one leaves a traceback."""

    async def follow(self) -> AsyncIterator[v1.NodeWatchResourcesResponse]:
        """The messages of one stream."""
        while not self.end.is_set():
            await first_completed(known=self._inventory.wait(), end=self.end.wait())
            inventory = self._inventory.value
            if inventory is None:
                return
            yield v1.NodeWatchResourcesResponse(
                devices=[self._health(card) for card in inventory.cards]
            )
            await first_completed(
                changed=self._inventory.changed_from(inventory),
                again=asyncio.sleep(RESEND_S),
                end=self.end.wait(),
            )

    def _health(self, card: Card) -> v1.DeviceHealth:
        return v1.DeviceHealth(
            device=v1.DeviceIdentifier(pool_name=self._node_name, device_name=device_name(card)),
            health=v1.HEALTHY if card.healthy else v1.UNHEALTHY,
            last_updated_time=int(time.time()),
            health_check_timeout_seconds=TIMEOUT_S,
            message="" if card.healthy else card.health_reason,
        )


class HealthV1(v1_grpc.DRAResourceHealthServicer):
    """For kubelets from 1.37."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def NodeWatchResources(  # noqa: N802 - the protocol's name
        self, request: v1.NodeWatchResourcesRequest, context: _Context
    ) -> AsyncIterator[v1.NodeWatchResourcesResponse]:
        """All cards, again and again."""
        del request, context
        async for message in self._health.follow():
            yield message


class HealthV1alpha1(v1alpha1_grpc.DRAResourceHealthServicer):
    """For kubelets before 1.37; the messages have the same fields under the same numbers."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def NodeWatchResources(  # noqa: N802
        self, request: v1alpha1.NodeWatchResourcesRequest, context: _Context
    ) -> AsyncIterator[v1alpha1.NodeWatchResourcesResponse]:
        """All cards, again and again."""
        del request, context
        async for message in self._health.follow():
            encoded = message.SerializeToString()
            yield v1alpha1.NodeWatchResourcesResponse.FromString(encoded)
