"""Which cards containers were given: what is written is what is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain.assignment import AssignmentError, CardShare, parse, render
from tests.builders.strategies import text

shares = st.builds(
    CardShare,
    st.from_regex(r"(GPU|MIG)-[0-9a-f]{4}", fullmatch=True),
    st.integers(0, 1000),
    st.integers(1, 1 << 20),
)
assignments = st.dictionaries(
    text,
    st.lists(shares, min_size=1, max_size=3, unique_by=lambda s: s.uuid).map(tuple),
    min_size=1,
    max_size=3,
)


def test_written_form() -> None:
    """Sorted, so that equal means equal."""
    made = {"b": (CardShare("GPU-1", 250, 4096),), "a": (CardShare("GPU-2", 0, 1),)}
    assert render(made) == (
        '{"containers":{"a":[{"coreMilli":0,"memoryMib":1,"uuid":"GPU-2"}],'
        '"b":[{"coreMilli":250,"memoryMib":4096,"uuid":"GPU-1"}]},"v":1}'
    )


@given(assignments)
def test_round_trip(made: dict[str, tuple[CardShare, ...]]) -> None:
    """Whatever cards whichever containers got."""
    assert parse(render(made)) == made


def wire(version: object = 1, containers: object = None, **card: Any) -> str:
    """A good annotation, but for the changes."""
    good = {"uuid": "GPU-1", "coreMilli": 250, "memoryMib": 4096, **card}
    return json.dumps({"v": version, "containers": containers or {"main": [good]}})


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "null",
        "\ud800",
        wire(version=2),
        wire(version="1"),
        '{"v":1,"containers":{}}',
        '{"v":1,"containers":{"main":[]}}',
        '{"v":1,"containers":{},"x":' + "[" * 5000,
        wire(containers={"main": [{"uuid": "GPU-1", "coreMilli": 1, "memoryMib": 1}] * 2}),
        wire(uuid=""),
        wire(uuid="GPU-ü"),
        wire(coreMilli=-1),
        wire(coreMilli=1001),
        wire(memoryMib=0),
        wire(memoryMib="4096"),
    ],
)
def test_nothing_else_is_read(damaged: str) -> None:
    """Forged or damaged annotations are an error, never other cards."""
    assert parse(wire())
    with pytest.raises(AssignmentError):
        parse(damaged)
