"""Makes the templates that are needed, and removes those that have not been for a while.

Level-triggered: a change only says which template to look at. A template cannot change, so there
is nothing to update; one that is not what its name says is replaced.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from gpu_fraction.claims.metrics import TemplateMetrics
from gpu_fraction.claims.objects import MANAGED, TemplateRecord
from gpu_fraction.claims.wanted import Key, Named, Owner, Wanted
from gpu_fraction.domain.claim_template import Template
from gpu_fraction.kube import errors
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.resources import CLAIM_TEMPLATES
from gpu_fraction.kube.store import Store

WORKERS: Final = 16
"""Templates worked on at once: chosen, a few shapes in each of some namespaces."""

RECHECK_S: Final = 5.0
"""Seconds until a template is looked at again that cannot be removed yet: chosen."""

_BACKOFF: Final = Backoff(initial_s=0.05)

log = structlog.get_logger()


class Controller:
    """Keeps the templates of all namespaces."""

    def __init__(
        self,
        client: Client,
        templates: Store[TemplateRecord],
        *,
        grace_s: float,
        complete: Callable[[], bool],
        metrics: TemplateMetrics,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            templates: Those that exist, with our label.
            grace_s: Seconds for which an unused template stays.
            complete: Whether every user of templates is known, so that one may be removed.
            metrics: Counts the writes.
        """
        self._client = client
        self._templates = templates
        self._grace_s = grace_s
        self._complete = complete
        self._metrics = metrics
        self._clock = asyncio.get_running_loop().time
        self._wanted = Wanted()
        self._due: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._unused_since: dict[Key, float] = {}
        self._made: set[str] = set()
        self._wake = asyncio.Event()

    def need(self, owner: Owner, named: Named) -> None:
        """Take over what an object needs now."""
        for key in self._wanted.put(owner, named):
            self.enqueue(key)

    def enqueue(self, key: Key, after_s: float = 0.0) -> None:
        """Look at a template soon."""
        at_s = self._clock() + after_s
        if at_s < self._due.get(key, float("inf")):
            self._due[key] = at_s
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                now_s = self._clock()
                due = [k for k, at_s in self._due.items() if at_s <= now_s and k not in self._busy]
                for key in due[: WORKERS - len(self._busy)]:
                    del self._due[key]
                    self._busy.add(key)
                    tasks.create_task(self._attempt(key), name=f"template/{key[0]}/{key[1]}")
                waiting = [at_s for k, at_s in self._due.items() if k not in self._busy]
                full = len(self._busy) >= WORKERS
                wait_s = None if full or not waiting else max(0.0, min(waiting) - self._clock())
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _attempt(self, key: Key) -> None:
        try:
            again_s = await self.reconcile(key)
        except errors.KubeError as e:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again_s = _BACKOFF.wait_s(failures, random.SystemRandom())
            log.warning(
                "claims.template_failed",
                namespace=key[0],
                name=key[1],
                error=str(e),
                again_s=again_s,
            )
        else:
            self._failures.pop(key, None)
        finally:
            self._busy.discard(key)
            self._wake.set()
        if again_s is not None:
            self.enqueue(key, again_s)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one template to where it should be.

        Returns:
            Seconds until it must be looked at again even if nothing changes; None for never.

        Raises:
            KubeError: a request failed.
        """
        namespace, name = key
        current = self._templates.get(name, namespace)
        if self._wanted.used(key):
            self._unused_since.pop(key, None)
            wanted = self._wanted.template(key)
            if current is not None and not self._trusted(current):
                await self._delete(current, "not what its name says")
                current = None
            if current is None and wanted is not None:
                await self._create(namespace, wanted)
            return None
        if current is None:
            self._unused_since.pop(key, None)
            return None
        if not self._complete():
            return RECHECK_S
        now_s = self._clock()
        left_s = self._unused_since.setdefault(key, now_s) + self._grace_s - now_s
        if left_s > 0:
            return left_s
        await self._delete(current, "unused")
        return None

    def _trusted(self, current: TemplateRecord) -> bool:
        """Whether it is what its name says.

        One that was made here is, though a newer server may have added fields of its own.
        """
        return current.intact or current.metadata.uid in self._made

    async def _create(self, namespace: str, wanted: Template) -> None:
        body = {
            "apiVersion": CLAIM_TEMPLATES.api_version,
            "kind": CLAIM_TEMPLATES.kind,
            "metadata": {"name": wanted.name, "namespace": namespace, "labels": MANAGED},
            "spec": wanted.spec,
        }
        try:
            made = await self._client.create(
                CLAIM_TEMPLATES.at(namespace=namespace), body, TemplateRecord
            )
        except errors.AlreadyExistsError:
            # Ours, and the watch has yet to show it; or somebody else's.
            there = await self._client.get(
                CLAIM_TEMPLATES.at(wanted.name, namespace=namespace), TemplateRecord
            )
            if there.ours and self._trusted(there):
                return
            await self._delete(there, "not ours")
            made = await self._client.create(
                CLAIM_TEMPLATES.at(namespace=namespace), body, TemplateRecord
            )
        self._made.add(made.metadata.uid)
        self._metrics.made.inc()
        log.info("claims.template_made", namespace=namespace, name=wanted.name)

    async def _delete(self, current: TemplateRecord, why: str) -> None:
        meta = current.metadata
        try:
            await self._client.delete(
                CLAIM_TEMPLATES.at(meta.name, namespace=meta.namespace),
                {"preconditions": {"uid": meta.uid}},
            )
        except errors.NotFoundError:
            return
        self._metrics.removed.inc()
        log.info("claims.template_removed", namespace=meta.namespace, name=meta.name, why=why)
