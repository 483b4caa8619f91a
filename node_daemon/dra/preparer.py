"""Prepares and releases claims: the claim's shares, the ledger, the store, the CDI files."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.domain.root_user import NOT_KNOWN
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.resources import RESOURCE_CLAIMS
from gpu_fraction.node_daemon.dra.claims import ClaimRef, Part, WireClaim, parts
from gpu_fraction.node_daemon.slices.publisher import Publisher
from gpu_fraction.node_daemon.state.allocation import Allocation, Binding, Nonce, PodUid, qualified
from gpu_fraction.node_daemon.state.concurrency import KeyedLocks
from gpu_fraction.node_daemon.state.errors import (
    IsolationError,
    Reason,
    Refusal,
    StoreError,
)
from gpu_fraction.node_daemon.state.node_state import NodeState
from gpu_fraction.node_daemon.state.pods import Container, Pod

DEADLINE_S: Final = 20.0
"""After which a claim is refused; the kubelet waits 45 s. Source: kubelet, cm/dra/plugin."""

READ_S: Final = 8.0
"""Time for one read of a claim with its retries. Chosen: two fit into the deadline."""

POD_WAIT_S: Final = 5.0
"""Longest lag of the pod watch behind the kubelet: chosen, well below the deadline."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prepared:
    """One device of a claim, as the kubelet wants it.

    Attributes:
        cdi: The CDI name; of several devices of one request the first has it for all.
        share: The part of the card that the container gets.
        since_s: When the claim was first prepared, seconds since the epoch.
    """

    request: str
    pool: str
    device: str
    share_id: str | None
    cdi: tuple[str, ...]
    share: CardShare
    since_s: float


