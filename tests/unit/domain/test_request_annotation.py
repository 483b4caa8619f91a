"""The request annotation: what is written is what is read, and nothing else is read."""

import json
from typing import Any

import pytest

from gpu_fraction.domain import request_annotation
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.request_annotation import RequestAnnotationError, load, render

FULL = Request(
    slices=(
        Slice("main", 2, core_milli=500, memory_mib=8192, memory_milli=None),
        Slice("side", 1, core_milli=None, memory_mib=4096, memory_milli=None),
        Slice("other", 1, core_milli=250, memory_mib=None, memory_milli=250),
    ),
    models=("A100", "H100"),
    uuids=("GPU-1", "GPU-2"),
    placement="topology",
    isolation="required",
)


def test_written_form() -> None:
    """Absent amounts are left out; the rest has a fixed order, so that equal means equal."""
    assert render(FULL, "native") == (
        '{"v":1,"backend":"native","containers":['
        '{"name":"main","cards":2,"coreMilli":500,"memoryMib":8192},'
        '{"name":"side","cards":1,"memoryMib":4096},'
        '{"name":"other","cards":1,"coreMilli":250,"memoryMilli":250}],'
        '"placement":"topology","isolation":"required",'
        '"models":["A100","H100"],"uuids":["GPU-1","GPU-2"]}'
    )


def test_round_trip() -> None:
    """Everything that was asked comes back, with the backend that rendered it."""
    assert load(render(FULL, "hami")) == request_annotation.Rendered("hami", FULL)


def wire(**changes: Any) -> str:
    """A good annotation, but for the changes; None takes a field away."""
    good: dict[str, Any] = {
        "v": 1,
        "backend": "native",
        "containers": [{"name": "main", "cards": 1, "coreMilli": 500, "memoryMilli": 500}],
        "placement": "binpack",
        "isolation": "preferred",
    }
    good.update(changes)
    return json.dumps({key: value for key, value in good.items() if value is not None})


def part(**changes: Any) -> list[dict[str, Any]]:
    """One container, but for the changes; None takes a field away."""
    good: dict[str, Any] = {"name": "main", "cards": 1, "coreMilli": 500, "memoryMilli": 500}
    good.update(changes)
    return [{key: value for key, value in good.items() if value is not None}]


def test_the_good_annotation_that_the_bad_ones_are_made_of() -> None:
    """So that each of the refusals below is for its own reason."""
    assert load(wire()).request.slices == (Slice("main", 1, 500, None, 500),)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="no-json"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="a-list"),
        pytest.param("\ud800", id="no-text"),
        pytest.param("[" * 5000, id="deep"),
        pytest.param(wire(v=2), id="another-version"),
        pytest.param(wire(v="1"), id="a-version-in-words"),
        pytest.param(wire(v=None), id="no-version"),
        pytest.param(wire(backend=None), id="no-backend"),
        pytest.param(wire(placement="anywhere"), id="an-unknown-placement"),
        pytest.param(wire(isolation="some"), id="an-unknown-isolation"),
        pytest.param(wire(containers=[]), id="no-container"),
        pytest.param(wire(containers=part(memoryMib=8192)), id="two-memories"),
        pytest.param(wire(containers=part(memoryMilli=None)), id="no-memory"),
        pytest.param(wire(containers=part(coreMilli=None)), id="compute-follows-a-share"),
        pytest.param(wire(containers=part(cards=0)), id="no-card"),
        pytest.param(wire(containers=part(cards=-1)), id="cards-below-none"),
        pytest.param(wire(containers=part(cards=1.5)), id="half-a-card"),
        pytest.param(wire(containers=part(cards=10**30)), id="cards-beyond-counting"),
        pytest.param(wire(containers=part(coreMilli=0)), id="no-compute"),
        pytest.param(wire(containers=part(coreMilli=1001)), id="more-compute-than-a-card"),
        pytest.param(wire(containers=part(memoryMilli=0)), id="no-share-of-memory"),
        pytest.param(wire(containers=part(memoryMilli=1001)), id="more-memory-than-a-card"),
        pytest.param(wire(containers=part(memoryMib=0, memoryMilli=None)), id="no-mib"),
        pytest.param(wire(containers=part() * 2), id="a-container-twice"),
    ],
)
def test_nothing_else_is_read(text: str) -> None:
    """Forged, damaged or newer annotations are an error, never another request."""
    with pytest.raises(RequestAnnotationError):
        load(text)
