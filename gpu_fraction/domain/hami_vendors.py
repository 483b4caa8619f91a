"""The vendors whose devices HAMi hands out, as data.

Names: charts/hami/values.yaml and templates/scheduler/device-configmap.yaml, Project-HAMi/HAMi at
4707fb02 (2026-08-21); units and rounding: ``GenerateResourceRequests`` and ``MutateAdmission`` in
pkg/device/*/device.go there. HAMi's webhook writes some amounts itself; a pod is rendered with
them, so that it leaves the pod as it is.
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Vendor:
    """One kind of device.

    Attributes:
        name: As the setting names it.
        count: The resource that counts devices; empty where an amount alone asks for one.
        memory: The resource with the memory of each device; empty where there is none.
        cores: The resource with the compute of each device; empty where there is none.
        unit_mib: MiB of one of ``memory``; 0 for a quantity with a unit.
        core_parts: Parts of a device that ``cores`` counts.
        all_cores: Without ``cores`` a container gets all of a device's compute.
        card_mib: MiB of the device; 0 where it differs.
        sizes_mib: The memory that a share can have, ascending; HAMi rounds up to it. Empty for
            any.
        size_milli: Thousandths of compute that come with each of ``sizes_mib``; empty where
            compute is asked by ``cores`` or follows the memory.
        several: Containers can have shares of several devices.
        totals: Of whole devices, ``memory`` is a sum, as ``cores`` always is.
        whole: The resource that counts whole devices, where it is not ``count``.
        told: What a request for whole devices also names, as HAMi's webhook would write it.
        even: Whole devices come in multiples of this; with more than 1 there are no shares.
    """

    name: str
    count: str
    memory: str = ""
    cores: str = ""
    unit_mib: int = 1
    core_parts: int = 100
    all_cores: bool = True
    card_mib: int = 0
    sizes_mib: tuple[int, ...] = ()
    size_milli: tuple[int, ...] = ()
    several: bool = True
    totals: bool = False
    whole: str = ""
    told: tuple[Literal["memory", "cores"], ...] = ()
    even: int = 1


def _ascend(
    kind: str, card_mib: int, cores: int, templates: dict[int, int], even: int = 1
) -> Vendor:
    """Huawei's: memory is one of the templates, each with its cores.

    HAMi refuses ``-core`` but for pods with its annotation for a soft division.
    """
    resource = f"huawei.com/Ascend{kind}"
    return Vendor(
        f"ascend-{kind.lower()}",
        resource,
        memory=f"{resource}-memory",
        cores=f"{resource}-core",
        card_mib=card_mib,
        sizes_mib=tuple(templates),
        size_milli=tuple(-(-count * 1000 // cores) for count in templates.values()),
        several=False,
        told=("memory",),
        even=even,
    )


def _iluvatar(kind: str) -> Vendor:
    resource = f"iluvatar.ai/{kind}"
    return Vendor(
        f"iluvatar-{kind.lower()}",
        f"{resource}-vgpu",
        memory=f"{resource}.vMem",
        cores=f"{resource}.vCore",
        unit_mib=256,
        all_cores=False,
        several=False,
        told=("cores",),
    )


VENDORS: Final = (
    Vendor(
        "amd",
        "amd.com/gpu",
        memory="amd.com/gpumem",
        cores="amd.com/gpucores",
    ),
    _ascend("910A", 32768, 30, {2184: 2, 4369: 4, 8738: 8, 17476: 16}),
    _ascend("910B2", 65536, 24, {8192: 3, 16384: 6, 32768: 12}),
    _ascend("910B3", 65536, 20, {16384: 5, 32768: 10}),
    _ascend("910B4-1", 65536, 20, {16384: 5, 32768: 10}),
    _ascend("910B4", 32768, 20, {8192: 5, 16384: 10}),
    _ascend("910C", 65536, 20, {16384: 5, 32768: 10}, even=2),
    _ascend("310P", 21527, 8, {3072: 1, 6144: 2, 12288: 4}),
    Vendor("aws-neuron", "aws.amazon.com/neuron"),
    Vendor("biren", "birentech.com/gpu"),
    Vendor(
        "cambricon",
        "cambricon.com/vmlu",
        memory="cambricon.com/mlu.smlu.vmemory",
        cores="cambricon.com/mlu.smlu.vcore",
        unit_mib=256,
    ),
    Vendor(
        "enflame",
        "",
        memory="enflame.com/gcu-memory",
        cores="enflame.com/gcu-core",
        all_cores=False,
        several=False,
        whole="enflame.com/gcu",
    ),
    Vendor(
        "hygon",
        "hygon.com/dcunum",
        memory="hygon.com/dcumem",
        cores="hygon.com/dcucores",
    ),
    _iluvatar("BI-V100"),
    _iluvatar("BI-V150"),
    _iluvatar("MR-V100"),
    _iluvatar("MR-V50"),
    Vendor(
        "kunlun",
        "kunlunxin.com/vxpu",
        memory="kunlunxin.com/vxpu-memory",
        card_mib=98304,
        sizes_mib=(24576, 49152),
        size_milli=(250, 500),
        told=("memory",),
    ),
    Vendor(
        "metax",
        "metax-tech.com/sgpu",
        memory="metax-tech.com/vmemory",
        cores="metax-tech.com/vcore",
        unit_mib=0,
    ),
    Vendor(
        "mthreads",
        "mthreads.com/vgpu",
        memory="mthreads.com/sgpu-memory",
        cores="mthreads.com/sgpu-core",
        unit_mib=512,
        core_parts=16,
        all_cores=False,
        card_mib=96 * 512,
        sizes_mib=tuple(512 * units for units in (2, 4, 8, 16, 32, 64)),
        several=False,
        totals=True,
        told=("memory", "cores"),
    ),
    Vendor("vastai", "vastaitech.com/va"),
)
"""Every vendor but NVIDIA."""

WHOLE: Final = ("aws.amazon.com/neuroncore", "kunlunxin.com/xpu", "metax-tech.com/gpu")
"""Charged as whole devices and never written: devices of nodes that share none, and parts whose
size only the node knows."""

SLICES: Final = ("enflame.com/drs-gcu",)
"""Counts of slices of one device, whose size only the node knows: charged as the device."""
