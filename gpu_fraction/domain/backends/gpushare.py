"""Alibaba's open gpushare: ``aliyun.com/gpu-mem`` of one card, shared by cooperation.

Names, units and rules: AliyunContainerService/gpushare-device-plugin pkg/gpu/nvidia and
gpushare-scheduler-extender docs/userguide.md, pkg/cache and pkg/utils.
"""

from typing import Any, ClassVar, Final

from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.stack import NVIDIA_TAINT, About, StackSetting
from gpu_fraction.domain.traces import Traces

_UNIT: Final = StackSetting(
    "gpushare_memory_unit",
    "GiB",
    "unit of aliyun.com/gpu-mem, --memory-unit of its device plugin (backend gpushare)",
    ("GiB", "MiB"),
    charged=True,
)


class Gpushare(ResourceBackend):
    """Memory of one card. The backend cgpu charges its pods, whose names it shares."""

    name = "gpushare"
    about = About(
        title="Alibaba gpushare",
        memory="GiB, or MiB by the setting gpushare_memory_unit",
        compute="none of its own; it goes with the memory",
        cards="one",
        memory_isolation="none",
        compute_isolation="none",
        source="AliyunContainerService/gpushare-device-plugin at 45fb8b88 (2022-04-21)",
    )
    tolerations = (NVIDIA_TAINT,)
    traces = Traces(resources=("aliyun.com/gpu-mem",), labels=("gpushare=true",))
    settings: ClassVar[tuple[StackSetting[Any], ...]] = (_UNIT,)
    leaves_total = True
    assignments = ("ALIYUN_COM_GPU_MEM_",)

    memory = "aliyun.com/gpu-mem"
    regular_only = True
    one_card = True

    def step_mib(self) -> int:
        """By the setting."""
        return 1024 if self.config.of(_UNIT) == "GiB" else 1


STACK = Gpushare
