"""NVIDIA's device plugin with replicas of each card, by time-slicing or MPS.

Source: NVIDIA/k8s-device-plugin README, docs/gpu-feature-discovery/README.md, internal/rm/rm.go,
cmd/mps-control-daemon/mps/daemon.go at 1b826acc (2026-08-19). The resource has this name where the
plugin's configuration says ``renameByDefault: true``.
"""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.equal_parts import EqualParts
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import NVIDIA_TAINT, About, StackSetting, flag
from gpu_fraction.domain.traces import Traces

SHARED: Final = "nvidia.com/gpu.shared"
REPLICAS: Final = "nvidia.com/gpu.replicas"
"""GPU feature discovery's label with the replicas of each card of a node."""

_REPLICAS: Final = StackSetting(
    "nvidia_shared_replicas",
    0,
    "replicas of each GPU, as the device plugin is configured (backend nvidia-shared)",
    range(1, 1001),
    charged=True,
)


class NvidiaShared(Backend):
    """One replica of a card for each container, on nodes with as many replicas as expected."""

    name = "nvidia-shared"
    about = About(
        title="NVIDIA device plugin, time-slicing or MPS",
        memory="one of N equal parts of a GPU",
        compute="one of N equal parts of a GPU",
        cards="one",
        memory_isolation="some nodes",
        compute_isolation="some nodes",
        source="NVIDIA/k8s-device-plugin at 1b826acc (2026-08-19)",
    )
    resources = (SHARED,)
    # Labels of GPU feature discovery (docs/gpu-feature-discovery); without a rename, nodes offer
    # shares by the name of whole cards.
    traces = Traces(
        labels=(
            "nvidia.com/gpu.sharing-strategy=time-slicing",
            "nvidia.com/gpu.sharing-strategy=mps",
        ),
        owns=("nvidia.com/gpu",),
    )
    tolerations = (NVIDIA_TAINT,)
    settings = (_REPLICAS,)
    charged_by = frozenset({REPLICAS})

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """One replica, and the label of the nodes that give as large a one."""
        edit = self.start(request, pod)
        if request.isolation == "required":
            edit.refuse(
                keys.ISOLATION,
                '"required" cannot be honoured: time-slicing isolates nothing, and MPS limits the '
                "memory of each process, not of a container; allowed: preferred, none",
            )
        replicas = self._replicas(pod)
        if replicas.count:
            edit.node_selector[REPLICAS] = str(replicas.count)
        eligible = self.config.card_sizes.eligible_mib(request)
        for part, amounts in self.parts(request, edit):
            key = asking(part, pod)
            self.give(edit, part, amounts, replicas.take(edit, key, part, eligible))
        edit.warn("only nodes with MPS keep a container to its memory; time-slicing does not")
        return edit

    def _replicas(self, pod: Pod) -> EqualParts:
        """As many as the pod's node selector says, else the setting."""
        told = units.count_in((pod.spec.node_selector or {}).get(REPLICAS))
        count = told or self.config.of(_REPLICAS)
        return EqualParts(SHARED, count, flag(_REPLICAS), "refused", "the backend nvidia")

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:
        """Each replica as its part of a card."""
        part = self._replicas(pod).ask(container, up=up)
        return () if part is None else (part,)


STACK = NvidiaShared
