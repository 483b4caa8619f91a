"""Elastic GPU: ``elasticgpu.io/gpu-core`` and ``gpu-memory``, or what its other kinds take.

Names, units and rules: elastic-gpu/elastic-gpu-agent pkg/plugins and pkg/common,
elastic-ai/elastic-gpu-scheduler README and pkg/scheduler.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.backends.nvidia import Nvidia
from gpu_fraction.domain.backends.qgpu import Qgpu
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.request import Request
from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.stack import NVIDIA_TAINT, About, StackSetting

_NAME: Final = "elastic-gpu"
_SOURCE: Final = "elastic-gpu/elastic-gpu-agent at 26091078 (2022-05-07)"
_UNPUBLISHED: Final = "Elastic GPU places this kind of GPU (only gpushare's scheduler is public)"

_KIND: Final = StackSetting(
    "elastic_gpu_kind",
    "gpushare",
    "kind of GPU that the backend elastic-gpu asks for",
    ("gpushare", "qgpu", "pgpu"),
)


class _QgpuKind(Qgpu):
    """The names of qGPU; the backend qgpu charges them."""

    name = _NAME
    about = replace(
        Qgpu.about,
        title="Elastic GPU (qgpu)",
        memory_isolation="none",
        compute_isolation="none",
        source=_SOURCE,
        unverified=(_UNPUBLISHED, *Qgpu.about.unverified),
    )


class _PgpuKind(Nvidia):
    """Whole cards; the backend nvidia charges them."""

    name = _NAME
    about = replace(
        Nvidia.about,
        title="Elastic GPU (pgpu)",
        source=_SOURCE,
        unverified=(_UNPUBLISHED,),
    )


_KINDS: Final[Mapping[str, type[Backend]]] = {"qgpu": _QgpuKind, "pgpu": _PgpuKind}


class ElasticGpu(ResourceBackend):
    """Shares of one card; whole cards in hundreds of compute."""

    name = _NAME
    about = About(
        title="Elastic GPU",
        memory="MiB",
        compute="1 to 99 percents of a GPU",
        cards="whole GPUs, in hundreds of compute",
        memory_isolation="none",
        compute_isolation="none",
        source=_SOURCE,
        unverified=("elasticgpu.io/gpu-memory counts MiB (one README says MB)",),
    )
    resources = ("elasticgpu.io/",)
    tolerations = (NVIDIA_TAINT,)
    settings = (_KIND,)
    assignments = ("elasticgpu.io/assumed", "elasticgpu.io/container-")

    memory = "elasticgpu.io/gpu-memory"
    compute = "elasticgpu.io/gpu-core"
    whole_by_compute = True
    full_is_whole = True
    totals = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """In the names of the cluster's kind."""
        kind = self._other_kind()
        return super().render(request, pod) if kind is None else kind.render(request, pod)

    def read(self, pod: Pod) -> Request | None:
        """From the names of the cluster's kind."""
        kind = self._other_kind()
        return super().read(pod) if kind is None else kind.read(pod)

    def _other_kind(self) -> Backend | None:
        kind = _KINDS.get(self.config.of(_KIND))
        return None if kind is None else kind(self.config)


STACK = ElasticGpu
