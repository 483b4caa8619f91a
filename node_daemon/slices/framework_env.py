"""Tells frameworks in a container their part of its cards, where a process sees whole cards."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpu_fraction.domain import frameworks
from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.units import MILLI
from gpu_fraction.node_daemon.isolation import cgroup
from gpu_fraction.node_daemon.isolation.engine import ContainerEdits
from gpu_fraction.node_daemon.state.allocation import Binding


def variables(
    binding: Binding,
    cards: Mapping[str, Card],
    isolation: ContainerEdits,
    hooks: Iterable[Mapping[str, Any]] | None,
) -> dict[str, str]:
    """The variables of frameworks; none where the part is not known, or is not to be told.

    The part is the smallest of its cards', less the context on the smallest card.

    Args:
        binding: The container and its shares.
        cards: The node's cards, by UUID.
        isolation: What the isolation engines add.
        hooks: All hooks of the container; None where NVIDIA's runtime adds its own.
    """
    mine = [(share.memory_mib, cards[share.uuid]) for share in binding.shares]
    if binding.own_env is None or _limits_total(isolation, hooks):
        return {}
    if any(card.parent or not card.memory_mib for _, card in mine):
        return {}  # A MIG instance shows its own memory.
    return frameworks.variables(
        min(share_mib * MILLI // card.memory_mib for share_mib, card in mine),
        min(card.memory_mib for _, card in mine),
        binding.own_env,
    )


def _limits_total(isolation: ContainerEdits, hooks: Iterable[Mapping[str, Any]] | None) -> bool:
    """True where a process sees its share as the card's total, or where that is not known.

    NVIDIA's hook makes the limit of ``cgroup`` the total; without the hook it stays the card's.
    """
    hooked = hooks is None or any(cgroup.HOOK in (hook.get("args") or ()) for hook in hooks)
    return isolation.shrinks_total or (cgroup.ENV_LIMIT in isolation.env and hooked)
