"""The canonical ``Request`` of a pod, the same for all ways of writing it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from gpu_fraction.domain import units
from gpu_fraction.domain.problems import Problem

Placement = Literal["binpack", "spread", "topology"]
Isolation = Literal["required", "preferred", "none"]

PLACEMENTS: Final[tuple[str, ...]] = get_args(Placement)
ISOLATIONS: Final[tuple[str, ...]] = get_args(Isolation)

MAX_CARDS: Final = 1 << 16
"""GPUs of one container. Chosen: more than any machine has, and no sum overflows."""

DEFAULT_PLACEMENT: Final[Placement] = "binpack"
DEFAULT_ISOLATION: Final[Isolation] = "preferred"


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """The pod cannot be admitted as it is.

    Attributes:
        problems: Every reason, at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Slice:
    """The request of one container, equal on each of its cards.

    Attributes:
        container: The container's name.
        cards: Distinct GPUs, 1 to ``MAX_CARDS``.
        core_milli: Thousandths of each card's compute, 1 to 1000; None means in
            proportion to the memory, once the card's size is known; 0 means no limit.
        memory_mib: MiB on each card, 1 or more; None leaves it to ``memory_milli``.
        memory_milli: Thousandths of each card's memory, 1 to 1000, where ``memory_mib`` is None.
    """

    container: str
    cards: int = 1
    core_milli: int | None = None
    memory_mib: int | None = None
    memory_milli: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.cards <= MAX_CARDS:
            raise ValueError(f"cards is {self.cards}, allowed: 1 to {MAX_CARDS}")
        if self.memory_mib is not None and self.memory_mib < 1:
            raise ValueError(f"memory_mib is {self.memory_mib}, allowed: 1 or more")
        if self.memory_milli is not None and not 1 <= self.memory_milli <= units.MILLI:
            raise ValueError(f"memory_milli is {self.memory_milli}, allowed: 1 to 1000")
        if self.core_milli is not None and not 0 <= self.core_milli <= units.MILLI:
            raise ValueError(f"core_milli is {self.core_milli}, allowed: 0 to 1000")
        if (self.memory_mib is None) == (self.memory_milli is None):
            raise ValueError("memory is an amount or a share, one of the two")
        if self.core_milli is None and self.memory_mib is None:
            raise ValueError("compute follows an amount of memory, not a share")

    @property
    def whole(self) -> bool:
        """True where the container requests whole cards."""
        return self.core_milli == self.memory_milli == units.MILLI


@dataclass(frozen=True, slots=True)
class Request:
    """The request of a pod.

    Attributes:
        slices: One per container that gets a GPU, in the pod's order, at least one.
        models: Allowed GPU models; empty allows any.
        not_models: Excluded GPU models; ``models`` or this is empty.
        uuids: Allowed cards; empty allows any.
        placement: The policy that chooses cards.
        isolation: Whether the node must enforce the share.
    """

    slices: tuple[Slice, ...]
    models: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()
    placement: Placement = DEFAULT_PLACEMENT
    isolation: Isolation = DEFAULT_ISOLATION

    def of(self, container: str) -> Slice | None:
        """The slice of one container."""
        return next((s for s in self.slices if s.container == container), None)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of requests, and defaults for absent annotations.

    Attributes:
        max_cards: GPUs of one container. Default 16, the largest
            NVLink server (NVIDIA HGX-2/DGX-2 data sheets).
        max_memory_mib: MiB of one card. Default 1 TiB: chosen, above every card announced.
        placement: Default placement.
        isolation: Default isolation.
    """

    max_cards: int = 16
    max_memory_mib: int = 1 << 20
    placement: Placement = DEFAULT_PLACEMENT
    isolation: Isolation = DEFAULT_ISOLATION


def annotation_path(key: str) -> str:
    """The field path of an annotation."""
    return f"metadata.annotations[{key}]"
