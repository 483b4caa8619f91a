"""The asks of a pod's containers for cards, as quota, extender and node daemon all read them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpu_fraction.domain import keys, request_annotation, units
from gpu_fraction.domain.request import (
    DEFAULT_ISOLATION,
    DEFAULT_PLACEMENT,
    Isolation,
    Placement,
    Slice,
)
from gpu_fraction.domain.request_annotation import Rendered

Named = Mapping[str, int]
"""Amounts of our resources that a container names: whole numbers, 0 or more."""


class AskError(ValueError):
    """The pod cannot be served as it is written; the message has the reason.

    Attributes:
        resource: The resource at fault; empty for none.
    """

    def __init__(self, message: str, resource: str = "") -> None:
        super().__init__(message)
        self.resource = resource


@dataclass(frozen=True, slots=True)
class Ask(Slice):
    """One container's cards, all on one node: its slice, and the pod's constraints on cards.

    Attributes:
        most_mib: The most of each card's memory for a share, MiB: the amount that the share
            became at admission and that scheduler, kubelet and quota have counted. None where
            nothing was counted.
        models_in: Only cards of these models; empty takes any.
        models_out: No card of these models.
        uuids: Only these cards, or MIG instances of these cards; empty takes any.
        placement: How cards are chosen among those that fit.
        isolation: ``required`` refuses a card that does not enforce the share, ``preferred``
            takes it last, ``none`` takes any card.
    """

    most_mib: int | None = None
    models_in: tuple[str, ...] = ()
    models_out: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()
    placement: Placement = DEFAULT_PLACEMENT
    isolation: Isolation = DEFAULT_ISOLATION

    def describe(self) -> str:
        """The share of each card in words, for messages."""
        if self.memory_mib is not None:
            memory = f"{self.memory_mib} MiB"
        else:
            memory = f"{self.memory_milli}/1000 of its memory"
        cores = "" if self.core_milli is None else f" and {self.core_milli} milli-cores"
        return memory + cores


def rendered_for_us(annotations: Mapping[str, str]) -> Rendered | None:
    """The request that the webhook wrote; None where there is none, or for another stack.

    Raises:
        AskError: the annotation cannot be read.
    """
    text = annotations.get(keys.REQUEST)
    if text is None:
        return None
    try:
        rendered = request_annotation.load(text)
    except ValueError as e:
        raise AskError(f"{keys.REQUEST}: {e}") from e
    return rendered if rendered.backend == keys.NATIVE else None


def amounts_of(
    limits: Mapping[str, str] | None, requests: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Our resources that a container names: the limit, else the request."""
    named = {**(requests or {}), **(limits or {})}
    return {
        name: units.whole_amount(named[name]) for name in keys.NATIVE_RESOURCES if name in named
    }


def asks_of(
    rendered: Rendered | None,
    containers: Iterable[tuple[str, Named]],
    init: Iterable[tuple[str, Named]] = (),
) -> tuple[Ask, ...]:
    """One ask for each container that gets cards, in the given order; none for no GPU.

    Args:
        rendered: what ``rendered_for_us`` found.
        containers: name and ``amounts_of`` of the pod's containers that run side by side.
        init: the same of its regular init containers.

    Raises:
        AskError: a container cannot be served as it is written.
    """
    for name, named in init:
        refuse_init(name, named)
    written = as_written(rendered)
    found = (ask_of(name, named, written.get(name)) for name, named in containers)
    return tuple(ask for ask in found if ask is not None)


def as_written(rendered: Rendered | None) -> dict[str, Ask]:
    """The asks of the request by container name, without the container's resources."""
    if rendered is None:
        return {}
    request = rendered.request
    return {
        part.container: Ask(
            part.container,
            part.cards,
            part.core_milli,
            part.memory_mib,
            part.memory_milli,
            models_in=request.models,
            models_out=request.not_models,
            uuids=request.uuids,
            placement=request.placement,
            isolation=request.isolation,
        )
        for part in request.slices
    }


def refuse_init(container: str, named: Named) -> None:
    """Refuse a regular init container that names our resources.

    Raises:
        AskError: it names an amount above 0.
    """
    resource = next((name for name, amount in named.items() if amount), None)
    if resource is not None:
        raise AskError(
            f"init container {container}: asks for {resource}, which only regular containers and "
            "sidecars (init containers with restartPolicy: Always) may hold; move it to one, "
            "because the kubelet does not tell which init container it starts",
            resource,
        )


def ask_of(container: str, named: Named, written: Ask | None) -> Ask | None:
    """The ask of one container; None where it asks for no GPU.

    Amounts in the resources count first, over all cards, because the scheduler and the kubelet
    have counted them. The request gives the rest. A share of memory stays a share of the chosen
    card; the MiB that it became at admission come from a configured size, so they bound it.
    Without a request, more than 1000 thousandths are whole cards or equal parts of several.
    Compute without memory takes the same share of the memory, and memory without compute the
    same share of the compute. Compute of 0 would be a card's whole compute that no quota counts,
    so it is refused.

    Args:
        container: the container's name.
        named: its resources.
        written: its ask in the request, from ``as_written``; None where there is none.

    Raises:
        AskError: not one slot, no amount, or amounts that no cards can give.
    """
    if written is None and not any(named.values()):
        return None
    slots, core, memory = (named.get(name) for name in keys.NATIVE_RESOURCES)
    if slots != 1:
        raise AskError(
            f"container {container}: asks for {slots or 0} of {keys.SLOT}, allowed is exactly 1, "
            "whatever the number of GPUs",
            keys.SLOT,
        )
    if written is None and not core and not memory:
        raise AskError(
            f"container {container}: asks for {keys.SLOT} without "
            f"{keys.CORE_MILLI} or {keys.MEMORY_MIB}; add one of the two or both",
            keys.SLOT,
        )
    if written is None and core == 0:
        raise AskError(
            f"container {container}: {keys.CORE_MILLI} is 0, allowed: 1 or more; without it, "
            f"compute follows {keys.MEMORY_MIB}",
            keys.CORE_MILLI,
        )
    cards = written.cards if written else max(1, units.ceil_div(core or 0, units.MILLI))
    for name, amount in ((keys.CORE_MILLI, core), (keys.MEMORY_MIB, memory)):
        if (amount or 0) % cards:
            raise AskError(
                f"container {container}: {name} is {amount} over {cards} cards, "
                "allowed: the same whole amount on each",
                name,
            )
    each_core = core // cards if core else None
    each_mib = memory // cards if memory else None
    try:
        if written is None:
            return Ask(container, cards, each_core, each_mib, None if each_mib else each_core)
        by_share = written.memory_milli is not None
        return replace(
            written,
            core_milli=each_core or written.core_milli,
            memory_mib=None if by_share else each_mib or written.memory_mib,
            most_mib=each_mib if by_share else None,
        )
    except ValueError as e:
        raise AskError(f"container {container}: {e}", keys.CORE_MILLI) from e
