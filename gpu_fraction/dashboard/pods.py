"""GPU pods as views show them: what they ask for, and the parts of cards that they hold."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gpu_fraction.dashboard.dra_objects import Claim
from gpu_fraction.dashboard.objects import Condition, Pod
from gpu_fraction.domain import assignment, dra, keys, request_annotation
from gpu_fraction.domain.asks import Ask, AskError, amounts_of, asks_of, rendered_for_us
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.backends import claiming, demand
from gpu_fraction.domain.demand import Demand
from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.pod import Container, containers, is_sidecar
from gpu_fraction.domain.request_annotation import Rendered
from gpu_fraction.domain.units import whole_amount

State = Literal["waiting", "starting", "running", "leaving", "finished"]
"""Not on a node; on a node; containers run; being deleted; ended for good."""

DeviceUuids = Mapping[tuple[str, str], str]
"""The UUID of each device of the driver, by pool and name."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a card that a container, or a claim, holds.

    Attributes:
        node: The card's node.
        uuid: The card.
        core_milli: Thousandths of its compute; 0 for no limit.
        memory_mib: MiB of its memory.
        namespace: The pod's.
        pod: The pod's name; empty for a claim that no pod has reserved.
        uid: The pod's UID; empty likewise.
        container: The container; several that share a claim, joined by ``+``.
        claim: The ResourceClaim that gives it; empty for the annotation ``assigned``.
    """

    node: str
    uuid: str
    core_milli: int
    memory_mib: int
    namespace: str
    pod: str
    uid: str
    container: str
    claim: str = ""


@dataclass(frozen=True)
class PodView:
    """A GPU pod.

    Attributes:
        pod: The decoded pod.
        slices: What it holds; empty while nothing was chosen, and once it has ended.
    """

    pod: Pod
    slices: tuple[Slice, ...] = ()

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.pod.metadata.namespace

    @property
    def name(self) -> str:
        """Its name."""
        return self.pod.metadata.name

    @property
    def uid(self) -> str:
        """Its UID."""
        return self.pod.metadata.uid

    @property
    def node(self) -> str:
        """The node that it is bound to; empty for none."""
        return self.pod.spec.node_name or ""

    @property
    def state(self) -> State:
        """How far it is."""
        if self.pod.finished:
            return "finished"
        if self.pod.metadata.deletion_timestamp is not None:
            return "leaving"
        if not self.node:
            return "waiting"
        return "running" if self.pod.status.phase == "Running" else "starting"

    @property
    def owner(self) -> str:
        """Who runs it: ``Kind/name`` of its controller, or its service account."""
        owner = self.pod.metadata.owner
        if owner is not None:
            return f"{owner.kind}/{owner.name}"
        account = self.pod.spec.service_account_name
        return f"ServiceAccount/{account}" if account else ""

    @property
    def scheduled(self) -> Condition | None:
        """The scheduler's last word; None before it has looked at the pod."""
        return self.pod.condition("PodScheduled")

    @cached_property
    def rendered(self) -> Rendered | None:
        """The request that the webhook wrote; None where absent or unreadable."""
        return request_annotation.find(self.pod.annotations)

    @cached_property
    def demand(self) -> Demand:
        """What it costs, on every stack that it asks."""
        return demand(self.pod.domain())

    @cached_property
    def backends(self) -> tuple[str, ...]:
        """The stacks that give it GPUs; empty where no container names their resources."""
        found = tuple(stack.name for stack, _ in claiming(self.pod.domain()))
        return found or ((self.rendered.backend,) if self.rendered else ())

    @cached_property
    def asks(self) -> tuple[Ask, ...]:
        """What each container asks of our own scheduler; none for other stacks."""
        return self._asked[0]

    @cached_property
    def problem(self) -> str:
        """Why our own scheduler can never serve it; empty where it can."""
        return self._asked[1]

    @cached_property
    def _asked(self) -> tuple[tuple[Ask, ...], str]:
        found = [at for at in containers(self.pod.domain()) if at.kind != "ephemeralContainers"]
        initial = [at for at in found if at.kind == "initContainers" and not is_sidecar(at)]
        try:
            rendered = rendered_for_us(self.pod.annotations)
            running = (at.container for at in found if at not in initial)
            return asks_of(rendered, _named(running), _named(at.container for at in initial)), ""
        except AskError as e:
            return (), str(e)

    @cached_property
    def assignment(self) -> Assignment:
        """Its cards in the annotation; empty where there is none, or none that can be read."""
        return assignment.find(self.pod.annotations)

    @property
    def assignment_problem(self) -> str:
        """Why the annotation cannot be read; empty where it can, or is missing."""
        if (text := self.pod.annotations.get(keys.ASSIGNED)) is None:
            return ""
        try:
            assignment.parse(text)
        except assignment.AssignmentError as e:
            return f"{keys.ASSIGNED}: {e}"
        return ""


