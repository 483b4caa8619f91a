"""Reads amounts of devices from pods that anybody may have written."""

from collections.abc import Iterable

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.pod import Container, Pod, Resources
from gpu_fraction.domain.request import MAX_CARDS, Slice


def asking(part: Slice, pod: Pod, *names: str) -> str:
    """The key of the annotation that asks for something of a container's.

    Args:
        part: The container's request.
        pod: Its pod.
        *names: The annotations of the pod that can ask for it, the last where none is there; by
            default those of the share.
    """
    own = keys.CONTAINER_PREFIX + part.container
    names = names or (keys.FRACTION, keys.MEMORY, keys.FRACTION)
    return next((key for key in (own, *names) if key in pod.annotations()), names[-1])


def amount_of(resources: Resources | None, name: str) -> int:
    """A resource's amount as a whole number, rounded up; 0 where absent or unreadable."""
    text = resources.of(name) if resources else None
    return 0 if text is None else units.whole_amount(text)


def asked_for(
    container: Container,
    *,
    cards: int,
    core_milli: int | None,
    memory_mib: int = 0,
    memory_milli: int = 0,
) -> Slice:
    """A slice of amounts that anybody may have written, kept within what a slice can hold.

    Args:
        container: The container.
        cards: Distinct GPUs; 0 counts as 1.
        core_milli: Thousandths of each card's compute; None follows the memory.
        memory_mib: MiB on each card; 0 leaves it to ``memory_milli``.
        memory_milli: Thousandths of each card's memory; 0 counts as all of it.
    """
    return Slice(
        container.name,
        cards=min(max(1, cards), MAX_CARDS),
        core_milli=None if core_milli is None else min(core_milli, units.MILLI),
        memory_mib=memory_mib or None,
        memory_milli=None if memory_mib else min(memory_milli or units.MILLI, units.MILLI),
    )


def whole_cards(container: Container, names: Iterable[str]) -> Slice | None:
    """The slice of whole cards that some resources count; None where there are none."""
    cards = sum(amount_of(container.resources, name) for name in names)
    if not cards:
        return None
    return asked_for(container, cards=cards, core_milli=units.MILLI)
