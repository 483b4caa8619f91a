"""Writes into a claim's status what its containers were given."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import structlog

from gpu_fraction.domain import dra
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.resources import RESOURCE_CLAIMS
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.node_daemon.dra.claims import ClaimRef
from gpu_fraction.node_daemon.dra.preparer import Prepared

QUEUE: Final = 1000
"""Claims that wait to be written; more are left out. Chosen: more than a node starts at once."""

_log = structlog.get_logger()


class ClaimStatusWriter:
    """Writes in the background: no container waits for it, and a failure is logged."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[tuple[ClaimRef, dict[str, Any]]] = asyncio.Queue(QUEUE)

    def put(self, ref: ClaimRef, prepared: Sequence[Prepared]) -> None:
        """Write what was given, some time later."""
        try:
            self._queue.put_nowait((ref, manifest(ref, prepared)))
        except asyncio.QueueFull:
            _log.warning("claim_status_left_out", claim=str(ref))

    async def run(self) -> NoReturn:
        """Write until cancelled."""
        while True:
            ref, body = await self._queue.get()
            address = RESOURCE_CLAIMS.at(ref.name, namespace=ref.namespace).sub("status")
            try:
                await self._client.apply(
                    address, body, Identity, field_manager=dra.DRIVER, force=True
                )
            except errors.KubeError as e:
                # A claim may be gone already; a right may be missing.
                _log.warning("claim_status_not_written", claim=str(ref), error=str(e))


def manifest(ref: ClaimRef, prepared: Sequence[Prepared]) -> dict[str, Any]:
    """The part of the claim that the driver owns."""
    return {
        "apiVersion": RESOURCE_CLAIMS.api_version,
        "kind": RESOURCE_CLAIMS.kind,
        # The UID is a precondition: a later claim of the name is not touched.
        "metadata": {"name": ref.name, "namespace": ref.namespace, "uid": ref.uid},
        "status": {"devices": [_device(one) for one in prepared]},
    }


def _device(one: Prepared) -> dict[str, Any]:
    share = one.share
    found = {
        "driver": dra.DRIVER,
        "pool": one.pool,
        "device": one.device,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Prepared",
                "message": f"{share.memory_mib} MiB, {share.core_milli} thousandths of compute",
                "lastTransitionTime": api_time(datetime.fromtimestamp(one.since_s, UTC)),
            }
        ],
        "data": {
            "apiVersion": dra.CONFIG_VERSION,
            "kind": "Share",
            "uuid": share.uuid,
            "coreMilli": share.core_milli,
            "memoryMib": share.memory_mib,
        },
    }
    return found | ({"shareID": one.share_id} if one.share_id else {})
