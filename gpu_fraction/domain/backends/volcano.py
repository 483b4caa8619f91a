"""Volcano vGPU: ``volcano.sh/vgpu-number`` cards, with memory and compute for each of them.

Names, units and rules: volcano-sh/volcano docs/user-guide/how_to_use_volcano_vgpu.md and
pkg/scheduler/api/devices (config/vgpu.go, nvidia/vgpu).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.hami_models import choose_models, names_in, read_models
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, whole_cards
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.stack import NVIDIA_TAINT, About, StackSetting

USE_UUID: Final = "volcano.sh/vgpu-use-gpuuuid"
OLD_NUMBER: Final = "volcano.sh/gpu-number"
OLD_MEMORY: Final = "volcano.sh/gpu-memory"
"""Whole cards, or MiB of one card; deprecated since Volcano 1.9."""

_FACTOR: Final = StackSetting(
    "volcano_memory_factor",
    1,
    "MiB of one unit of volcano.sh/vgpu-memory, gpuMemoryFactor of its device plugin",
    range(1, 1025),
    charged=True,
)


class Volcano(ResourceBackend):
    """Shares that Volcano hands out; all its amounts are for each card."""

    name = "volcano"
    about = About(
        title="Volcano vGPU",
        memory="MiB, times the setting volcano_memory_factor, of each GPU",
        compute="whole percents of each GPU",
        cards="the same share of each",
        memory_isolation="soft",
        compute_isolation="soft",
        source="volcano-sh/volcano at ed72c7c8 (2026-08-20)",
        unverified=("volcano.sh/vgpu-memory counts MiB (its guide calls 3000 3G)",),
    )
    scheduler = "volcano"
    resources = ("volcano.sh/vgpu-", OLD_NUMBER, OLD_MEMORY)
    tolerations = (NVIDIA_TAINT,)
    settings = (_FACTOR,)
    assignments = (
        "volcano.sh/vgpu-ids-new",
        "volcano.sh/vgpu-node",
        "volcano.sh/vgpu-time",
        "volcano.sh/devices-to-allocate",
        "volcano.sh/bind-",
    )
    chooses_models = True
    chooses_uuids = True

    memory = "volcano.sh/vgpu-memory"
    compute = "volcano.sh/vgpu-cores"
    whole_by_compute = True
    number = "volcano.sh/vgpu-number"
    all_memory = True
    regular_only = True

    def step_mib(self) -> int:
        """By the setting."""
        return self.config.of(_FACTOR)

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """With the models in HAMi's annotation, which Volcano reads too."""
        edit = super().render(request, pod)
        choose_models(request, edit, self.config.card_sizes.by_model_mib, self.about.title)
        if request.uuids:
            edit.annotations[USE_UUID] = ",".join(request.uuids)
        return edit

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:
        """The amounts of each card, also by the names of old."""
        yield from super().asks(container, pod, up=up)
        if cards := whole_cards(container, (OLD_NUMBER,)):
            yield cards
        if old_mib := amount_of(container.resources, OLD_MEMORY):
            yield asked_for(container, cards=1, core_milli=None, memory_mib=old_mib)

    def read(self, pod: Pod) -> Request | None:
        """With the models and cards of its annotations."""
        found = super().read(pod)
        if found is None:
            return None
        given = pod.annotations()
        uuids = names_in(given.get(USE_UUID))
        return replace(read_models(found, given), uuids=uuids)


STACK = Volcano
