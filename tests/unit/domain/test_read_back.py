"""A rendered pod, read back, is a request for the same; what it costs is never less."""

import copy
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.backends import BackendConfig, configured, demand
from gpu_fraction.domain.request import Refused
from gpu_fraction.domain.sizes import CardSizes
from tests.builders.pods import container, pod, typed

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("nvidia-shared", {"nvidia_shared_replicas": 3}),
    ("nvidia-mig", {"nvidia_mig_model": "A100-80GB"}),
    ("nvidia-mig", {"nvidia_mig_model": "NVIDIA-A30", "nvidia_mig_strategy": "single"}),
    ("nvidia-dra", {}),
    ("nvidia-dra", {"nvidia_dra_mode": "mig", "nvidia_dra_mig_model": "B200"}),
    ("nvidia-dra", {"nvidia_dra_mode": "shares", "nvidia_dra_shares": 7}),
    ("amd", {"amd_partition": "qpx_nps4"}),
    ("intel", {"intel_shared_dev_num": 5}),
    ("orionx", {}),
    ("bitfusion", {"bitfusion_os": "ubuntu20", "bitfusion_version": "450"}),
    ("hami", {}),
    *[
        ("hami", {"hami_vendor": vendor})
        for vendor in ("amd", "ascend-910a", "ascend-910c", "cambricon", "enflame", "hygon")
    ],
    *[
        ("hami", {"hami_vendor": vendor})
        for vendor in ("iluvatar-mr-v50", "kunlun", "metax", "mthreads", "vastai")
    ],
]
REQUESTS = [
    *[{"gpu-fraction": share} for share in ("0.001", "0.1", "0.142", "0.143", "0.2", "0.25")],
    *[{"gpu-fraction": share} for share in ("0.333", "0.5", "0.75", "1", "2")],
    *[{"gpu-memory": amount} for amount in ("100", "4Gi", "9000")],
    {"gpu-fraction": "0.14", "gpu-fraction-num-devices": "2"},
    {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"},
]


@pytest.mark.parametrize(("backend", "own"), SETTINGS)
@pytest.mark.parametrize("size_mib", [None, 16384])
def test_the_same_comes_back(backend: str, own: dict[str, Any], size_mib: int | None) -> None:
    """In the stack's own unit: the same resources again, and at least what was asked."""
    stacks = configured(BackendConfig(CardSizes(size_mib), own=own))
    stack, given = stacks[backend], 0
    for annotations in REQUESTS:
        raw = pod(annotations, container("main"))
        try:
            verdict = admit(typed(raw), stack, Rules())
        except Refused:
            continue
        given += 1
        after = typed(jsonpatch.JsonPatch(verdict.operations).apply(copy.deepcopy(raw)))
        found = stack.read(after)
        assert found is not None
        assert verdict.request is not None
        (asked,), (read,) = verdict.request.slices, found.slices
        assert read.cards == asked.cards
        assert (read.core_milli or 0) >= (asked.core_milli or 0) or read.core_milli is None
        assert (read.memory_mib or 1 << 40) >= (asked.memory_mib or 0)
        assert (read.memory_milli or 1000) >= (asked.memory_milli or 0)
        again = stack.render(found, typed(pod(None, container("main"))))
        assert after.spec.containers[0].resources is not None
        assert again.resources["main"] == after.spec.containers[0].resources.limits
        assert not again.problems
        charged = demand(after, stacks)
        assert charged.cards == asked.cards
        assert charged.open_memory_milli or charged.memory_mib >= (asked.memory_mib or 0)
        assert charged.open_core_mib or charged.core_milli >= asked.cards * (asked.core_milli or 0)
    assert given
