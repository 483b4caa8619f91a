"""What a pod asks of a node's cards: its request annotation, else its bare resources."""

import math
from collections.abc import Callable, Mapping

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.placement import Ask
from scheduler.pods import Container, Pod

__all__ = ["AskError", "RequestReader", "asks_of", "no_requests"]

RequestReader = Callable[[Mapping[str, str]], tuple[Ask, ...]]
"""Reads the request annotation out of a pod's annotations; no asks where there is none, or
where another stack serves it. Raises ValueError where it cannot be read."""


class AskError(ValueError):
    """The pod's request cannot be placed as it is written; the message says why."""


def no_requests(_annotations: Mapping[str, str]) -> tuple[Ask, ...]:
    """A reader for pods that ask by resources alone."""
    return ()


def asks_of(pod: Pod, read_request: RequestReader) -> tuple[Ask, ...]:
    """The pod's asks, one for each container that gets cards; none where it wants no GPU.

    Raises:
        AskError: an annotation or a resource that cannot be read.
    """
    try:
        asked = read_request(pod.annotations())
    except ValueError as e:
        raise AskError(f"{keys.REQUEST}: {e}") from e
    if asked:
        by_name = {container.name: container for container in pod.running_containers()}
        return tuple(_settled(ask, by_name.get(ask.container)) for ask in asked)
    bare = (_bare(container) for container in pod.running_containers())
    return tuple(ask for ask in bare if ask is not None)


def _settled(ask: Ask, container: Container | None) -> Ask:
    amounts = container.resources.all() if container and container.resources else {}
    return ask.settled(
        _quantity(ask.container, keys.CORE_MILLI, amounts),
        _quantity(ask.container, keys.MEMORY_MIB, amounts),
    )


def _bare(container: Container) -> Ask | None:
    """A container that names our resources itself.

    More than 1000 thousandths are whole cards or equal parts of several.
    """
    amounts = container.resources.all() if container.resources else {}
    if not any(name in amounts for name in keys.NATIVE_RESOURCES):
        return None
    core_milli = _quantity(container.name, keys.CORE_MILLI, amounts)
    memory_mib = _quantity(container.name, keys.MEMORY_MIB, amounts)
    cards = max(1, -(-(core_milli or 0) // units.MILLI))
    for name, amount in ((keys.CORE_MILLI, core_milli), (keys.MEMORY_MIB, memory_mib)):
        if amount is not None and amount % cards:
            raise AskError(
                f"container {container.name}: {name} is {amount} over {cards} cards, "
                "allowed: the same whole amount on each"
            )
    if not core_milli and not memory_mib:
        raise AskError(
            f"container {container.name}: asks for {keys.SLOT} without "
            f"{keys.CORE_MILLI} or {keys.MEMORY_MIB}"
        )
    core = core_milli // cards if core_milli is not None else None
    return Ask(
        container=container.name,
        cards=cards,
        core_milli=core,
        memory_mib=memory_mib // cards if memory_mib else None,
        memory_milli=None if memory_mib else core,
    )


def _quantity(container: str, name: str, amounts: Mapping[str, str]) -> int | None:
    """A resource's amount, rounded up to a whole one; None where it is not asked for.

    Raises:
        AskError: not a quantity, or negative.
    """
    text = amounts.get(name)
    if text is None:
        return None
    try:
        whole = math.ceil(units.parse_quantity(text))
    except units.UnitError:
        raise AskError(f"container {container}: {name} is {text!r}, no quantity") from None
    if whole < 0:
        raise AskError(f"container {container}: {name} is {text!r}, allowed: 0 or more")
    return whole
