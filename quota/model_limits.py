"""The limits that quotas set for GPU models, for the scheduler extender.

Only valid quotas with enforcement Deny count here.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec
import structlog

from gpu_fraction.domain import amounts
from gpu_fraction.domain.amounts import Amounts
from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.reflector import Reflector, ReflectorSettings
from gpu_fraction.kube.resources import GPU_QUOTAS
from gpu_fraction.kube.store import Change
from gpu_fraction.quota.spec import QuotaSpec, parse_spec
from gpu_fraction.quota.wire import QuotaMeta, SpecWire

LOOK_AGAIN_S: Final = 15.0
"""Seconds until a cluster without the resource is asked again. Chosen: a short time until the
first quotas of a cluster are enforced, for a cheap request."""

CERTAIN_AFTER_S: Final = 10.0
"""Seconds after a 404 until a second one is believed. Chosen: an API server that is starting
answers 404 for custom resources until it has read their definitions, some seconds at most."""

CALL_S: Final = 5.0
"""Seconds for one request; chosen."""

_log = structlog.get_logger(__name__)


class WatchedQuota(msgspec.Struct, frozen=True, kw_only=True):
    """A GPUQuota without its status, which changes with every pod."""

    metadata: QuotaMeta = QuotaMeta()
    spec: SpecWire = SpecWire()


@dataclass(frozen=True, slots=True)
class ModelLimit:
    """One quota's limits on one model.

    Attributes:
        quota: The quota's name.
        model: The model as its author wrote it.
        hard: Limits by kind, one of ``amounts.MODEL_KEYS``; an absent one is not limited.
        spec: The quota's specification.
    """

    quota: str
    model: str
    hard: Amounts
    spec: QuotaSpec

    def counts(self, priority_class: str) -> bool:
        """True where the quota counts pods of that priority class; empty for none."""
        return self.spec.matches(priority_class or None)

    def refusal(self, wanted: Amounts, used: Amounts, kept: Amounts) -> str:
        """Why a pod may not have cards of the model, worded like a refused admission.

        Args:
            wanted: Amounts of the pod, by the kinds that it exceeds.
            used: Amounts of other pods on the model.
            kept: Amounts kept for admitted pods that wait for the model.
        """
        parts = [("requested", wanted), ("used", used)]
        if any(kept.values()):
            parts.append(("kept for waiting pods", kept))
        limited = {kind: self.hard[kind] for kind in wanted}
        parts.append(("limited", limited))
        texts = (f"{word}: {self._list(of)}" for word, of in parts)
        return f"exceeded GPU quota: {self.quota}, {', '.join(texts)}"

    def _list(self, of: Amounts) -> str:
        keyed = {amounts.model_key(self.model, kind): amount for kind, amount in of.items()}
        return amounts.format_list(keyed, keyed)


class ModelLimits:
    """Limits by namespace, from quotas as they come and go."""

    def __init__(self) -> None:
        """No quotas."""
        self._by_quota: dict[str, dict[str, tuple[ModelLimit, ...]]] = {}
        self._namespaces: dict[str, tuple[ModelLimit, ...]] = {}

    def limits(self, namespace: str) -> Sequence[ModelLimit]:
        """The limits of one namespace, by quota and model."""
        return self._namespaces.get(namespace, ())

    def changed(self, change: Change[WatchedQuota]) -> None:
        """A quota appeared, changed or vanished."""
        old, new = change.old, change.new
        if old is not None and new is not None and old.spec == new.spec:
            return  # only its status changed, as with every pod
        quota = new or old
        if quota is None:
            return
        namespace, name = quota.metadata.namespace, quota.metadata.name
        quotas = self._by_quota.setdefault(namespace, {})
        quotas.pop(name, None)
        found = tuple(_limits(new)) if new is not None else ()
        if found:
            quotas[name] = found
        self._namespaces[namespace] = tuple(
            limit for _, limits in sorted(quotas.items()) for limit in limits
        )
        if not quotas:
            del self._by_quota[namespace], self._namespaces[namespace]

    def clear(self) -> None:
        """Forget all quotas."""
        self._by_quota.clear()
        self._namespaces.clear()


class ModelLimitsWatch:
    """The limits as the API server's quotas set them.

    A cluster that does not serve the resource has no quotas, and so no limits.
    """

    def __init__(
        self,
        client: Client,
        *,
        certain_after_s: float = CERTAIN_AFTER_S,
        look_again_s: float = LOOK_AGAIN_S,
        following: ReflectorSettings | None = None,
    ) -> None:
        """Prepare; :meth:`run` does the work.

        Args:
            client: The API server.
            certain_after_s: Seconds after a 404 until a second one is believed.
            look_again_s: Seconds between looks for a resource that is not served.
            following: How quotas are followed.
        """
        self._client = client
        self._following = following
        self._certain_after_s = certain_after_s
        self._look_again_s = look_again_s
        self._limits = ModelLimits()
        self._absent = False
        self._reflector = self._new()

    def limits(self, namespace: str) -> Sequence[ModelLimit]:
        """The limits of one namespace."""
        return self._limits.limits(namespace)

    def unsynced(self) -> str | None:
        """Why the answers cannot be trusted now; None where they can."""
        return None if self._absent else self._reflector.unsynced()

    async def run(self) -> NoReturn:
        """Follow the quotas until cancelled."""
        while True:
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._reflector.run(), name="watch-gpuquotas")
                await self._vanished()
                following.cancel()
            self._limits.clear()
            self._absent = True
            _log.warning("quota.resource_not_served", resource=GPU_QUOTAS.qualified)
            while True:
                await asyncio.sleep(self._look_again_s)
                if await self._served():
                    break
            self._reflector = self._new()
            self._absent = False

    def _new(self) -> Reflector[WatchedQuota]:
        reflector = Reflector(
            self._client, GPU_QUOTAS.at(), WatchedQuota, settings=self._following
        )
        reflector.subscribe(self._limits.changed)
        return reflector

    async def _vanished(self) -> None:
        """Wait until two answers say that the resource is not served."""
        while True:
            self._reflector.missing.clear()
            await self._reflector.missing.wait()
            await asyncio.sleep(self._certain_after_s)
            if not await self._served():
                return

    async def _served(self) -> bool:
        """False where the API server does not know the resource; True if the request fails."""
        try:
            request = requests.list_page(GPU_QUOTAS.at(), limit=1)
            await self._client.send(request, timeout_s=CALL_S)
        except errors.NotFoundError:
            return False
        except errors.KubeError:
            return True  # the reflector stays unsynced until the server answers
        return True


def _limits(quota: WatchedQuota) -> Iterator[ModelLimit]:
    spec, problems = parse_spec(quota.spec)
    if problems or spec.enforcement != "Deny":
        return
    for model in spec.models:
        hard = {
            kind: spec.hard[key]
            for kind in amounts.MODEL_KEYS
            if (key := amounts.model_key(model, kind)) in spec.hard
        }
        yield ModelLimit(quota.metadata.name, model, hard, spec)
