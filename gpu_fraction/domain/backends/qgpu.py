"""Tencent TKE qGPU: ``tke.cloud.tencent.com/qgpu-core`` and ``qgpu-memory``.

Names, units and rules: tencentcloud.com/document/product/457/59103 (2024-02-28),
cloud.tencent.com/document/product/457/65734 (2026-01-16) and 457/127667.
"""

from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.stack import NVIDIA_TAINT, About


class Qgpu(ResourceBackend):
    """Shares of one card; a total above 100 of compute is a share of two, or whole cards."""

    name = "qgpu"
    about = About(
        title="TKE qGPU",
        memory="GiB",
        compute="5 to 95 percents of a GPU in steps of 5",
        cards="whole GPUs, in hundreds of compute",
        memory_isolation="hard",
        compute_isolation="some nodes",
        source="Tencent Cloud documents 457/59103 (2024-02-28), 457/65734 (2026-01-16)",
        unverified=(
            "tke.cloud.tencent.com/qgpu-memory counts GiB (the vendor writes G)",
            "a whole GPU needs no qgpu-memory beside qgpu-core",
        ),
    )
    resources = ("tke.cloud.tencent.com/qgpu-",)
    tolerations = (NVIDIA_TAINT,)

    memory = "tke.cloud.tencent.com/qgpu-memory"
    unit_mib = 1024
    compute = "tke.cloud.tencent.com/qgpu-core"
    compute_step = 5
    other_compute = ("tke.cloud.tencent.com/qgpu-core-greedy",)
    """Compute of offline pods (tencentcloud.com/document/product/457/52079)."""
    needs_compute = True
    whole_by_compute = True
    full_is_whole = True
    totals = True


STACK = Qgpu
