"""Late binding: a name at ``Allocate``, its content at ``PreStartContainer``."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from gpu_fraction.domain import keys
from gpu_fraction.node_daemon.slices.identity import Claimant, Identity
from gpu_fraction.node_daemon.slices.publisher import Publisher
from gpu_fraction.node_daemon.slices.shares import Shares, asked, verify
from gpu_fraction.node_daemon.state.allocation import Allocation, Binding, Nonce, Token
from gpu_fraction.node_daemon.state.concurrency import KeyedLocks
from gpu_fraction.node_daemon.state.errors import Reason, Refusal
from gpu_fraction.node_daemon.state.node_state import NodeState
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import seconds

NONCE_BYTES: Final = 16
"""Random bytes of a name: chosen, so that no two are ever equal."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timing:
    """Waits of a container start.

    Attributes:
        settle_s: In which the container runtime notices the file. Measured: 1 ms is enough on an
            idle machine.
        listed_s: Age from which an allocation is certainly in the kubelet's list, which it enters
            right after the answer to ``Allocate``. Chosen: a wide margin.
        deadline_s: After which a ``PreStartContainer`` is refused; the kubelet waits 30 s.
            Source: kubernetes deviceplugin/v1beta1/constants.go.
    """

    settle_s: float = setting(seconds(0, 1), 0.03, "pause after writing a CDI file")
    listed_s: float = 5.0
    deadline_s: float = 20.0


class LateBinder:
    """Binds each container to its own slice."""

    def __init__(
        self,
        state: NodeState,
        identity: Identity,
        shares: Shares,
        publisher: Publisher,
        timing: Timing,
    ) -> None:
        self._state = state
        self._store = state.store
        self._identity = identity
        self._shares = shares
        self._publisher = publisher
        self._timing = timing
        self.locks: KeyedLocks[Token] = KeyedLocks()
        self.ready = asyncio.Event()
        """Set once the stored allocations have been compared with the node."""
        self.changed = asyncio.Event()
        """Set after each new binding; the reader clears it."""

    async def allocate(self, ids: Sequence[str]) -> Nonce:
        """A fresh CDI name for a token, stored before it is returned.

        Raises:
            Refusal: not one token, or the name could not be remembered.
        """
        token = _single(ids)
        allocation = Allocation(
            nonce=Nonce(secrets.token_hex(NONCE_BYTES)),
            token=token,
            sequence=self._store.next_sequence(),
            allocated_at_s=self._identity.now_s(),
        )
        await self._store.keep(allocation)
        return allocation.nonce

    async def pre_start(self, ids: Sequence[str]) -> Binding:
        """Write the slice of the container that is about to start under its CDI name.

        Called before every start of a container; the second and later calls find the same
        slice.

        Raises:
            Refusal: the container may not start now.
        """
        token = _single(ids)
        try:
            async with asyncio.timeout(self._timing.deadline_s), self.locks.of(token):
                return await self._pre_start(token)
        except TimeoutError as e:
            raise Refusal(
                Reason.NOT_READY, f"the slice was not ready within {self._timing.deadline_s:g} s"
            ) from e

    async def _pre_start(self, token: Token) -> Binding:
        allocations = self._store.of_token(token)
        if not allocations:
            raise Refusal(
                Reason.TOKEN_UNKNOWN,
                f"slot {token} is unknown because the daemon's state was lost; "
                "delete the pod so that the kubelet allocates again",
            )
        latest = allocations[-1]
        if latest.binding is not None:
            # No Allocate came for this token since it was bound, so its holder is the same.
            await self._restart(latest, latest.binding)
            return latest.binding
        await self.ready.wait()
        claimant = await self._identity.claimant(token, allocations)
        try:
            return await self._bind(claimant)
        except Refusal as e:
            raise e.about(claimant.pod.ref) from e

    async def _restart(self, allocation: Allocation, binding: Binding) -> None:
        pod = self._state.pods.by_uid(binding.uid)
        if self._state.pods.synced and (pod is None or pod.ended):
            raise Refusal(
                Reason.POD_ENDED,
                f"slot {allocation.token} belongs to pod {binding.namespace}/{binding.pod} "
                f"({binding.uid}), which has ended",
            )
        try:
            await self._publish(allocation.nonce, binding)
        except Refusal as e:
            raise e.about(*([pod.ref] if pod else [])) from e

    async def _bind(self, claimant: Claimant) -> Binding:
        pod, container = claimant.pod, claimant.container
        allocation = self._store.get(claimant.nonce)
        if allocation is None:
            raise Refusal(Reason.TOKEN_UNKNOWN, "the allocation has been released")
        if allocation.binding is not None:
            return await self._again(allocation, allocation.binding, claimant)
        if pod.ended:
            raise Refusal(Reason.POD_ENDED, f"pod {pod.uid} has ended")
        inventory = await self._state.inventory.wait()
        ask = asked(pod)[container.name]
        shares = await self._shares.of(pod, container.name, inventory)
        verify(ask, shares, inventory)
        binding = Binding(
            pod.namespace,
            pod.name,
            pod.uid,
            container.name,
            shares,
            ask.isolation,
            pod.root_risk,
            dict(container.env) if pod.tells_frameworks else None,
        )
        held = binding.key in self._state.ledger
        self._state.ledger.reserve(binding.key, shares, {c.uuid: c for c in inventory.cards})
        try:
            await self._store.keep(msgspec.structs.replace(allocation, binding=binding))
        finally:
            if not held and not self._store.of_container(binding.key):
                self._state.ledger.release(binding.key)
        self.changed.set()
        _log.info(
            "slice_bound",
            namespace=pod.namespace,
            pod=pod.name,
            uid=pod.uid,
            container=container.name,
            nonce=allocation.nonce,
            cards=[share.uuid for share in shares],
        )
        await self._publish(allocation.nonce, binding)
        return binding

    async def _again(
        self, allocation: Allocation, binding: Binding, claimant: Claimant
    ) -> Binding:
        """Start a container again whose binding is under an earlier name of the token."""
        if (binding.uid, binding.container) != (claimant.pod.uid, claimant.container.name):
            raise Refusal(
                Reason.TOKEN_SHARED,
                f"the kubelet gave the CDI name of container {binding.container!r} of pod "
                f"{binding.namespace}/{binding.pod} to another container",
            )
        await self._restart(allocation, binding)
        return binding

    async def _publish(self, nonce: Nonce, binding: Binding) -> None:
        """Write the slice's file, and give the runtime time to notice it."""
        if not self._publisher.restored.is_set():
            if await self._publisher.files.exists(nonce, binding.uid):
                return
            await self._publisher.restored.wait()
        inventory = await self._state.inventory.wait()
        if await self._publisher.publish(nonce, binding, inventory):
            await asyncio.sleep(self._timing.settle_s)


def _single(ids: Sequence[str]) -> Token:
    if len(ids) != 1:
        raise Refusal(
            Reason.TOKEN_COUNT,
            f"a container must request exactly 1 of {keys.SLOT}, got {len(ids)}",
        )
    return Token(ids[0])