def _named(found: Iterable[Container]) -> list[tuple[str, Mapping[str, int]]]:
    return [
        (one.name, amounts_of(one.resources.limits, one.resources.requests))
        if one.resources
        else (one.name, {})
        for one in found
    ]


def assigned_slices(pod: Pod) -> Iterator[Slice]:
    """The slices in a pod's annotation; none before it is bound and after it has ended."""
    node = pod.spec.node_name
    if not node or pod.finished:
        return
    meta = pod.metadata
    for container, shares in assignment.find(pod.annotations).items():
        for share in shares:
            amounts = share.core_milli, share.memory_mib
            where = meta.namespace, meta.name, meta.uid, container
            yield Slice(node, share.uuid, *amounts, *where)


def claim_slices(
    claim: Claim, pods: Mapping[str, Pod], uuids: DeviceUuids, cards: Mapping[str, Card]
) -> Iterator[Slice]:
    """The slices that a ResourceClaim holds of our driver's devices.

    Args:
        claim: The claim.
        pods: The known pods by UID.
        uuids: The card of each device.
        cards: The known cards by UUID in lower case.
    """
    allocation = claim.status.allocation
    holders = [c for c in claim.status.reserved_for or () if c.resource == "pods"]
    holder = holders[0] if holders else None
    pod = pods.get(holder.uid) if holder else None
    for result in (allocation.devices.results if allocation else None) or ():
        if result.driver != dra.DRIVER:
            continue
        # The name of a device is the UUID in lower case, unless the UUID is an unusual one.
        named = uuids.get((result.pool, result.device), result.device)
        card = cards.get(named.lower())
        uuid = card.uuid if card else named
        given = {name: whole_amount(v) for name, v in (result.consumed_capacity or {}).items()}
        memory_mib = card.memory_mib if card else 0
        core_milli = card.core_milli if card else dra.CARD_CORES
        if given and not (card and card.parent):
            core_milli = given.get(dra.CORES, core_milli)
            ppm = given.get(dra.MEMORY_PPM, dra.CARD_MEMORY_PPM)
            memory_mib = memory_mib * ppm // dra.CARD_MEMORY_PPM
        yield Slice(
            result.pool,
            uuid,
            core_milli,
            memory_mib,
            claim.metadata.namespace,
            holder.name if holder else "",
            holder.uid if holder else "",
            _users(claim.metadata.name, pod) if pod else "",
            claim.metadata.name,
        )


def _users(claim: str, pod: Pod) -> str:
    """The containers of a pod that use a ResourceClaim."""
    made = {s.name: s.resource_claim_name for s in pod.status.resource_claim_statuses or ()}
    names = {
        ref.name
        for ref in pod.spec.resource_claims or ()
        if claim in (ref.resource_claim_name, made.get(ref.name))
    }
    return "+".join(
        at.container.name for at in containers(pod.domain()) if names & _claims(at.container)
    )


def _claims(container: Container) -> set[str]:
    used = container.resources.claims if container.resources else None
    return {ref.name for ref in used or ()}
