"""Values of KAI-Scheduler's annotations: what its webhook takes, what is taken here, and as what.

``tests/data/peers/kai-accepts.json`` names the commit of KAI that was asked, and the date.
"""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain.admission import admit
from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import Raw, container, pod, typed
from tests.support.reviews import rewriting

TESTS = Path(__file__).parents[2]
CASES: list[Any] = json.loads(
    (TESTS / "data" / "peers" / "kai-accepts.json").read_text(encoding="utf-8")
)["cases"]
MIGRATING = (TESTS.parent / "docs" / "migrating.md").read_text(encoding="utf-8")


def written(case: Any) -> str:
    """As the document writes it."""
    return ", ".join(f"{key}: {value}" for key, value in case["annotations"].items())


def made(case: Any) -> Raw:
    """The pod that KAI was asked about."""
    return pod(case["annotations"], container("main", case.get("limits")))


@pytest.mark.parametrize("case", [pytest.param(case, id=written(case)) for case in CASES])
def test_what_is_taken_here(case: Any) -> None:
    """As recorded; so a value that is treated in another way from now on is seen."""
    rules = rewriting()
    try:
        admit(typed(made(case)), rules.backend_for("native"), rules.rules)
    except Refused:
        assert case["here"] == "refused"
    else:
        assert case["here"] == "taken"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=written(case))
        for case in CASES
        if case["kai"] == case["here"] == "taken"
    ],
)
def test_what_both_take_means_the_same(case: Any) -> None:
    """To the nearest thousandth of a card, and exactly in MiB and cards."""
    given = case["annotations"]
    asked = parse(typed(made(case)), Bounds())
    assert asked is not None
    (part,) = asked.slices
    assert part.cards == int(given.get("gpu-fraction-num-devices", "1"))
    if "gpu-memory" in given:
        assert part.memory_mib == int(given["gpu-memory"])
    else:
        assert part.core_milli == part.memory_milli
        assert abs(1000 * Decimal(given["gpu-fraction"]) - (part.core_milli or 0)) <= Decimal(
            "0.5"
        )


def test_the_differences_are_those_of_the_document() -> None:
    """Each is on purpose, with its reason; none is left out and none is made up."""
    _, table = MIGRATING.split("| as written | KAI | here | reason |\n|---|---|---|---|\n")
    rows = [row.strip("| ").split(" | ") for row in table.partition("\n\n")[0].splitlines()]
    told = sorted(
        (text, kai, here)
        for values, kai, here, reason in rows
        if reason
        for text in re.findall(r"`([^`]+)`", values)
    )
    assert told == sorted(
        (written(case), case["kai"], case["here"]) for case in CASES if case["kai"] != case["here"]
    )
