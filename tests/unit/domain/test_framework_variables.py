"""The variables of frameworks that admission writes, on stacks that leave a card's total."""

import copy
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain import frameworks, keys
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.backends import BACKENDS, BackendConfig
from gpu_fraction.domain.sizes import CardSizes
from tests.builders.pods import container, env, pod, typed

CARD = CardSizes(81920)
QUARTER = {"gpu-fraction": "0.25"}
ALL = {one.name for one in frameworks.VARIABLES}


def written(
    annotations: dict[str, str],
    *,
    backend: str = "gpushare",
    own: list[Any] | None = None,
    **config: Any,
) -> dict[str, str]:
    """The variables of the container that gets the share, after admission."""
    raw = pod(annotations, container(**({"env": own} if own else {})))
    made = BACKENDS[backend](BackendConfig(**{"card_sizes": CARD, **config}))
    patch = jsonpatch.JsonPatch(admit(typed(raw), made, Rules()).operations)
    found = patch.apply(copy.deepcopy(raw))["spec"]["containers"][0]
    return {one["name"]: one.get("value", "") for one in found.get("env", [])}


@pytest.mark.parametrize("annotations", [QUARTER, {"gpu-memory": "20Gi"}])
def test_a_share_of_a_known_card_is_told(annotations: dict[str, str]) -> None:
    """A quarter of 80 GiB, less the context: 0.243."""
    found = written(annotations)
    assert found[frameworks.OURS] == "0.243"
    assert found["PYTORCH_ALLOC_CONF"] == "per_process_memory_fraction:0.243"
    assert found["FLAGS_gpu_memory_limit_mb"] == "19968"


@pytest.mark.parametrize(
    ("annotations", "more"),
    [
        ({**QUARTER, keys.FRAMEWORK_ENV: "off"}, {}),
        (QUARTER, {"framework_env": "off"}),
        ({"gpu-fraction": "1"}, {}),
        (QUARTER, {"backend": "hami"}),
        (QUARTER, {"backend": "native"}),
        (QUARTER, {"backend": "koordinator"}),
    ],
    ids=["annotation", "setting", "whole", "hami", "native", "koordinator"],
)
def test_nothing_is_told(annotations: dict[str, str], more: dict[str, Any]) -> None:
    """Switched off, a whole card, or an engine that shows the share as the whole card."""
    assert not ALL & set(written(annotations, **more))


def test_the_authors_values_stay() -> None:
    """And a framework that is set by another name gets nothing."""
    found = written(QUARTER, own=env(("XLA_CLIENT_MEM_FRACTION", "0.1"), (frameworks.OURS, "0.2")))
    assert found["XLA_CLIENT_MEM_FRACTION"] == "0.1"
    assert found[frameworks.OURS] == "0.2"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in found


def test_memory_on_cards_of_several_sizes_is_no_known_part() -> None:
    """The part depends on the card that is chosen."""
    sizes = CardSizes(None, {"T4": 15360, "A100": 81920})
    assert not ALL & set(written({"gpu-memory": "4Gi"}, card_sizes=sizes))
