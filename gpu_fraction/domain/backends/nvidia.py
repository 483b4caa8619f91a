"""NVIDIA's own device plugin: whole cards, nothing smaller.

Source: NVIDIA/k8s-device-plugin README; MIG names from its api/config/v1/resources.go.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backends.base import BackendConfig, Draft, amount_of, settled
from gpu_fraction.domain.backends.hami import GPU
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.gpu_resources import is_card
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Refused, Request, Slice, annotation_path
from gpu_fraction.domain.tally import Demand, aggregate

MIG_PREFIX: Final = "nvidia.com/mig-"
MIG: Final = re.compile(r"nvidia\.com/mig-([1-7])g\.([0-9]{1,4})gb(?:\.[a-z.]+)?", re.ASCII)
MIG_SLICES: Final = 7
"""Compute slices of one card (NVIDIA MIG user guide)."""

__all__ = ["GPU", "Nvidia", "other_cards"]


@dataclass(frozen=True, slots=True)
class Nvidia:
    """Whole GPUs from NVIDIA's device plugin."""

    config: BackendConfig = field(default_factory=BackendConfig)
    name: str = "nvidia"

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """A count of whole cards; every other wish that it cannot honour is refused."""
        problems = [
            *(p for part in request.slices if (p := _too_small(part, pod)) is not None),
            *_constraints(request),
        ]
        if problems:
            raise Refused(problems)
        draft = Draft(self.config)
        parts, _ = settled(self.config, request, draft)
        draft.warnings.clear()  # a whole card's memory is all of it, whatever its size
        if keys.PLACEMENT in pod.annotations():
            draft.warnings.append(
                f"{keys.PLACEMENT} is ignored: with the nvidia backend the kubelet picks the cards"
            )
        for part, amounts in parts:
            draft.add(part, amounts, {GPU: part.cards})
        return draft.finish(self.name, request)

    def demand(self, pod: Pod) -> Demand:
        """Whole cards of any vendor's plugin, and MIG instances by their profile."""
        return aggregate(pod, _container_demand)


def _too_small(part: Slice, pod: Pod) -> Problem | None:
    if part.whole:
        return None
    given = next(
        (
            key
            for key in (keys.CONTAINER_PREFIX + part.container, keys.FRACTION, keys.MEMORY)
            if key in pod.annotations()
        ),
        keys.FRACTION,
    )
    return Problem(
        annotation_path(given),
        f"container {part.container} asks for a part of a GPU, but this cluster gives whole GPUs "
        f'only (backend nvidia); allowed: {keys.FRACTION} "1", "2", … without '
        f"{keys.MEMORY} and {keys.CORES}",
    )


def _constraints(request: Request) -> list[Problem]:
    wishes = (
        (keys.MODEL, request.models or request.not_models),
        (keys.UUID, request.uuids),
    )
    return [
        Problem(
            annotation_path(key),
            "cannot be honoured with the nvidia backend, which cannot choose among cards; "
            "use a nodeSelector on the label nvidia.com/gpu.product",
        )
        for key, wish in wishes
        if wish
    ]


def _container_demand(container: Container) -> Demand:
    return _whole(amount_of(container.resources, GPU)) + other_cards(container)


def other_cards(container: Container) -> Demand:
    """Cards, partitions and MIG instances by all names but ``nvidia.com/gpu``, which HAMi has too.

    A MIG profile of a form that this program does not know counts as a whole card.
    """
    resources = container.resources
    total = Demand()
    for name in resources.names() if resources else ():
        if is_card(name) and name != GPU:
            total += _whole(amount_of(resources, name))
        elif name.startswith(MIG_PREFIX):
            total += _mig(name, amount_of(resources, name))
    return total


def _whole(cards: int) -> Demand:
    return Demand(cards, core_milli=cards * units.MILLI, open_memory_milli=cards * units.MILLI)


def _mig(name: str, count: int) -> Demand:
    match = MIG.fullmatch(name)
    if match is None:
        return _whole(count)
    slices, gib = int(match[1]), int(match[2])
    return Demand(
        cards=count,
        core_milli=count * units.ceil_div(slices * units.MILLI, MIG_SLICES),
        memory_mib=count * gib * 1024,
    )
