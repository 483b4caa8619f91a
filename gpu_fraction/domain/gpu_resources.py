"""Resource names by which pods ask GPU-sharing stacks for GPUs.

Source: the stacks' own documentation and code, for each the version named in
docs/backends.md.
"""

from typing import Final

from gpu_fraction.domain.keys import PREFIX

_AMD_PARTITIONS: Final = tuple(f"amd.com/{mode}_" for mode in ("spx", "dpx", "tpx", "qpx", "cpx"))
"""Of ROCm/k8s-device-plugin's resource naming strategy ``mixed``, such as ``amd.com/cpx_nps4``;
by default it calls a partition ``amd.com/gpu`` as well."""

_WHOLE_CARDS: Final = (
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",  # a time slice or MPS share
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
    *_AMD_PARTITIONS,
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

__all__ = ["is_card", "is_gpu"]


def is_card(name: str) -> bool:
    """True for a resource of which each device is charged as a whole card.

    That is also a part of a card whose size its name does not tell: never charged as less.
    """
    return name in _WHOLE_CARDS or name.startswith(_AMD_PARTITIONS)


def is_gpu(name: str) -> bool:
    """True for a resource by which some stack hands out GPUs or parts of them."""
    return name.startswith(_STACKS)
