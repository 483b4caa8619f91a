"""Koordinator: totals of compute and memory over ``koordinator.sh/gpu.shared`` cards.

Names, units and rules: koordinator-sh/koordinator apis/extension/device_share.go,
pkg/scheduler/plugins/deviceshare, pkg/webhook/pod and pkg/koordlet/runtimehooks/hooks/gpu.
"""

from typing import Final

from gpu_fraction.domain import units
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import amount_of, asked_for
from gpu_fraction.domain.request import MAX_CARDS, Request, Slice
from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.stack import NVIDIA_TAINT, About
from gpu_fraction.domain.traces import Traces

ISOLATION_LABEL: Final = "koordinator.sh/gpu-isolation-provider"
ISOLATION: Final = "HAMi-core"
PERCENT: Final = "koordinator.sh/gpu"
"""Percents of memory and compute alike; Koordinator's webhook replaces it by the two."""


class Koordinator(ResourceBackend):
    """Shares that Koordinator gives a pod; each of its containers sees all of the pod's cards."""

    name = "koordinator"
    about = About(
        title="Koordinator",
        memory="whole percents of each GPU, or bytes",
        compute="whole percents of each GPU",
        cards="the same share of each, for one container of a pod",
        memory_isolation="soft",
        compute_isolation="soft",
        source="koordinator-sh/koordinator at a7a1b76b (2026-07-24)",
    )
    scheduler = "koord-scheduler"
    traces = Traces(
        resources=("koordinator.sh/gpu*",),
        crds=("devices.scheduling.koordinator.sh",),
        owns=("nvidia.com/gpu",),
    )
    resources = (PERCENT,)
    tolerations = (NVIDIA_TAINT,)
    assignments = ("scheduling.koordinator.sh/device-allocated",)
    model_label = "node.koordinator.sh/gpu-model"

    memory = "koordinator.sh/gpu-memory"
    compute = "koordinator.sh/gpu-core"
    number = "koordinator.sh/gpu.shared"
    totals = True
    ratio = "koordinator.sh/gpu-memory-ratio"
    one_container = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """With the label by which Koordinator isolates a share."""
        edit = super().render(request, pod)
        shares = any(not part.whole for part in request.slices)
        chosen = ISOLATION_LABEL in (pod.metadata.labels or {})
        if request.isolation == "required" or (request.isolation != "none" and not chosen):
            edit.labels.update({ISOLATION_LABEL: ISOLATION} if shares else {})
        return edit

    def quantity(self, count: int) -> int | str:
        """Bytes, with a suffix."""
        return units.format_memory(count)

    def ask(self, container: Container, pod: Pod) -> Slice | None:  # noqa: ARG002
        """The amounts of each card; without a number, hundreds of percents count the cards."""
        number, size, core, ratio, both = (
            amount_of(container.resources, name)
            for name in (self.number, self.memory, self.compute, self.ratio, PERCENT)
        )
        if not (number or size or core or ratio or both):
            return None
        core, ratio = max(core, both), max(ratio, both)
        cards = min(number or max(1, units.ceil_div(max(core, ratio), 100)), MAX_CARDS)
        core, ratio = units.ceil_div(core, cards) * 10, units.ceil_div(ratio, cards) * 10
        mib = 0 if ratio else units.ceil_div(size, cards * units.MIB)
        return asked_for(
            container,
            cards=cards,
            core_milli=core or (None if mib else ratio or units.MILLI),
            memory_mib=mib,
            memory_milli=ratio or core,
        )


STACK = Koordinator
