"""The cards of a node: what is written is what is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain.inventory import Card, Inventory, InventoryError, parse, render
from tests.builders.strategies import text

cards = st.builds(
    Card,
    uuid=st.from_regex(r"GPU-[0-9a-f]{4}", fullmatch=True),
    index=st.integers(0, 15),
    model=text,
    memory_mib=st.integers(0, 1 << 20),
    core_milli=st.integers(0, 1000),
    slots=st.integers(0, 64),
    numa=st.integers(-1, 7),
    healthy=st.booleans(),
    health_reason=text,
    isolation=st.sampled_from(["cgroup", "mps", "hami-core", "mig", "none"]),
    enforces_memory=st.booleans(),
    enforces_compute=st.booleans(),
    compute_capability=text,
    parent=text,
    links=st.dictionaries(text, st.integers(0, 1200), max_size=3),
)
inventories = st.builds(
    Inventory,
    v=st.just(1),
    driver_version=text,
    cards=st.lists(cards, max_size=4, unique_by=lambda card: card.uuid).map(tuple),
)


@given(inventories)
def test_round_trip(made: Inventory) -> None:
    """Whatever the node holds; the same cards give the same bytes."""
    assert parse(render(made)) == made
    assert render(parse(render(made))) == render(made)


def test_the_version_is_always_written() -> None:
    """Readers refuse what says none."""
    assert json.loads(render(Inventory()))["v"] == 1


def wire(version: object = 1, **card: Any) -> str:
    """A good annotation, but for the changes."""
    good = {"uuid": "GPU-1", "index": 0, "model": "T4", "memoryMib": 15360, **card}
    return json.dumps({"v": version, "driverVersion": "615.1", "cards": [good], "newer": {}})


def test_newer_fields_are_passed_over() -> None:
    """So that older readers live on; what is absent has its default."""
    (card,) = parse(wire(newerYet=[1])).cards
    assert (card.core_milli, card.slots, card.numa, card.healthy) == (1000, 32, -1, True)


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "null",
        "\ud800",
        "{}",
        wire(version=2),
        wire(version=None),
        wire(index=None),
        wire(memoryMib=-1),
        wire(parentMemoryMib=-1),
        wire(coreMilli=-1),
        wire(slots=-1),
        wire(isolation="magic"),
        '{"v":1,"x":' + "[" * 100_000,
        '{"v":1,"cards":[%s,%s]}' % (('{"uuid":"G","index":0,"model":"","memoryMib":1}',) * 2),
    ],
)
def test_nothing_else_is_read(damaged: str) -> None:
    """Damaged annotations are an error, never other cards."""
    with pytest.raises(InventoryError):
        parse(damaged)
