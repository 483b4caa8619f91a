"""Our own stack: slot, core-milli and memory-mib, under our own scheduler."""

from gpu_fraction.domain import assignment, keys, units
from gpu_fraction.domain.asks import (
    Ask,
    AskError,
    Named,
    amounts_of,
    as_written,
    ask_of,
    rendered_for_us,
)
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.demand import ZERO, Demand, aggregate
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod, containers
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.request_annotation import Rendered
from gpu_fraction.domain.stack import NVIDIA_TAINT, About


class Native(Backend):
    """Slices that this project's node daemon hands out."""

    name = keys.NATIVE
    about = About(
        title="gpu-fraction",
        memory="MiB",
        compute="thousandths of a GPU",
        cards="the same share of each",
        memory_isolation="some nodes",
        compute_isolation="some nodes",
        source="docs/isolation.md",
    )
    scheduler = keys.SCHEDULER
    resources = (keys.PREFIX,)
    tolerations = (NVIDIA_TAINT,)
    chooses_models = True
    chooses_uuids = True
    chooses_placement = True
    keeps_model_limits = True
    needs_no_root = True
    ours = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """One slot a container, compute and memory over all its cards."""
        edit = self.start(request, pod)
        for part, amounts in self.parts(request, edit):
            resources = {keys.SLOT: 1}
            if amounts.core_milli is not None:
                resources[keys.CORE_MILLI] = amounts.core_milli * part.cards
            if amounts.memory_mib is not None:
                resources[keys.MEMORY_MIB] = amounts.memory_mib * part.cards
            self.give(edit, part, amounts, resources)
        return edit

    def read(self, pod: Pod) -> Request | None:
        """The request annotation, else what the containers name; None where that is unreadable."""
        if (rendered := _rendered(pod)) is not None:
            return rendered.request
        try:
            found = [
                ask_of(at.container.name, amounts_of(named.limits, named.requests), None)
                for at in containers(pod)
                if (named := at.container.resources) is not None
            ]
        except AskError:
            return None
        parts = tuple(
            Slice(ask.container, ask.cards, ask.core_milli, ask.memory_mib, ask.memory_milli)
            for ask in found
            if ask is not None
        )
        return Request(parts) if parts else None

    def demand(self, pod: Pod) -> Demand:
        """From what each container asks; what is open, from the cards once they are chosen."""
        written = as_written(_rendered(pod))
        # Cards and node are written at once: without a node they are of an earlier pod, restored.
        assigned = assignment.find(pod.annotations()) if pod.spec.node_name else {}
        return aggregate(
            pod, lambda c: _container_demand(c, written.get(c.name), assigned.get(c.name, ()))
        )


STACK = Native


def _container_demand(
    container: Container, written: Ask | None, given: tuple[assignment.CardShare, ...]
) -> Demand:
    resources = container.resources
    if resources is None:
        return ZERO
    named = amounts_of(resources.limits, resources.requests)
    try:
        ask = ask_of(container.name, named, written)
    except AskError:
        return _never_served(named, written)
    if ask is None:
        return Demand()
    core_milli = (ask.core_milli or 0) * ask.cards
    memory_mib = (ask.memory_mib or ask.most_mib or 0) * ask.cards
    open_memory_milli = open_core_mib = 0
    if ask.memory_mib is None and given:
        memory_mib = sum(card.memory_mib for card in given)
    elif not memory_mib:
        open_memory_milli = (ask.memory_milli or 0) * ask.cards
    if ask.core_milli is None:
        core_milli = sum(card.core_milli for card in given)
        open_core_mib = 0 if given else memory_mib
    return Demand(
        cards=ask.cards,
        core_milli=core_milli,
        memory_mib=memory_mib,
        open_memory_milli=open_memory_milli,
        open_core_mib=open_core_mib,
        open_cards=ask.cards if open_core_mib else 0,
        open_least_mib=open_core_mib // ask.cards,
    )


def _never_served(named: Named, written: Ask | None) -> Demand:
    """What no card can be given for is charged as it is named; nothing named, as whole cards."""
    slots, core_milli, memory_mib = (named.get(name, 0) for name in keys.NATIVE_RESOURCES)
    if not (slots or core_milli or memory_mib):
        return Demand()
    count = max(written.cards if written else 1, slots, units.ceil_div(core_milli, units.MILLI))
    if not (core_milli or memory_mib):
        return Demand(count, count * units.MILLI, open_memory_milli=count * units.MILLI)
    return Demand(count, core_milli, memory_mib)


def _rendered(pod: Pod) -> Rendered | None:
    """The request; an annotation that cannot be read makes no pod free."""
    try:
        return rendered_for_us(pod.annotations())
    except AskError:
        return None
