"""The calls to the API server that quotas need."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.listing import Listing
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.requests import EVERYTHING, PatchKind, Selection
from gpu_fraction.kube.resources import GPU_QUOTAS, PODS, RESOURCE_CLAIMS
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.quota.claims import ClaimRecord
from gpu_fraction.quota.pods import PodRecord
from gpu_fraction.quota.wire import (
    API_VERSION,
    KIND,
    GPUQuota,
    QuotaMeta,
    ReservationWire,
    StatusWire,
)

TIMEOUT_S: Final = 8.0
"""Seconds for one call of the controller; no request waits for it. Chosen: a namespace is counted
again long before its reservations expire."""

ADMISSION_TIMEOUT_S: Final = 4.4
"""Seconds for one call of admission. Chosen: below the 4.5 s that the webhook has of its caller's
5 s (timeoutSeconds in deploy/webhook)."""

ADMISSION_RETRY: Final = RetryPolicy(attempt_timeout_s=3.0)
"""For admission's calls. Chosen: a slow server gets most of the time, and after a connection that
hangs enough is left for a second try."""


class QuotaApi(Protocol):
    """Calls of quotas. Reads are consistent: they show every write that finished before them.

    Every method raises ``gpu_fraction.kube.errors.KubeError``.
    """

    async def list_quotas(self, namespace: str) -> Listing[GPUQuota]:
        """The namespace's quotas."""

    async def list_pods(self, namespace: str) -> Listing[PodRecord]:
        """The namespace's pods."""

    async def list_claims(self, namespace: str) -> Listing[ClaimRecord]:
        """The namespace's claims that matter."""

    async def write_reserved(
        self, quota: GPUQuota, reserved: Sequence[ReservationWire]
    ) -> GPUQuota:
        """Replace ``status.reserved``, if this version of the quota is still the stored one.

        Raises:
            ConflictError: it is not.
            NotFoundError: the quota was deleted.
        """

    async def write_status(self, quota: GPUQuota, status: StatusWire) -> GPUQuota:
        """Replace the whole status, under the same condition."""


class KubeQuotaApi:
    """The API server itself."""

    def __init__(
        self,
        client: Client,
        *,
        timeout_s: float = TIMEOUT_S,
        claims: Selection = EVERYTHING,
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._claims = claims

    async def list_quotas(self, namespace: str) -> Listing[GPUQuota]:
        """See ``QuotaApi``."""
        return await self._client.list(
            GPU_QUOTAS.at(namespace=namespace), GPUQuota, timeout_s=self._timeout_s
        )

    async def list_pods(self, namespace: str) -> Listing[PodRecord]:
        """See ``QuotaApi``."""
        return await self._client.list(
            PODS.at(namespace=namespace), PodRecord, timeout_s=self._timeout_s
        )

    async def list_claims(self, namespace: str) -> Listing[ClaimRecord]:
        """See ``QuotaApi``."""
        return await self._client.list(
            RESOURCE_CLAIMS.at(namespace=namespace),
            ClaimRecord,
            self._claims,
            timeout_s=self._timeout_s,
        )

    async def write_reserved(
        self, quota: GPUQuota, reserved: Sequence[ReservationWire]
    ) -> GPUQuota:
        """See ``QuotaApi``. A merge patch, so that fields of newer versions stay."""
        meta = quota.metadata
        return await self._client.patch(
            GPU_QUOTAS.at(meta.name, namespace=meta.namespace, subresource="status"),
            PatchKind.MERGE,
            {"metadata": _version(meta), "status": {"reserved": list(reserved)}},
            GPUQuota,
            timeout_s=self._timeout_s,
        )

    async def write_status(self, quota: GPUQuota, status: StatusWire) -> GPUQuota:
        """See ``QuotaApi``."""
        meta = quota.metadata
        body: Mapping[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {**_version(meta), "name": meta.name, "namespace": meta.namespace},
            "status": msgspec.to_builtins(status),
        }
        return await self._client.replace(
            GPU_QUOTAS.at(meta.name, namespace=meta.namespace, subresource="status"),
            body,
            GPUQuota,
            timeout_s=self._timeout_s,
        )


def _version(meta: Meta | QuotaMeta) -> dict[str, str]:
    return {"uid": meta.uid, "resourceVersion": meta.resource_version}