class Preparer:
    """The claims of this node."""

    def __init__(
        self,
        state: NodeState,
        publisher: Publisher,
        client: Client,
        has_cgroup: Callable[[PodUid], bool],
    ) -> None:
        """Count a pod as running while it has a cgroup, even if the API server lacks it."""
        self._state = state
        self._publisher = publisher
        self._client = client
        self._has_cgroup = has_cgroup
        self._locks: KeyedLocks[str] = KeyedLocks()

    async def prepare(self, ref: ClaimRef) -> list[Prepared]:
        """Give a claim what it was allocated; repeated, the same again.

        Raises:
            Refusal: its containers may not start now.
        """
        try:
            async with asyncio.timeout(DEADLINE_S), self._locks.of(ref.uid):
                return await self._prepare(ref)
        except TimeoutError as e:
            raise Refusal(
                Reason.NOT_READY, f"{ref} was not prepared within {DEADLINE_S:g} s"
            ) from e

    async def _prepare(self, ref: ClaimRef) -> list[Prepared]:
        claim = await self._read(ref)
        if claim is None:
            raise Refusal(Reason.CLAIM_UNFIT, f"{ref} does not exist")
        await self._publisher.restored.wait()
        inventory = await self._state.inventory.wait()
        prepared: list[Prepared] = []
        for part in parts(claim, ref):
            nonce = ref.nonce(part.request)
            allocation = self._state.store.get(nonce)
            if allocation is None:
                allocation = await self._bind(claim, ref, part, inventory)
            prepared += await self._publish(part, allocation, inventory)
        return prepared

    async def _publish(
        self, part: Part, allocation: Allocation, inventory: Inventory
    ) -> list[Prepared]:
        binding = allocation.binding
        if binding is None:
            raise AssertionError("a claim is bound from the start")
        # No pause for the runtime to notice the file: it makes the pod's sandbox first.
        await self._publisher.publish(allocation.nonce, binding, inventory)
        names: tuple[str, ...] = (qualified(allocation.nonce),)
        found = []
        for result, share in zip(part.results, binding.shares, strict=True):
            found.append(
                Prepared(
                    part.request,
                    result.pool,
                    result.device,
                    result.share_id,
                    names,
                    share,
                    allocation.allocated_at_s,
                )
            )
            names = ()
        return found

    async def _read(self, ref: ClaimRef) -> WireClaim | None:
        """The claim; None where there is none of that name.

        Raises:
            Refusal: the API server does not say.
        """
        address = RESOURCE_CLAIMS.at(ref.name, namespace=ref.namespace)
        try:
            return await self._client.get(address, WireClaim, timeout_s=READ_S)
        except errors.NotFoundError:
            return None
        except errors.KubeError as e:
            raise Refusal(Reason.API_SILENT, f"{ref} could not be read: {e}") from e

    async def _bind(
        self, claim: WireClaim, ref: ClaimRef, part: Part, inventory: Inventory
    ) -> Allocation:
        shares = part.shares(inventory.cards)
        binding = await self._binding(claim, ref, part, shares)
        allocation = Allocation(
            nonce=ref.nonce(part.request),
            token=ref.token,
            sequence=self._state.store.next_sequence(),
            allocated_at_s=time.time(),
            binding=binding,
        )
        self._reserve(binding, ref, inventory)
        try:
            await self._state.store.keep(allocation)
        finally:
            if self._state.store.get(allocation.nonce) is None:
                self._state.ledger.release(binding.key)
        _log.info(
            "claim_prepared",
            namespace=ref.namespace,
            claim=ref.name,
            uid=ref.uid,
            request=part.request,
            pod=binding.pod,
            cards=[share.uuid for share in shares],
        )
        return allocation

    async def _binding(
        self, claim: WireClaim, ref: ClaimRef, part: Part, shares: Sequence[CardShare]
    ) -> Binding:
        if not claim.pods:
            raise Refusal(Reason.CLAIM_UNFIT, f"{ref} is reserved for no pod")
        if part.isolation == "required" and not claim.owned:
            raise Refusal(
                Reason.ISOLATION_MISSING,
                f"{ref} requires isolation, but further pods may use it, which the node does "
                "not limit; use a resourceClaimTemplateName, which makes a claim for each pod",
            )
        consumer = claim.pods[0]
        pod = await self._state.pods.wait_for_uid(PodUid(consumer.uid), POD_WAIT_S)
        users = () if pod is None else pod.users(ref.name, part.request)
        return Binding(
            ref.namespace,
            consumer.name,
            PodUid(consumer.uid),
            # "+" and "/" are in no container's name, so the key is this request's alone.
            "+".join(user.name for user in users) or f"{ref.name}/{part.request}",
            tuple(shares),
            part.isolation,
            NOT_KNOWN if pod is None else pod.root_risk,
            _own_env(pod, users),
        )

    def _reserve(self, binding: Binding, ref: ClaimRef, inventory: Inventory) -> None:
        """Take the shares: the sum over all prepared claims never exceeds a card.

        The scheduler's own books can: a pod that was deleted by force gives its share back while
        its containers still run.

        Raises:
            Refusal: they do not fit, or a container has a share already. Variables that limit
                one share would replace those of the other.
        """
        mine = set(binding.container.split("+"))
        for key in self._state.ledger.holders():
            both = sorted(mine.intersection(key.name.split("+")))
            if key.uid == binding.uid and both:
                raise Refusal(
                    Reason.CLAIM_UNFIT,
                    f"container {both[0]!r} already has a share, and {ref} would give it another; "
                    "ask for several cards with one request and its count",
                )
        cards = {card.uuid: card for card in inventory.cards}
        self._state.ledger.reserve(binding.key, binding.shares, cards)

    async def unprepare(self, ref: ClaimRef) -> None:
        """Take back what a claim has; one that has nothing is no error.

        Raises:
            Refusal: the daemon has just started, and does not know the cards in time.
            IsolationError: not all of it yet; to be tried again.
            StoreError: a file could not be removed.
        """
        async with self._locks.of(ref.uid):
            found = self._state.store.of_token(ref.token)
            if found:
                await self._ready_to_release(ref)
            for allocation in found:
                await self._release(allocation)

    async def _ready_to_release(self, ref: ClaimRef) -> None:
        """Engines release nothing before they have heard of all that is set up."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._publisher.restored.wait()
        except TimeoutError as e:
            message = f"{ref} was not taken back: the cards are not known after {DEADLINE_S:g} s"
            raise Refusal(Reason.NOT_READY, message) from e

    async def _release(self, allocation: Allocation) -> None:
        binding = allocation.binding
        if binding is not None:
            await self._publisher.withdraw(allocation.nonce, binding, last=True)
        await self._state.store.remove(allocation.nonce)
        if binding is not None:
            self._state.ledger.release(binding.key)
        _log.info("slice_released", nonce=allocation.nonce, bound=binding is not None)

    async def sweep(self, inventory: Inventory) -> None:
        """Release what belongs to nobody any more; renew the files of the others.

        The kubelet takes claims back by itself. It cannot where its own state was lost, and not
        what another mode of the daemon has left.
        """
        for allocation in self._state.store:
            async with self._locks.of(self._lock_of(allocation)):
                if self._state.store.get(allocation.nonce) != allocation:
                    continue
                try:
                    await self._look(allocation, inventory)
                except (Refusal, IsolationError, StoreError) as e:
                    _log.error("slice_not_swept", nonce=allocation.nonce, error=str(e))
        for nonce, uid in (await self._publisher.files.present()).items():
            await self._remove_orphan(nonce, uid)

    @staticmethod
    def _lock_of(allocation: Allocation) -> str:
        ref = ClaimRef.of(allocation.token)
        return allocation.token if ref is None else ref.uid

    async def _look(self, allocation: Allocation, inventory: Inventory) -> None:
        binding = allocation.binding
        if binding is None or await self._ended(allocation, binding):
            await self._release(allocation)
        elif await self._publisher.publish(allocation.nonce, binding, inventory):
            _log.info("slice_file_refreshed", nonce=allocation.nonce, uid=binding.uid)

    async def _ended(self, allocation: Allocation, binding: Binding) -> bool:
        if await self._lives(binding.uid):
            return False
        ref = ClaimRef.of(allocation.token)
        claim = None if ref is None else await self._read(ref)
        if ref is None or claim is None or claim.metadata.uid != ref.uid:
            return True
        return claim.status.allocation is None or not claim.pods

    async def _lives(self, uid: PodUid) -> bool:
        return self._state.pods.lives(uid) or await asyncio.to_thread(self._has_cgroup, uid)

    async def _remove_orphan(self, nonce: Nonce, uid: PodUid) -> None:
        if await self._lives(uid) or self._state.store.get(nonce) is not None:
            return
        await self._publisher.remove_orphan(nonce, uid)


def _own_env(pod: Pod | None, users: Sequence[Container]) -> dict[str, str | None] | None:
    """What the container sets itself; unknown where several have the one file."""
    known = pod is not None and pod.tells_frameworks and len(users) == 1
    return dict(users[0].env) if known else None
