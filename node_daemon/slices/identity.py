"""Finds the container that a ``PreStartContainer`` is for.

The kubelet names only its token. PodResources names the pod and container that hold it, the
watch names the pod's UID, and the kubelet's checkpoint, where it can be read, must agree.
Any doubt is a refusal; the kubelet tries again.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gpu_fraction.node_daemon.kubelet.checkpoint import Checkpoint, Entry
from gpu_fraction.node_daemon.kubelet.pod_resources import Holder, PodResourcesClient
from gpu_fraction.node_daemon.state.allocation import Allocation, Nonce, Token
from gpu_fraction.node_daemon.state.errors import KubeletError, Reason, Refusal
from gpu_fraction.node_daemon.state.pods import Container, Pod, PodCache

POD_WAIT_S: Final = 5.0
"""Longest lag of the pod watch behind the kubelet: chosen, well below its 30 s."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A container about to start, and the name that the kubelet was given for it."""

    pod: Pod
    container: Container
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class Identity:
    """Finds the claimant of a token.

    Attributes:
        now_s: Wall clock, seconds since the epoch.
        listed_s: Age from which an allocation is certainly in the kubelet's list.
    """

    pod_resources: PodResourcesClient
    checkpoint: Checkpoint
    pods: PodCache
    now_s: Callable[[], float]
    listed_s: float

    async def claimant(self, token: Token, allocations: Sequence[Allocation]) -> Claimant:
        """The one container that holds ``token``.

        Args:
            token: The device id in the kubelet's request.
            allocations: Every allocation of that token, the latest last, at least one.

        Raises:
            Refusal: not exactly one container, or a doubt about which pod or name it is.
        """
        holder = await self._holder(token)
        pod = await self.pods.wait_for(holder.namespace, holder.pod, POD_WAIT_S)
        if pod is None:
            raise Refusal(
                Reason.POD_UNKNOWN,
                f"the API server has not reported pod {holder.namespace}/{holder.pod} yet",
            )
        try:
            container = _container(pod, holder.container)
            entries = await asyncio.to_thread(self.checkpoint.entries, token)
            return Claimant(pod, container, self._nonce(pod, holder, entries, allocations))
        except Refusal as e:
            raise e.about(pod.ref) from e

    async def _holder(self, token: Token) -> Holder:
        try:
            listing = await self.pod_resources.fresh()
        except KubeletError as e:
            raise Refusal(Reason.KUBELET_SILENT, str(e)) from e
        holders = listing.of(token)
        if not holders:
            raise Refusal(
                Reason.NOT_LISTED,
                f"the kubelet lists no container with slot {token}; it never lists a regular "
                "init container, so none can hold a slot",
            )
        names = sorted({f"{h.namespace}/{h.pod}/{h.container}" for h in holders})
        if len(holders) > 1:
            known = (self.pods.get(h.namespace, h.pod) for h in holders)
            raise Refusal(
                Reason.TOKEN_SHARED,
                f"the kubelet gave slot {token} to {len(holders)} containers: {', '.join(names)}; "
                "delete all but one of these pods",
                *(pod.ref for pod in known if pod is not None),
            )
        holder = holders[0]
        if holder.tokens != {token}:
            raise Refusal(
                Reason.TOKEN_COUNT,
                f"{names[0]} holds {len(holder.tokens)} slots; a container must hold exactly 1",
            )
        if listing.pods.get((holder.namespace, holder.pod), 0) > 1:
            raise Refusal(
                Reason.POD_REPLACED,
                f"the kubelet runs two pods named {holder.namespace}/{holder.pod}; "
                "the newer pod starts when the older one is gone",
            )
        return holder

    def _nonce(
        self,
        pod: Pod,
        holder: Holder,
        entries: Sequence[Entry] | None,
        allocations: Sequence[Allocation],
    ) -> Nonce:
        """The name that the kubelet holds for this container."""
        if entries:
            return _attested(pod, holder, entries, allocations)
        latest = allocations[-1]
        if len(allocations) > 1 and self.now_s() - latest.allocated_at_s < self.listed_s:
            raise Refusal(
                Reason.TOKEN_RECENT,
                f"slot {latest.token} was allocated twice within {self.listed_s:g} s",
            )
        return latest.nonce


def _attested(
    pod: Pod, holder: Holder, entries: Sequence[Entry], allocations: Sequence[Allocation]
) -> Nonce:
    """The name that the kubelet's checkpoint holds."""
    mine = [e for e in entries if e.uid == pod.uid and e.container == holder.container]
    if not mine:
        raise Refusal(
            Reason.POD_REPLACED,
            f"the kubelet's checkpoint gives this slot to another pod; pod {pod.uid} has the "
            f"name {pod.namespace}/{pod.name} now",
        )
    known = {allocation.nonce for allocation in allocations}
    nonce = mine[-1].nonce
    if nonce is None or nonce not in known:
        raise Refusal(
            Reason.TOKEN_UNKNOWN,
            "the kubelet has a CDI name that is unknown to this daemon; "
            "delete the pod so that the kubelet allocates again",
        )
    return nonce


def _container(pod: Pod, name: str) -> Container:
    container = pod.container(name)
    if container is None or not container.holds_slot:
        raise Refusal(
            Reason.CONTAINER_UNFIT, f"container {name!r} does not request a slot in the pod's spec"
        )
    return container
