"""Resource names by which pods ask GPU-sharing stacks for GPUs.

Source: the stacks' own documentation and code, for each the version named in
docs/backends.md.
"""

from typing import Final

from gpu_fraction.domain.keys import PREFIX

WHOLE_CARDS: Final = (
    "nvidia.com/gpu",
    # A time slice or MPS share of unknown size: charged as a whole card, never as less.
    "nvidia.com/gpu.shared",
    "amd.com/gpu",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
)

_STACKS: Final = (
    PREFIX,
    "nvidia.com/gpu",
    "nvidia.com/mig-",
    "nvidia.com/priority",
    "amd.com/gpu",
    "amd.com/cpx_",
    "amd.com/spx_",
    "gpu.intel.com/",
    "tencent.com/vcuda-",
    "tke.cloud.tencent.com/qgpu-",
    "elasticgpu.io/",
    "aliyun.com/gpu-",
    "volcano.sh/gpu-",
    "volcano.sh/vgpu-",
    "virtaitech.com/gpu",
    "bitfusion.io/",
    "koordinator.sh/gpu",
    "nos.nebuly.com/gpu",
)

__all__ = ["WHOLE_CARDS", "is_gpu"]


def is_gpu(name: str) -> bool:
    """True for a resource by which some stack hands out GPUs or parts of them."""
    return name.startswith(_STACKS)
