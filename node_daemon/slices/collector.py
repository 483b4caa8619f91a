"""Releases the slices of containers that are gone, and keeps the files of the others in place."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import structlog

from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.kubelet.pod_resources import Listing
from gpu_fraction.node_daemon.slices.binder import LateBinder
from gpu_fraction.node_daemon.slices.identity import Identity
from gpu_fraction.node_daemon.slices.publisher import Publisher
from gpu_fraction.node_daemon.slices.shares import Shares, assigned
from gpu_fraction.node_daemon.state.allocation import (
    Allocation,
    Binding,
    ContainerKey,
    PodUid,
)
from gpu_fraction.node_daemon.state.errors import IsolationError, KubeletError, Refusal, StoreError
from gpu_fraction.node_daemon.state.node_state import NodeState

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """Intervals of the collector's looks.

    Attributes:
        idle_s: Pause between two looks without an event; the kubelet's list is asked
            rarely, as each question can make it give one id twice.
        missing_s: Least time between the two looks that must both miss something.
        unbound_s: Age from which an allocation without a holder is dropped. Chosen: far above
            the moment between the answer to ``Allocate`` and its place in the kubelet's list.
        lingering_s: Pause while a pod that is gone from the API still runs on this host.
        retry_s: Pause after the kubelet did not answer.
    """

    idle_s: float = 60.0
    missing_s: float = 2.0
    unbound_s: float = 60.0
    lingering_s: float = 5.0
    retry_s: float = 5.0


class Collector:
    """Compares stored allocations with pods, the kubelet's list and the CDI directory."""

    def __init__(
        self,
        state: NodeState,
        identity: Identity,
        shares: Shares,
        publisher: Publisher,
        binder: LateBinder,
        *,
        has_cgroup: Callable[[PodUid], bool],
        pace: Pace,
    ) -> None:
        """Count a pod as running while it has a cgroup, even if the API server lacks it."""
        self._state = state
        self._store = state.store
        self._ledger = state.ledger
        self._pods = state.pods
        self._identity = identity
        self._shares = shares
        self._publisher = publisher
        self._binder = binder
        self._has_cgroup = has_cgroup
        self._pace = pace
        self._missing: dict[Hashable, float] = {}

    async def run(self) -> None:
        """Reconcile once, then again after each departure and after each pause."""
        await self._pods.wait_synced()
        self._adopt()
        await self.refresh(await self._state.inventory.wait())
        self._binder.ready.set()
        while True:
            self._pods.departed.clear()
            try:
                await self.sweep()
                pause = self._pause_s()
            except KubeletError as e:
                _log.warning("sweep_postponed", error=str(e))
                pause = self._pace.retry_s
            try:
                async with asyncio.timeout(pause):
                    await self._pods.departed.wait()
            except TimeoutError:
                continue

    def _pause_s(self) -> float:
        if self._missing:
            return self._pace.missing_s
        lingering = any(not self._pods.lives(key.uid) for key in self._ledger.holders())
        return self._pace.lingering_s if lingering else self._pace.idle_s

    def _adopt(self) -> None:
        """Count running containers whose allocation is not stored."""
        for pod in self._pods.living():
            unread = False
            try:
                decided = assigned(pod) or {}
            except Refusal as e:
                _log.error("assignment_unreadable", pod=pod.name, uid=pod.uid, error=str(e))
                decided, unread = {}, True
            for container in pod.containers:
                key = ContainerKey(pod.uid, container.name)
                if not container.started or key in self._ledger:
                    continue
                if unread and container.holds_slot:
                    self._ledger.record_unknown(key)
                elif container.name in decided:
                    _log.warning(
                        "container_adopted", pod=pod.name, uid=pod.uid, container=key.name
                    )
                    self._ledger.record(key, decided[container.name])

    async def refresh(self, inventory: Inventory) -> None:
        """Write the files of living pods anew where they are absent or out of date."""
        for allocation in self._store:
            binding = allocation.binding
            if binding is None or not self._pods.lives(binding.uid):
                continue
            async with self._binder.locks.of(allocation.token):
                if self._store.get(allocation.nonce) != allocation:
                    continue
                try:
                    if await self._publisher.publish(allocation.nonce, binding, inventory):
                        _log.info("slice_file_refreshed", nonce=allocation.nonce, uid=binding.uid)
                except Refusal as e:
                    _log.error("slice_file_stale", nonce=allocation.nonce, error=str(e))

    async def sweep(self) -> None:
        """One look; what was missing in an earlier look too is released.

        Raises:
            KubeletError: the kubelet did not answer; nothing was released.
        """
        listing = await self._identity.pod_resources.fresh()
        present = await self._publisher.files.present()
        missing = self._missing
        self._missing = {}
        for allocation in self._store:
            lost = await self._lost(allocation, listing)
            if lost and self._due(allocation.nonce, missing):
                await self._release(allocation)
        for nonce, uid in present.items():
            orphan = self._store.get(nonce) is None and not self._lives(uid)
            if orphan and self._due((nonce, uid), missing):
                await self._publisher.remove_orphan(nonce, uid)
        for key in self._ledger.holders():
            unbound = not self._store.of_container(key) and not self._lives(key.uid)
            if unbound and self._due(key, missing):
                self._ledger.release(key)
                self._shares.forget(key.uid)
        if self._state.inventory.value is not None:
            await self.refresh(self._state.inventory.value)

    def _lives(self, uid: PodUid) -> bool:
        return self._pods.lives(uid) or self._has_cgroup(uid)

    async def _lost(self, allocation: Allocation, listing: Listing) -> bool:
        """True where no container can hold the allocation any more, judged by this look alone."""
        holders = listing.of(allocation.token)
        binding = allocation.binding
        if binding is None:
            age_s = self._identity.now_s() - allocation.allocated_at_s
            listed = holders or age_s <= self._pace.unbound_s
            return not listed and not await self._awaited(allocation)
        latest = self._store.of_token(allocation.token)[-1]
        held = latest == allocation and any(
            (h.namespace, h.pod, h.container)
            == (binding.namespace, binding.pod, binding.container)
            for h in holders
        )
        return not held and not self._lives(binding.uid)

    async def _awaited(self, allocation: Allocation) -> bool:
        """True where a container may yet start under a name that the kubelet does not list.

        After its start the kubelet lists no pod until it has heard of them, which may take as
        long as the API server is down. It keeps its allocations and asks for no other name.
        """
        entries = await asyncio.to_thread(self._identity.checkpoint.entries, allocation.token)
        if entries is not None:
            return any(entry.nonce in {None, allocation.nonce} for entry in entries)
        containers = (c for pod in self._pods.living() for c in pod.containers)
        return any(c.holds_slot and not c.started for c in containers)

    def _due(self, key: Hashable, missing: dict[Hashable, float]) -> bool:
        """True where it was also missing in an earlier look, long enough ago; else record it."""
        now = asyncio.get_running_loop().time()
        since = missing.get(key)
        if since is not None and now - since >= self._pace.missing_s:
            return True
        self._missing[key] = now if since is None else since
        return False

    async def _release(self, allocation: Allocation) -> None:
        """Release an allocation: its isolation and file first, the stored record last."""
        async with self._binder.locks.of(allocation.token):
            if self._store.get(allocation.nonce) != allocation:
                return
            binding = allocation.binding
            try:
                if binding is not None:
                    names = self._store.of_container(binding.key)
                    last = len(names) == 1
                    await self._publisher.withdraw(allocation.nonce, binding, last=last)
                await self._store.remove(allocation.nonce)
            except (IsolationError, StoreError) as e:
                _log.error("release_postponed", nonce=allocation.nonce, error=str(e))
                self._missing[allocation.nonce] = asyncio.get_running_loop().time()
                return
        if binding is not None:
            self._forget(binding)
        _log.info("slice_released", nonce=allocation.nonce, bound=binding is not None)

    def _forget(self, binding: Binding) -> None:
        if not self._store.of_container(binding.key):
            self._ledger.release(binding.key)
        self._shares.forget(binding.uid)
        self._binder.changed.set()
