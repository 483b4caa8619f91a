"""ACK cGPU: gpushare's ``aliyun.com/gpu-mem``, with compute and several cards.

Names, units and rules: alibabacloud.com/help/en/ack, "use cGPU to allocate computing power"
(2026-03-26) and "multi-card sharing"; help.aliyun.com, "enable scheduling" (2026-01-12).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from gpu_fraction.domain.backends.gpushare import Gpushare
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import whole_cards
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import About
from gpu_fraction.domain.traces import Traces

COUNT_LABEL: Final = "aliyun.com/gpu-count"
WHOLE: Final = "aliyun.com/gpu"
"""Whole cards of nodes whose mode is ``topology``."""

NODE_MODE: Final = "ack.node.gpu.schedule"
"""Node label; ``cgpu`` nodes isolate memory, ``core_mem`` nodes compute too, ``share`` nothing."""


class Cgpu(Gpushare):
    """Memory, with compute on nodes that isolate it, of one card; or memory of several."""

    name = "cgpu"
    about = About(
        title="ACK cGPU",
        memory="GiB",
        compute="5 to 100 percents of a GPU in steps of 5, on nodes in the mode core_mem",
        cards="memory only, the same of each",
        memory_isolation="some nodes",
        compute_isolation="some nodes",
        source="Alibaba Cloud ACK user guide (2026-03-26)",
    )
    resources = ("aliyun.com/gpu",)
    traces = Traces(
        resources=("aliyun.com/gpu-core.percentage",),
        labels=tuple(
            f"ack.node.gpu.schedule={mode}" for mode in ("cgpu", "core_mem", "share", "mps")
        ),
        owns=("aliyun.com/gpu-mem", "aliyun.com/gpu-count"),
    )
    settings = ()
    charged_by = frozenset({COUNT_LABEL})
    model_label = "aliyun.accelerator/nvidia_name"
    leaves_total = False
    """Only in the mode ``share``: where cGPU isolates, frameworks would take a part of a part."""

    compute = "aliyun.com/gpu-core.percentage"
    compute_step = 5
    compute_follows = False
    compute_of_several = False
    number_label = COUNT_LABEL
    totals = True
    one_card = False

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """Isolation that is required is a mode of the node."""
        edit = super().render(request, pod)
        if request.isolation == "required" and not any(
            self.compute in given for given in edit.resources.values()
        ):
            edit.node_selector[NODE_MODE] = "cgpu"  # Compute is on core_mem nodes only.
        return edit

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:
        """Shares, and whole cards."""
        yield from super().asks(container, pod, up=up)
        if cards := whole_cards(container, (WHOLE,)):
            yield cards

    def read(self, pod: Pod) -> Request | None:
        """With the isolation of the nodes that the pod selects."""
        found = super().read(pod)
        isolated = (pod.spec.node_selector or {}).get(NODE_MODE) == "cgpu"
        return replace(found, isolation="required") if found and isolated else found


STACK = Cgpu
