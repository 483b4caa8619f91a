"""Our own stack: slot, core-milli and memory-mib, under our own scheduler."""

from dataclasses import dataclass, field

from gpu_fraction.domain import assignment, keys, request_annotation, units
from gpu_fraction.domain.backends.base import BackendConfig, Draft, amount_of, settled
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.request import Refused, Request, Slice
from gpu_fraction.domain.tally import Demand, aggregate

__all__ = ["Native"]


@dataclass(frozen=True, slots=True)
class Native:
    """Slices that this project's node daemon hands out."""

    config: BackendConfig = field(default_factory=BackendConfig)
    name: str = keys.NATIVE

    def render(self, request: Request, pod: Pod) -> PodEdit:  # noqa: ARG002 - the Protocol's
        """One slot a container, compute and memory over all its cards."""
        draft = Draft(self.config)
        parts, problems = settled(self.config, request, draft)
        if problems:
            raise Refused(problems)
        for part, amounts in parts:
            resources = {keys.SLOT: 1}
            if amounts.core_milli is not None:
                resources[keys.CORE_MILLI] = amounts.core_milli * part.cards
            if amounts.memory_mib is not None:
                resources[keys.MEMORY_MIB] = amounts.memory_mib * part.cards
            draft.add(part, amounts, resources)
        return draft.finish(self.name, request, scheduler=keys.SCHEDULER)

    def demand(self, pod: Pod) -> Demand:
        """From the resources; what they leave open, from the cards once they are chosen."""
        slices = _slices(pod)
        assigned = _assigned(pod)
        return aggregate(
            pod, lambda c: _container_demand(c, slices.get(c.name), assigned.get(c.name, ()))
        )


def _container_demand(
    container: Container, part: Slice | None, cards: tuple[assignment.CardShare, ...]
) -> Demand:
    slots, core_milli, memory_mib = (
        amount_of(container.resources, name) for name in keys.NATIVE_RESOURCES
    )
    if not (slots or core_milli or memory_mib):
        return Demand()
    count = part.cards if part else max(slots, units.ceil_div(core_milli, units.MILLI), 1)
    if part is None and not (core_milli or memory_mib):
        # A slot that names no amount: charged as whole cards, never as less.
        return Demand(count, count * units.MILLI, open_memory_milli=count * units.MILLI)
    open_memory_milli = open_core_mib = 0
    if not memory_mib and part and part.memory_milli is not None:
        memory_mib = sum(card.memory_mib for card in cards)
        open_memory_milli = 0 if cards else part.memory_milli * part.cards
    if not core_milli and part and part.core_milli is None:
        core_milli = sum(card.core_milli for card in cards)
        open_core_mib = 0 if cards else memory_mib
    return Demand(
        cards=count,
        core_milli=core_milli,
        memory_mib=memory_mib,
        open_memory_milli=open_memory_milli,
        open_core_mib=open_core_mib,
        open_cards=count if open_core_mib else 0,
        open_least_mib=open_core_mib // count,
    )


def _slices(pod: Pod) -> dict[str, Slice]:
    rendered = request_annotation.find(pod.annotations())
    return {part.container: part for part in rendered.request.slices} if rendered else {}


def _assigned(pod: Pod) -> assignment.Assignment:
    text = pod.annotations().get(keys.ASSIGNED)
    if text is None:
        return {}
    try:
        return assignment.parse(text)
    except assignment.AssignmentError:
        return {}
