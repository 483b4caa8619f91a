"""Verdicts on pods, shared by the tests of admission."""

import copy
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import Rules, Verdict, admit
from gpu_fraction.domain.backends import BACKENDS, BackendConfig
from gpu_fraction.domain.guard import Policy
from gpu_fraction.domain.request import Refused
from gpu_fraction.domain.sizes import CardSizes
from tests.builders.pods import Raw, typed

CONFIG = BackendConfig(CardSizes(16384))
NATIVE = {keys.SLOT: "1", keys.CORE_MILLI: "250", keys.MEMORY_MIB: "4096"}
QUARTER = {"gpu-fraction": "0.25"}
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
REQUEST = (
    '{"v":1,"backend":"native","containers":[{"name":"main","cards":1,"coreMilli":250,'
    '"memoryMilli":250}],"placement":"binpack","isolation":"preferred"}'
)


def verdict(raw: Raw, backend: str = "native", *, trusted: bool = False, **policy: Any) -> Verdict:
    """On a pod as it stands."""
    rules = Rules(policy=Policy(**policy))
    return admit(typed(raw), BACKENDS[backend](CONFIG), rules, trusted=trusted)


def refusals(
    raw: Raw, backend: str = "native", *, trusted: bool = False, **policy: Any
) -> list[str]:
    """Every problem, as its author reads it."""
    with pytest.raises(Refused) as refused:
        verdict(raw, backend, trusted=trusted, **policy)
    return [str(problem) for problem in refused.value.problems]


def admitted(raw: Raw, backend: str = "native") -> Raw:
    """The pod with the patch applied; a second verdict leaves it as it is."""
    after: Raw = jsonpatch.JsonPatch(verdict(raw, backend).operations).apply(copy.deepcopy(raw))
    assert verdict(after, backend).operations == []
    return after
