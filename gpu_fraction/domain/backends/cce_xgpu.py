"""Huawei CCE xGPU: ``volcano.sh/gpu-mem.128Mi`` and ``gpu-core.percentage``.

Names, units and rules: support.huaweicloud.com and opentelekomcloud-docs, cloud-container-engine
cce_10_0646, 0742 and 0965 (read 2026-08).
"""

from typing import Final

from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.stack import NVIDIA_TAINT, About
from gpu_fraction.domain.traces import Traces

COUNT_LABEL: Final = "volcano.sh/gpu-num"


class CceXgpu(ResourceBackend):
    """Memory, with or without compute, as totals over the pod's cards."""

    name = "cce-xgpu"
    about = About(
        title="CCE xGPU",
        memory="steps of 128 MiB",
        compute="5 to 95 percents of a GPU in steps of 5",
        cards="the same share of each",
        memory_isolation="hard",
        compute_isolation="hard",
        source="Huawei Cloud CCE user guide, cce_10_0646, 0742, 0965 (read 2026-08)",
        unverified=("xGPU isolates memory and compute (the vendor says so)",),
    )
    scheduler = "volcano"
    resources = ("volcano.sh/gpu-mem.128Mi", "volcano.sh/gpu-core.percentage")
    traces = Traces(owns=("nvidia.com/gpu",))
    tolerations = (NVIDIA_TAINT,)
    charged_by = frozenset({COUNT_LABEL})

    memory = "volcano.sh/gpu-mem.128Mi"
    unit_mib = 128
    compute = "volcano.sh/gpu-core.percentage"
    compute_step = 5
    compute_follows = False
    full_is_whole = True
    totals = True
    number_label = COUNT_LABEL
    regular_only = True


STACK = CceXgpu
