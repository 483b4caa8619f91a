"""NVIDIA's own device plugin: whole cards, nothing smaller.

Source: NVIDIA/k8s-device-plugin README.
"""

from typing import Final

from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import whole_cards
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import NVIDIA_TAINT, About
from gpu_fraction.domain.traces import Traces

GPU: Final = "nvidia.com/gpu"


class Nvidia(Backend):
    """Whole GPUs from NVIDIA's device plugin."""

    name = "nvidia"
    about = About(
        title="NVIDIA device plugin",
        memory="whole GPUs",
        compute="whole GPUs",
        cards="a count",
        memory_isolation="hard",
        compute_isolation="hard",
        source="NVIDIA/k8s-device-plugin at 1b826acc (2026-08-19)",
    )
    resources = (GPU,)
    tolerations = (NVIDIA_TAINT,)
    traces = Traces(resources=(GPU,))

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """A count of whole cards."""
        edit = self.start(request, pod)
        warnings = edit.warnings
        for part, amounts in self.parts(request, edit):
            self.needs_whole(edit, part, pod)
            self.give(edit, part, amounts, {GPU: part.cards})
        edit.warnings = warnings  # a whole card's memory is all of it, whatever its size
        return edit

    def ask(self, container: Container, pod: Pod) -> Slice | None:  # noqa: ARG002
        """Whole cards."""
        return whole_cards(container, (GPU,))


STACK = Nvidia
