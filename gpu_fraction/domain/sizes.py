"""Converts between shares and MiB where the memory of the cards is configured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gpu_fraction.domain import models, units
from gpu_fraction.domain.request import Request, Slice


@dataclass(frozen=True, slots=True)
class CardSizes:
    """The memory of the cluster's cards, from configuration.

    Attributes:
        one_mib: MiB of every card whose model is not in ``by_model_mib``; None where unknown.
        by_model_mib: MiB by GPU model, the models as users write them (``A100-80GB``).
    """

    one_mib: int | None = None
    by_model_mib: Mapping[str, int] = field(default_factory=dict)

    def eligible_mib(self, request: Request) -> frozenset[int]:
        """The sizes of all cards that the request can be placed on; empty where unknown."""
        if request.models:
            found = [self._sizes_of(name) for name in request.models]
            return frozenset().union(*found) if all(found) else frozenset()
        sizes = {
            mib
            for model, mib in self.by_model_mib.items()
            if models.allowed(model, (), request.not_models)
        }
        if self.one_mib is not None:
            sizes.add(self.one_mib)
        return frozenset(sizes)

    def _sizes_of(self, name: str) -> frozenset[int]:
        """The sizes of the configured models that a name matches (A100: 40 GB and 80 GB)."""
        found = {
            mib
            for model, mib in self.by_model_mib.items()
            if models.matches(name, model) or models.matches(model, name)
        }
        if not found and self.one_mib is not None:
            found = {self.one_mib}
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Amounts:
    """A slice in integers, on each of its cards; None is unknown until a card is chosen."""

    core_milli: int | None
    memory_mib: int | None


_UNKNOWN: Final = "the GPU's memory size is not configured"


def resolve(part: Slice, eligible_mib: frozenset[int]) -> Amounts:
    """The amounts of a slice; exact only where all eligible cards have one size.

    Both directions round down, so that shares whose sum is one card fit on one card.
    """
    size = next(iter(eligible_mib)) if len(eligible_mib) == 1 else None
    memory_mib = part.memory_mib
    if memory_mib is None and part.memory_milli is not None and size is not None:
        memory_mib = units.share_of(size, part.memory_milli)
    core_milli = part.core_milli
    if core_milli is None and part.memory_mib is not None and size is not None:
        core_milli = max(1, min(units.MILLI, part.memory_mib * units.MILLI // size))
    return Amounts(core_milli, memory_mib)


def describe(part: Slice, amounts: Amounts, eligible_mib: frozenset[int]) -> str | None:
    """The warning that shows the MiB of a share, or the share of an amount of MiB.

    None where the user gave both.
    """
    start = f"container {part.container}:"
    if part.memory_milli is not None:
        start = f"{start} {units.format_percent(part.memory_milli)} of a GPU's memory"
        if amounts.memory_mib is None:
            return f"{start} becomes MiB when a GPU is chosen ({_why(eligible_mib)})"
        (size,) = eligible_mib
        return f"{start} is {amounts.memory_mib} MiB (GPUs have {size} MiB by configuration)"
    if part.core_milli is not None:
        return None
    if amounts.core_milli is None:
        return (
            f"{start} the compute share follows the memory when a GPU is chosen "
            f"({_why(eligible_mib)})"
        )
    share = units.format_percent(amounts.core_milli)
    return f"{start} {part.memory_mib} MiB comes with {share} of a GPU's compute"


def _why(eligible_mib: frozenset[int]) -> str:
    return f"{len(eligible_mib)} memory sizes are eligible" if eligible_mib else _UNKNOWN
