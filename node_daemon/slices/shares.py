"""The cards of a container: those assigned to it, else those chosen here."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from gpu_fraction.domain import assignment, keys, placement
from gpu_fraction.domain.asks import Ask, AskError, asks_of, rendered_for_us
from gpu_fraction.domain.assignment import Assignment, AssignmentError, CardShare
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.state.allocation import ContainerKey, PodUid
from gpu_fraction.node_daemon.state.errors import ApiUnavailableError, PodRef, Reason, Refusal
from gpu_fraction.node_daemon.state.ledger import Ledger, Usage
from gpu_fraction.node_daemon.state.pods import Pod, PodCache

_log = structlog.get_logger()


class Assigner(Protocol):
    """Writes the ``assigned`` annotation."""

    async def assign(self, pod: PodRef, text: str) -> None:
        """Annotate the pod, provided it is that UID.

        Raises:
            Refusal: the pod no longer exists.
            ApiUnavailableError: not confirmed; it may have been written all the same.
        """
        ...


class Shares:
    """Finds the shares of a container; chooses and records them if no scheduler has."""

    def __init__(self, ledger: Ledger, pods: PodCache, assigner: Assigner) -> None:
        self._ledger = ledger
        self._pods = pods
        self._assigner = assigner
        self._chosen: dict[PodUid, Assignment] = {}
        self._locks: dict[PodUid, asyncio.Lock] = {}

    async def of(self, pod: Pod, container: str, inventory: Inventory) -> tuple[CardShare, ...]:
        """The shares of one container.

        Raises:
            Refusal: the assignment is invalid or lacks the container, it does not fit, or the
                choice could not be recorded.
        """
        decided = assigned(pod)
        if decided is None:
            decided = await self._choose(pod, inventory)
        if container not in decided:
            raise Refusal(
                Reason.ASSIGNMENT_INVALID,
                f"{keys.ASSIGNED} does not list container {container!r}, which requests a slot",
            )
        return decided[container]

    def forget(self, uid: PodUid) -> None:
        """Drop the choice for a pod that is gone."""
        self._chosen.pop(uid, None)
        self._locks.pop(uid, None)

    async def _choose(self, pod: Pod, inventory: Inventory) -> Assignment:
        """One choice a pod, held in the ledger from the moment it is made.

        The choice outlives a failed write: whether the API server took it is then unknown, and
        another choice might contradict it.
        """
        async with self._locks.setdefault(pod.uid, asyncio.Lock()):
            seen = self._pods.by_uid(pod.uid)
            if seen is not None and (decided := assigned(seen)) is not None:
                return decided
            chosen = self._chosen.get(pod.uid)
            if chosen is None:
                chosen = choose(pod, inventory, self._used(pod.uid))
                self._reserve(pod.uid, chosen, inventory)
                self._chosen[pod.uid] = chosen
                _log.info("cards_chosen", namespace=pod.namespace, pod=pod.name, uid=pod.uid)
            try:
                await self._assigner.assign(pod.ref, assignment.render(chosen))
            except ApiUnavailableError as e:
                raise Refusal(
                    Reason.API_SILENT, f"the chosen cards could not be recorded: {e}"
                ) from e
            return chosen

    def _reserve(self, uid: PodUid, chosen: Assignment, inventory: Inventory) -> None:
        cards = {card.uuid: card for card in inventory.cards}
        taken: list[ContainerKey] = []
        try:
            for name, shares in chosen.items():
                key = ContainerKey(uid, name)
                if key not in self._ledger:
                    self._ledger.reserve(key, shares, cards)
                    taken.append(key)
        except Refusal:
            for key in taken:
                self._ledger.release(key)
            raise

    def _used(self, uid: PodUid) -> dict[str, Usage]:
        """The usage of the cards, with pods that have an assignment but no binding yet."""
        used = self._ledger.usage()
        for pod in self._pods.living():
            if pod.uid == uid:
                continue
            try:
                decided = assigned(pod) or {}
            except Refusal:
                continue
            for name, shares in decided.items():
                if ContainerKey(pod.uid, name) not in self._ledger:
                    for share in shares:
                        used[share.uuid] = used.get(share.uuid, Usage()).plus(share)
        return used


def assigned(pod: Pod) -> Assignment | None:
    """The pod's assignment; None where it has none.

    Raises:
        Refusal: the annotation is no assignment.
    """
    text = pod.annotations.get(keys.ASSIGNED)
    if text is None:
        return None
    try:
        return assignment.parse(text)
    except AssignmentError as e:
        raise Refusal(Reason.ASSIGNMENT_INVALID, f"{keys.ASSIGNED}: {e}", pod.ref) from e


def asked(pod: Pod) -> dict[str, Ask]:
    """The request of each container that gets cards, as the extender and quotas read it.

    Raises:
        Refusal: the pod cannot be served as it is written.
    """
    # The extender's order, in which the cards are chosen: sidecars last.
    ordered = sorted(pod.containers, key=lambda c: c.kind == "sidecar")
    running = ((c.name, c.limits) for c in ordered if c.kind != "init")
    init = ((c.name, c.limits) for c in ordered if c.kind == "init")
    try:
        found = asks_of(rendered_for_us(pod.annotations), running, init)
    except AskError as e:
        raise Refusal(Reason.CONTAINER_UNFIT, str(e), pod.ref) from e
    return {ask.container: ask for ask in found}


def choose(pod: Pod, inventory: Inventory, used: Mapping[str, Usage]) -> Assignment:
    """Cards for every container that gets some, as the extender would choose on this node alone.

    At least one container of the pod asks for cards.

    Raises:
        Refusal: they do not fit now, with the reason for each card.
    """
    wanted = tuple(asked(pod).values())
    cards = [
        card.drawn(taken.core_milli, taken.memory_mib, taken.slots)
        for card in placement.empty(inventory.cards)
        for taken in (used.get(card.uuid, Usage()),)
    ]
    placed = placement.choose(cards, wanted)
    if placed is None:
        raise Refusal(Reason.NO_PLACEMENT, placement.explain(cards, wanted), pod.ref)
    return placed.assignment


def verify(ask: Ask, shares: Sequence[CardShare], inventory: Inventory) -> None:
    """Check an assignment against what the container asks for and what the cards can do.

    Raises:
        Refusal: they differ, or a card is unknown, sick or cannot enforce.
    """
    for resource, each, total in (
        (keys.CORE_MILLI, ask.core_milli, sum(share.core_milli for share in shares)),
        (keys.MEMORY_MIB, ask.memory_mib, sum(share.memory_mib for share in shares)),
    ):
        if each is not None and each * ask.cards != total:
            raise Refusal(
                Reason.ASSIGNMENT_INVALID,
                f"container {ask.container!r} requests {each * ask.cards} of {resource}, "
                f"but its assignment gives {total}",
            )
    cards = {card.uuid: card for card in inventory.cards}
    for share in shares:
        card = cards.get(share.uuid)
        if card is None:
            raise Refusal(Reason.CARD_UNKNOWN, f"this node has no card {share.uuid!r}")
        if not card.healthy:
            why = card.health_reason or "no reason given"
            raise Refusal(Reason.CARD_UNHEALTHY, f"card {card.uuid} is not healthy: {why}")
        (state,) = placement.empty([card])
        due_mib = placement.share_of(ask, state.kind).memory_mib
        # Another driver or reserve can have changed the card's memory since it was assigned. The
        # annotation cannot change, so a smaller share still starts.
        if ask.memory_mib is None and share.memory_mib > due_mib:
            raise Refusal(
                Reason.ASSIGNMENT_INVALID,
                f"container {ask.container!r} requests {ask.describe()}, {due_mib} MiB of card "
                f"{card.uuid}, but its assignment gives {share.memory_mib} MiB",
            )
        taken = placement.Share(share.core_milli, share.memory_mib)
        loose = placement.unenforced(ask, state.kind, taken)
        if loose and ask.isolation == "required":
            raise Refusal(
                Reason.ISOLATION_MISSING,
                f"{keys.ISOLATION} is required, but card {card.uuid} (engine "
                f"{card.isolation!r}) does not enforce {loose}",
            )
