"""The webhook configurations that people apply."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from gpu_fraction.domain.backends import STACKS
from tests.support import reaching

CONFIGURATIONS = Path(__file__).parents[3] / "deploy" / "webhook" / "configurations.yaml"


def test_every_webhook_has_a_condition() -> None:
    """Only pods that use GPUs wait for it."""
    named = [
        condition["name"]
        for document in YAML(typ="safe").load_all(CONFIGURATIONS)
        for webhook in document["webhooks"]
        for condition in webhook["matchConditions"]
    ]
    assert named == ["annotated", "uses-gpus", "changes-our-keys"]


def test_changes_of_labels_that_count_cards_reach_the_webhook() -> None:
    """Of every stack; they are listed, because the cost of a search would be the tenant's."""
    counting = {getattr(stack, "number_label", None) for stack in STACKS.values()} - {None}
    assert counting == set(reaching.COUNT_LABELS)
    *_, conditions = YAML(typ="safe").load_all(CONFIGURATIONS)
    told = conditions["webhooks"][-1]["matchConditions"][0]["expression"]
    listed = re.search(r"\|\| \[([^]]*)\][.]exists\(k, object[.]metadata[.][?]labels", told)
    assert listed
    assert re.findall("'([^']*)'", listed[1]) == sorted(counting)


OFFERED = [
    "amd.com/cpx_nps4",
    "cambricon.com/mlu.smlu.vcore",
    "cambricon.com/mlu.smlu.vmemory",
    "cambricon.com/vmlu",
    "deviceclass.resource.kubernetes.io/gpu.nvidia.com",
    "deviceclass.resource.kubernetes.io/mig.nvidia.com",
    "enflame.com/drs-gcu",
    "enflame.com/gcu",
    "enflame.com/gcu-core",
    "huawei.com/Ascend310P-memory",
    "huawei.com/Ascend910B4-1",
    "hygon.com/dcucores",
    "hygon.com/dcumem",
    "hygon.com/dcunum",
    "iluvatar.ai/BI-V150-vgpu",
    "iluvatar.ai/BI-V150.vCore",
    "kunlunxin.com/vxpu-memory",
    "kunlunxin.com/xpu",
    "metax-tech.com/vcore",
    "metax-tech.com/vmemory",
    "mthreads.com/sgpu-core",
    "nvidia.com/mig-1g.10gb.me",
    "nvidia.com/priority",
    "tencent.com/vcuda-core",
    "virtaitech.com/gpu",
]
"""Names of the stacks' own documents, mostly without ``gpu`` (HAMi charts/hami/values.yaml)."""

OTHERS = [
    "amd.com/nic",
    "amd.com/xilinx_u200",
    "cpu",
    "deviceclass.resource.kubernetes.io/nic",
    "ephemeral-storage",
    "example.com/hca",
    "huawei.com/roce",
    "hugepages-2Mi",
    "intel.com/qat",
    "nvidia.com/hostdev",
    "rdma/hca_shared_devices_a",
    "xilinx.com/fpga-xilinx_u30",
]


def test_resources_that_reach_the_webhook() -> None:
    """Pods written by hand for a stack are charged; its names are in the condition uses-gpus.

    It is one expression, which the API server compiles once because it is a constant.
    """
    (pattern,) = re.findall(r"r[.]matches\(\s*'([^']+)'\)", CONFIGURATIONS.read_text())
    names = [*OFFERED, *(name for stack in STACKS.values() for name in stack.resources)]
    assert [name for name in names if not re.search(pattern, name)] == []
    assert [name for name in OTHERS if re.search(pattern, name)] == []
