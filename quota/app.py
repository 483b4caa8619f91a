"""The controller of quotas, put together."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from prometheus_client import CollectorRegistry

from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.election import Election
from gpu_fraction.kube.lease import unique_identity
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.quota.pods import PodRecord
from gpu_fraction.quota.service import Claims, ControllerService
from gpu_fraction.quota.settings import ControllerOptions
from gpu_fraction.serving.background import Work, background
from gpu_fraction.serving.probes import serve_probes

Leading = Callable[[Reflector[PodRecord]], Coroutine[Any, Any, None]]
"""Work of the replica that leads, with the pods that are watched; runs until cancelled."""


async def control(
    client: Client,
    options: ControllerOptions,
    costs: BackendConfig,
    registry: CollectorRegistry,
    stop: asyncio.Event,
    *work: Work,
    leading: Leading | None = None,
    claims: Claims = "ignored",
) -> None:
    """Run the controller until ``stop`` is set.

    Args:
        client: The API server.
        options: How the controller runs.
        costs: What the cost of a pod depends on.
        registry: Where metrics are collected.
        stop: Ends the controller.
        *work: More work to run beside it.
        leading: More work for the replica that leads.
        claims: Which ResourceClaims are followed.
    """
    election = Election(
        client,
        name=options.lease_name,
        namespace=options.lease_namespace,
        identity=unique_identity(socket.gethostname()),
        timings=options.lease,
    )

    async def lead(counting: Callable[[], Awaitable[None]]) -> None:
        async def both() -> None:
            async with asyncio.TaskGroup() as tasks:
                if leading is not None:
                    tasks.create_task(leading(service.pods), name="beside-the-count")
                await counting()

        await election.run(both)

    service = ControllerService(
        client, options.counting, costs=costs, registry=registry, lead=lead, claims=claims
    )
    async with (
        serve_probes(options.host, options.port, registry, ready=service.unsynced),
        background(service.run, *work),
    ):
        await stop.wait()
