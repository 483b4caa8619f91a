"""Cards that are divided into equal parts, each handed out as one of a resource."""

from collections.abc import Collection
from dataclasses import dataclass

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container
from gpu_fraction.domain.pod_amounts import amount_of, asked_for
from gpu_fraction.domain.request import Slice


@dataclass(frozen=True, slots=True)
class EqualParts:
    """How a stack divides its cards.

    Attributes:
        resource: One of it is one part.
        count: Parts of a card, 1 or more; 0 where unknown.
        setting: The flag that says how many.
        several: What several parts are of: ``cards`` that differ, ``any`` cards, or ``refused``
            because they can be of one card while the user asks for several.
        whole: Where a user gets whole cards instead.
    """

    resource: str
    count: int
    setting: str
    several: str
    whole: str

    def take(
        self, edit: PodEdit, key: str, part: Slice, eligible_mib: Collection[int]
    ) -> dict[str, int]:
        """The resource for one container; what no part holds is refused.

        Args:
            edit: The pod's.
            key: The annotation that asks for the share.
            part: The container's request.
            eligible_mib: The sizes of the cards that it can be placed on; empty where unknown.
        """
        name = f"container {part.container}"
        if part.whole:
            edit.refuse(
                key,
                f"{name} asks for whole GPUs, but this cluster divides its GPUs into equal parts; "
                f"use {self.whole}",
            )
        elif self.count > units.MILLI:
            edit.refuse(
                key,
                f"{name} asks for one of {self.count} equal parts of a GPU, which are less than "
                f"0.001 of it; allowed: at most {units.MILLI} parts",
            )
        elif not self.count:
            edit.refuse(
                key,
                f"{name} asks for a part of a GPU, but the setting {self.setting} does not say "
                "how many parts a GPU has; set it",
            )
        elif part.memory_mib is not None and not eligible_mib and self.count > 1:
            edit.refuse(
                key,
                f"{name} asks for MiB, but no setting says how much memory the GPUs have; "
                f"set --gpu-memory-mib, or ask for a share, {self._most(())}",
            )
        elif self._too_large(part, eligible_mib):
            edit.refuse(
                key,
                f"{name} asks for more than one of the {self.count} equal parts of a GPU; "
                f"allowed: {self._most(eligible_mib)}, or {self.whole}",
            )
        elif part.cards > 1 and self.several == "refused":
            edit.refuse(
                key,
                f"{name} asks for parts of {part.cards} GPUs, but several parts can be of one "
                f"GPU; allowed: one part, or {self.whole}",
            )
        else:
            self._say(edit, name, part, eligible_mib)
        return {self.resource: part.cards}

    def _too_large(self, part: Slice, eligible_mib: Collection[int]) -> bool:
        share = max(part.memory_milli or 0, part.core_milli or 0)
        least_mib = self._part_mib(min(eligible_mib, default=0))
        return share * self.count > units.MILLI or 0 < least_mib < (part.memory_mib or 0)

    def _most(self, eligible_mib: Collection[int]) -> str:
        most = f'{keys.FRACTION} "{units.format_milli(units.MILLI // self.count)}" or less'
        if not eligible_mib:
            return most
        part = units.format_memory(self._part_mib(min(eligible_mib)))
        return f"{most}, {keys.MEMORY} {part} or less"

    def _part_mib(self, card_mib: int) -> int:
        """A part's memory, at the thousandths in which shares are read back."""
        return card_mib * (units.MILLI // self.count) // units.MILLI

    def _say(self, edit: PodEdit, name: str, part: Slice, eligible_mib: Collection[int]) -> None:
        given = units.MILLI // self.count
        asked = min(filter(None, (part.memory_milli, part.core_milli)), default=given)
        less_mib = any((part.memory_mib or 0) < self._part_mib(mib) for mib in eligible_mib)
        if asked < given or (part.memory_mib and less_mib):
            shown = (
                f"{part.memory_mib} MiB"
                if part.memory_mib
                else f"{units.format_milli(asked)} of a GPU"
            )
            edit.warn(f"{name}: {shown} is rounded up to one of {self.count} equal parts of a GPU")
        if part.cards > 1 and self.several == "any":
            edit.warn(f"{name}: its {part.cards} parts can be of one GPU")

    def ask(self, container: Container, *, up: bool) -> Slice | None:
        """What a container asks, each part as its share of a card; as a card where unknown.

        Args:
            container: The container.
            up: The share is rounded up to a thousandth, as it is charged; else down.
        """
        parts = amount_of(container.resources, self.resource)
        if not parts:
            return None
        count = self.count or 1
        milli = units.ceil_div(units.MILLI, count) if up else units.MILLI // count
        return asked_for(container, cards=parts, core_milli=milli, memory_milli=milli)
