"""Pods written by hand so that they would cost less than the stack hands out."""

from typing import Any

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.backends import demand
from tests.builders.pods import container, pod, typed
from tests.builders.strategies import STACK_RESOURCES
from tests.unit.domain.verdicts import QUARTER, refusals

DRA = "deviceclass.resource.kubernetes.io/"


@pytest.mark.parametrize("name", sorted({*STACK_RESOURCES} - {*keys.NATIVE_RESOURCES}))
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_one_of_any_resource_is_charged(name: str, kind: str) -> None:
    """In every amount, whatever it is one of."""
    asking = container("asking", {name: "1"})
    raw = pod(None, asking) if kind == "containers" else pod(None, init=[asking])
    cost = demand(typed(raw))
    assert cost.cards == 1
    assert cost.core_milli or cost.open_core_mib
    assert cost.memory_mib or cost.open_memory_milli


@pytest.mark.parametrize(
    "amounts",
    [
        {"aliyun.com/gpu-mem": "1", "aliyun.com/gpu": "8"},
        {
            "volcano.sh/vgpu-number": "1",
            "volcano.sh/vgpu-memory": "1",
            "volcano.sh/gpu-number": "8",
        },
        {"nvidia.com/gpumem": "0", "nvidia.com/gpu": "8", "nvidia.com/mig-1g.5gb": "0"},
        {"nvidia.com/gpumem": "0", "amd.com/gpu": "8"},
        {f"{DRA}vfio.gpu.nvidia.com": "8"},
        {f"{DRA}mig-1g.10gb.nvidia.com": "0", f"{DRA}mig.nvidia.com": "8"},
    ],
)
def test_small_or_zero_amounts_hide_no_cards(amounts: dict[str, str]) -> None:
    """Of one stack beside another's, or of two kinds of one stack."""
    cost = demand(typed(pod(None, container(resources=amounts))))
    assert cost.cards >= 8
    assert cost.core_milli >= 8000
    assert cost.open_memory_milli >= 8000


@pytest.mark.parametrize(
    ("annotations", "cards"),
    [
        ({"gpu-fraction-container-name": "nobody"}, 1),
        ({"gpu-fraction-num-devices": "0" * 40 + "8"}, 8),
    ],
)
def test_kais_annotations_are_read_as_kai_reads_them(
    annotations: dict[str, str], cards: int
) -> None:
    """Of a container that is not there, and a number with many zeros before it."""
    raw = pod({"gpu-fraction": "0.5", **annotations}, schedulerName="kai-scheduler")
    cost = demand(typed(raw))
    assert (cost.cards, cost.core_milli) == (cards, cards * 500)


def test_a_label_with_many_zeros_counts_the_cards() -> None:
    """As the schedulers that divide by it read it."""
    raw = pod(None, container(resources={"aliyun.com/gpu-mem": "16"}))
    raw["metadata"]["labels"] = {"aliyun.com/gpu-count": "0" * 40 + "4"}
    assert demand(typed(raw)).cards == 4


@pytest.mark.parametrize(
    ("rest", "core_milli"),
    [({}, 0), ({"envFrom": [{"configMapRef": {"name": "mine"}}]}, 1000)],
)
def test_compute_that_a_config_map_can_set_is_charged_whole(
    rest: dict[str, Any], core_milli: int
) -> None:
    """Of OrionX, whose amounts are variables; without one, compute follows the memory."""
    env = [{"name": "ORION_GMEM", "value": "10"}]
    raw = pod(None, container(resources={"virtaitech.com/gpu": "1"}, env=env, **rest))
    assert demand(typed(raw)).core_milli == core_milli


@pytest.mark.parametrize(
    "key", ["hami.io/vgpu-node", "hami.io/vgpu-devices-allocated", "hami.io/bind-phase"]
)
def test_what_hamis_scheduler_writes(key: str) -> None:
    """Its scheduler would count the pod on a node, and its device plugin serve it."""
    assert refusals(pod({**QUARTER, key: "x"}), "hami") == [
        f"metadata.annotations[{key}]: only HAMi sets it; remove it"
    ]


@pytest.mark.parametrize(("chars", "core_milli"), [(63, 143), (64, 1000)])
def test_a_product_that_no_label_can_hold_makes_no_instance(chars: int, core_milli: int) -> None:
    """The API server refuses it later; until then it costs a whole card, and no time to read."""
    product = "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb".rjust(chars, "x")
    raw = pod(
        None,
        container(resources={"nvidia.com/gpu": "1"}),
        nodeSelector={"nvidia.com/gpu.product": product},
    )
    assert demand(typed(raw)).core_milli == core_milli
