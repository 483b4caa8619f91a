"""NVIDIA's own device plugin: whole cards, nothing smaller.

Source: NVIDIA/k8s-device-plugin README; MIG names from its api/config/v1/resources.go.
"""

import re
from typing import Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import NVIDIA_TAINT, Backend, amount_of
from gpu_fraction.domain.demand import Demand, aggregate
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Refused, Request, Slice, annotation_path

GPU: Final = "nvidia.com/gpu"
CARDS: Final = (
    GPU,
    "nvidia.com/gpu.shared",  # a time slice or MPS share
    "amd.com/gpu",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
)
AMD_PARTITIONS: Final = tuple(f"amd.com/{mode}_" for mode in ("spx", "dpx", "tpx", "qpx", "cpx"))
"""Of ROCm/k8s-device-plugin's resource naming strategy ``mixed``, such as ``amd.com/cpx_nps4``;
by default it calls a partition ``amd.com/gpu`` as well."""

MIG_PREFIX: Final = "nvidia.com/mig-"
MIG: Final = re.compile(r"nvidia\.com/mig-([1-7])g\.([0-9]{1,4})gb(?:\.[a-z.]+)?", re.ASCII)
MIG_SLICES: Final = 7
"""Compute slices of one card (NVIDIA MIG user guide)."""


class Nvidia(Backend):
    """Whole GPUs from NVIDIA's device plugin; it counts those of other vendors' plugins too."""

    name = "nvidia"
    resources = (GPU, MIG_PREFIX, "amd.com/gpu", *AMD_PARTITIONS, "gpu.intel.com/")
    tolerations = (NVIDIA_TAINT,)

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """A count of whole cards; every other wish that it cannot honour is refused."""
        problems = [
            *(p for part in request.slices if (p := _too_small(part, pod)) is not None),
            *_constraints(request),
        ]
        if problems:
            raise Refused(problems)
        edit = self.start(request)
        for part, amounts in self.parts(request, edit):
            self.give(edit, part, amounts, {GPU: part.cards})
        edit.warnings = ()  # a whole card's memory is all of it, whatever its size
        if keys.PLACEMENT in pod.annotations():
            edit.warn(
                f"{keys.PLACEMENT} is ignored: with the nvidia backend the kubelet picks the cards"
            )
        return edit

    def demand(self, pod: Pod) -> Demand:
        """Whole cards of any vendor's plugin, and MIG instances by their profile."""
        return aggregate(pod, _container_demand)


STACK = Nvidia


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
    """Each device is charged as a whole card, but a MIG instance.

    That is also a part of a card whose size its name does not tell, and a MIG profile of a form
    that this program does not know: never charged as less.
    """
    resources = container.resources
    total = Demand()
    for name in resources.names() if resources else ():
        if name in CARDS or name.startswith(AMD_PARTITIONS):
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
