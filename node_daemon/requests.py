"""What a pod asks of the cards, and the choice where no scheduler made one."""

from collections.abc import Mapping
from dataclasses import replace

from gpu_fraction.domain import keys, placement, request_annotation
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.domain.request_annotation import RequestAnnotationError
from node_daemon.errors import Reason, Refusal
from node_daemon.ledger import Usage
from node_daemon.pods import Pod

__all__ = ["PlacementChooser", "asks", "demand"]


def asks(pod: Pod) -> tuple[placement.Ask, ...]:
    """One ask for each container that holds a slot, in the pod's order.

    The webhook's canonical request decides where the pod has one; a pod that asks for the
    resources directly is taken at its word, as one card a container.

    Raises:
        Refusal: the request cannot be read, or says less than a choice needs.
    """
    text = pod.annotations.get(keys.REQUEST)
    if text is None:
        return tuple(_plain(pod, name) for name in _holders(pod))
    try:
        request = request_annotation.load(text).request
    except RequestAnnotationError as e:
        raise Refusal(Reason.ASSIGNMENT_INVALID, f"{keys.REQUEST}: {e}", pod.ref) from e
    return tuple(_settled(pod, ask) for ask in placement.asks_of_request(request))


def _settled(pod: Pod, ask: placement.Ask) -> placement.Ask:
    container = pod.container(ask.container)
    limits: Mapping[str, int] = container.limits if container else {}
    return ask.settled(limits.get(keys.CORE_MILLI), limits.get(keys.MEMORY_MIB))


def demand(pod: Pod) -> placement.Isolation:
    """What the pod asks of isolation.

    Raises:
        Refusal: its request cannot be read.
    """
    if pod.annotations.get(keys.REQUEST) is None:
        return "preferred"
    return next((ask.isolation for ask in asks(pod)), "preferred")


def _holders(pod: Pod) -> tuple[str, ...]:
    return tuple(c.name for c in pod.containers if c.holds_slot and c.kind != "init")


def _plain(pod: Pod, name: str) -> placement.Ask:
    container = pod.container(name)
    limits: Mapping[str, int] = container.limits if container else {}
    memory_mib = limits.get(keys.MEMORY_MIB, 0)
    if memory_mib < 1:
        raise Refusal(
            Reason.NO_PLACEMENT,
            f"container {name!r} has no {keys.REQUEST} and no limit of {keys.MEMORY_MIB}, "
            "so that its size is unknown",
            pod.ref,
        )
    core_milli = min(limits.get(keys.CORE_MILLI, 0), placement.ask.MILLI)
    return placement.Ask(container=name, core_milli=core_milli, memory_mib=memory_mib)


class PlacementChooser:
    """Chooses as the scheduler extender would, on this node alone."""

    def choose(self, pod: Pod, inventory: Inventory, used: Mapping[str, Usage]) -> Assignment:
        """Cards for every container that holds a slot.

        Raises:
            Refusal: they do not fit now, with the reason for each card.
        """
        wanted = asks(pod)
        cards = [
            _taken(card, used.get(card.uuid, Usage())) for card in placement.empty(inventory.cards)
        ]
        placed = placement.choose(cards, wanted) if wanted else None
        if placed is None:
            why = placement.explain(cards, wanted) if wanted else "no container holds a slot"
            raise Refusal(Reason.NO_PLACEMENT, why, pod.ref)
        return placed.assignment


def _taken(card: placement.CardState, used: Usage) -> placement.CardState:
    return replace(
        card,
        free_core_milli=card.free_core_milli - used.core_milli,
        free_memory_mib=card.free_memory_mib - used.memory_mib,
        free_slots=card.free_slots - used.slots,
    )
