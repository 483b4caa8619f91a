"""What a pod asks of a node's cards: its request annotation, else its bare resources."""

import math
from collections.abc import Mapping

from gpu_fraction.domain import keys, request_annotation, units
from gpu_fraction.domain.placement import Ask, asks_of_request
from gpu_fraction.domain.request_annotation import Rendered
from scheduler.pods import Container, Pod

__all__ = ["AskError", "asks_of", "rendered_for_us"]


class AskError(ValueError):
    """The pod's request cannot be placed as it is written; the message says why."""


def rendered_for_us(pod: Pod) -> Rendered | None:
    """What the webhook made of the pod's wishes; None where it did not, or for another stack.

    Raises:
        AskError: the annotation cannot be read.
    """
    text = pod.annotations().get(keys.REQUEST)
    if text is None:
        return None
    try:
        rendered = request_annotation.load(text)
    except ValueError as e:
        raise AskError(f"{keys.REQUEST}: {e}") from e
    return rendered if rendered.backend == keys.NATIVE else None


def asks_of(pod: Pod, rendered: Rendered | None) -> tuple[Ask, ...]:
    """The pod's asks, one for each container that gets cards; none where it wants no GPU.

    Args:
        pod: the pod.
        rendered: what the webhook made of it for us; else its resources alone count.

    Raises:
        AskError: a resource that cannot be read.
    """
    if rendered:
        by_name = {container.name: container for container in pod.running_containers()}
        asked = asks_of_request(rendered.request)
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
