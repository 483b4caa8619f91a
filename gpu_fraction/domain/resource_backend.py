"""The stacks that are resource names, units and steps: one class, a table for each stack."""

from typing import ClassVar, Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod, containers
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, asking
from gpu_fraction.domain.request import MAX_CARDS, Request, Slice
from gpu_fraction.domain.sizes import Amounts

_WHOLE: Final = 100
"""Percents of a card's compute, in which all these stacks count it."""


class ResourceBackend(Backend):
    """Memory in steps and compute in percents, each an extended resource of the container.

    Attributes:
        memory: The resource with the memory.
        unit_mib: MiB of one unit of it.
        compute: The resource with percents of compute; None where there is none.
        compute_step: Percents of one step of it.
        other_compute: More resources that count percents of compute in pods written by hand.
        needs_compute: Memory without compute gives nothing.
        compute_follows: Compute is written too where it only follows from the memory.
        compute_of_several: Shares of several cards can have compute.
        whole_by_compute: A whole card is all of its compute, without an amount of memory.
        full_is_whole: All of the compute is the whole card, whatever the memory.
        totals: Amounts are over all cards of the container, not for each.
        number: The resource with the number of cards; None where there is none.
        number_label: The pod's label with the number of cards. With neither, several cards are
            whole ones where amounts are totals and ``whole_by_compute``, else impossible.
        ratio: The resource with percents of memory; None where there is none.
        all_memory: No amount of memory means all of it; otherwise as much as compute.
        regular_only: Init containers and sidecars get nothing.
        one_container: One container of a pod can ask.
        one_card: All containers of a pod get their shares of one card.
    """

    memory: ClassVar[str]
    unit_mib: ClassVar[int] = 1
    compute: ClassVar[str | None] = None
    compute_step: ClassVar[int] = 1
    other_compute: ClassVar[tuple[str, ...]] = ()
    needs_compute: ClassVar[bool] = False
    compute_follows: ClassVar[bool] = True
    compute_of_several: ClassVar[bool] = True
    whole_by_compute: ClassVar[bool] = False
    full_is_whole: ClassVar[bool] = False
    totals: ClassVar[bool] = False
    number: ClassVar[str | None] = None
    number_label: ClassVar[str | None] = None
    ratio: ClassVar[str | None] = None
    all_memory: ClassVar[bool] = False
    regular_only: ClassVar[bool] = False
    one_container: ClassVar[bool] = False
    one_card: ClassVar[bool] = False

    def step_mib(self) -> int:
        """MiB of one unit of memory in this cluster."""
        return self.unit_mib

    def quantity(self, count: int) -> int | str:
        """A count of units of memory as the resource has it."""
        return count

    @property
    def _counts_cards(self) -> bool:
        return self.number is not None or self.number_label is not None

    @property
    def _in_hundreds(self) -> bool:
        """True where several cards are written as hundreds of percents of compute."""
        return self.totals and self.whole_by_compute and not self._counts_cards

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """The amounts in the stack's units, rounded up."""
        edit = self.start(request, pod)
        self._which_containers(request, pod, edit)
        largest_mib = max(self.config.card_sizes.eligible_mib(request), default=None)
        for part, amounts in self.parts(request, edit):
            self.give(edit, part, amounts, self._resources(edit, part, amounts, pod, largest_mib))
        if self.one_card and largest_mib is not None and not edit.problems:
            self._together(request, pod, edit, largest_mib)
        return edit

    def _which_containers(self, request: Request, pod: Pod, edit: PodEdit) -> None:
        kinds = {at.container.name: at.kind for at in containers(pod)}
        for part in request.slices:
            if self.regular_only and kinds.get(part.container) == "initContainers":
                edit.refuse(
                    asking(part, pod, keys.CONTAINER_NAME),
                    f"cannot be honoured: {self.about.title} gives sidecars nothing; "
                    "allowed: a regular container",
                )
        several = self.number_label and any(part.cards > 1 for part in request.slices)
        if len(request.slices) > 1 and (self.one_container or several):
            edit.refuse(
                keys.CONTAINER_PREFIX + request.slices[-1].container,
                f"cannot be honoured: {self.about.title} gives its cards to the pod, not to one "
                f"container; allowed: {'one container' if self.one_container else 'one GPU each'}",
            )

    def _together(self, request: Request, pod: Pod, edit: PodEdit, largest_mib: int) -> None:
        step = self.step_mib()
        given = (resources[self.memory] for resources in edit.resources.values())
        total, most = sum(map(units.whole_amount, given)) * step, largest_mib // step * step
        if len(request.slices) > 1 and total > most:
            edit.refuse(
                asking(request.slices[-1], pod),
                f"cannot be honoured: the containers ask for {total} MiB together, but "
                f"{self.about.title} gives a pod one GPU, of which it counts {most} MiB at most; "
                "allowed: shares that fit one GPU together",
            )

    def _resources(
        self, edit: PodEdit, part: Slice, amounts: Amounts, pod: Pod, largest_mib: int | None
    ) -> dict[str, int | str]:
        resources: dict[str, int | str] = {}
        if part.cards > 1 and not (self._counts_cards or (self._in_hundreds and part.whole)):
            divides, allowed = "gives", "one GPU or a share of it"
            if self._in_hundreds:
                divides, allowed = "divides", "a share of one GPU, or whole GPUs"
            edit.refuse(
                asking(part, pod, keys.NUM_DEVICES, keys.FRACTION),
                f"cannot be honoured: {self.about.title} {divides} one GPU only; "
                f"allowed: {allowed}",
            )
            return resources
        if self.number is not None:
            resources[self.number] = part.cards
        label, labels = self.number_label, pod.metadata.labels or {}
        if label is not None and (part.cards > 1 or label in labels):
            # Without several cards too: a label of the author's would divide the amounts.
            edit.labels[label] = str(part.cards)
        each = part.cards if self.totals else 1
        if not (part.whole and self.whole_by_compute):
            resources |= self._memory(edit, part, amounts, pod, largest_mib, each)
        return resources | self._compute(edit, part, amounts, pod, each)

    def _memory(
        self,
        edit: PodEdit,
        part: Slice,
        amounts: Amounts,
        pod: Pod,
        largest_mib: int | None,
        each: int,
    ) -> dict[str, int | str]:
        milli, mib, step = part.memory_milli, amounts.memory_mib, self.step_mib()
        if milli == units.MILLI and self.all_memory:
            return {}
        if self.ratio is not None and milli and (mib is None or milli % 10 == 0):
            return {self.ratio: each * self.percent(edit, part, milli, "memory")}
        if mib is None:
            edit.refuse(
                asking(part, pod, keys.FRACTION),
                f"cannot be honoured: {self.about.title} takes an amount of memory, and the "
                f"memory of the GPU is not known; allowed: {keys.MEMORY}, or a share once the "
                "cluster setting --gpu-memory-mib says it",
            )
            return {}
        # All of a card is what the stack counts of it, which is never rounded up.
        count = max(1, mib // step) if milli == units.MILLI else units.ceil_div(mib, step)
        if largest_mib is not None and mib <= largest_mib < count * step:
            edit.refuse(
                asking(part, pod, keys.MEMORY, keys.FRACTION),
                f"is {mib} MiB, but {self.about.title} counts {largest_mib // step * step} MiB of "
                f"the largest GPU; allowed: at most {largest_mib // step * step}Mi, or "
                f'{keys.FRACTION} "1"',
            )
        if count * step != mib:
            rounded = "rounded up to" if count * step > mib else "counted as"
            edit.warn(
                f"container {part.container}: {mib} MiB is {rounded} {count * step} MiB, "
                f"{self.about.title} counts memory in steps of {units.format_memory(step)}"
            )
        return {self.memory: self.quantity(count * each)}

    def _compute(
        self, edit: PodEdit, part: Slice, amounts: Amounts, pod: Pod, each: int
    ) -> dict[str, int | str]:
        title, asked = self.about.title, part.core_milli
        if self.compute is None or (part.cards > 1 and not self.compute_of_several):
            what = "memory only" if self.compute is None else "memory only of several GPUs"
            if asked not in (None, part.memory_milli):
                edit.refuse(
                    asking(part, pod, keys.CORES, keys.FRACTION),
                    f"cannot be honoured: {title} gives {what}, the compute goes with it; "
                    f"allowed: {keys.FRACTION} or {keys.MEMORY}, one of the two, without "
                    f"{keys.CORES}",
                )
            elif asked and self.compute is not None:
                edit.warn(
                    f"container {part.container}: {title} gives {what}, the compute is not limited"
                )
            return {}
        core_milli = amounts.core_milli if self.compute_follows else asked
        if core_milli is None and self.needs_compute:
            edit.refuse(
                keys.MEMORY,
                f"cannot be honoured alone: {title} gives nothing without compute, and the memory "
                f"of the GPU is not known; allowed: with {keys.CORES}, or alone once the cluster "
                "setting --gpu-memory-mib says it",
            )
        if not core_milli:
            return {}
        percent = self.percent(edit, part, core_milli, "compute", self.compute_step)
        if percent == _WHOLE and self.full_is_whole and not part.whole:
            most = units.format_milli((_WHOLE - self.compute_step) * 10)
            edit.refuse(
                asking(part, pod, keys.CORES, keys.FRACTION, keys.MEMORY),
                f"cannot be honoured: all of the compute is a whole GPU to {title}; "
                f'allowed: {keys.CORES} of at most {most}, or {keys.FRACTION} "1" alone',
            )
        return {self.compute: percent * each}

    def ask(self, container: Container, pod: Pod) -> Slice | None:
        """The amounts of each card, rounded up."""
        given = container.resources
        names = (self.compute, *self.other_compute) if self.compute else ()
        count, percent = amount_of(given, self.memory), sum(amount_of(given, n) for n in names)
        number = amount_of(given, self.number) if self.number else 0
        if not (count or percent or number):
            return None
        labels = pod.metadata.labels or {}
        told = units.count_in(labels.get(self.number_label)) if self.number_label else 0
        cards = number or min(told, MAX_CARDS) or 1
        if self._in_hundreds:
            cards = max(1, units.ceil_div(percent, _WHOLE))
        each = min(cards, MAX_CARDS) if self.totals else 1
        percent = units.ceil_div(percent, each)
        mib = units.ceil_div(count, each) * self.step_mib()
        if percent >= _WHOLE and self.full_is_whole:
            return asked_for(container, cards=cards, core_milli=units.MILLI)
        return asked_for(
            container,
            cards=cards,
            core_milli=percent * 10 or (None if mib else units.MILLI),
            memory_mib=mib,
            memory_milli=units.MILLI if self.all_memory else percent * 10,
        )
