"""Tencent gpu-manager: ``tencent.com/vcuda-core`` and ``vcuda-memory``.

Names, units and rules: tkestack/gpu-manager README and pkg/services/allocator/nvidia,
tkestack/gpu-admission pkg/predicate.
"""

from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.stack import NVIDIA_TAINT, About


class GpuManager(ResourceBackend):
    """Shares of one card with memory and compute; whole cards in hundreds of compute."""

    name = "gpu-manager"
    about = About(
        title="Tencent gpu-manager",
        memory="steps of 256 MiB",
        compute="1 to 99 percents of a GPU",
        cards="whole GPUs, in hundreds of compute",
        memory_isolation="soft",
        compute_isolation="soft",
        source="tkestack/gpu-manager at 8cd842ed (2023-10-04), gpu-admission at 47d56ae9 "
        "(2020-11-26)",
    )
    resources = ("tencent.com/vcuda-",)
    tolerations = (NVIDIA_TAINT,)
    assignments = ("tencent.com/predicate-", "tencent.com/gpu-assigned")
    model_label = "gaia.tencent.com/gpu-model"

    memory = "tencent.com/vcuda-memory"
    unit_mib = 256
    compute = "tencent.com/vcuda-core"
    needs_compute = True
    whole_by_compute = True
    full_is_whole = True
    totals = True
    regular_only = True


STACK = GpuManager
