"""The pods of docs/migrating.md before and after."""

import copy
import re
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain.admission import admit
from gpu_fraction.domain.backends import BACKENDS, demand
from tests.builders.pods import Raw, container, pod, typed
from tests.support.reviews import rewriting

PAGE = (Path(__file__).parents[3] / "docs" / "migrating.md").read_text(encoding="utf-8")
SECTION = re.compile(
    r"^`--backend (?P<backend>[a-z-]+)`.*?"
    r"^\| before \| after \|\n\|---\|---\|\n(?P<rows>(?:\|[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)
ROW = re.compile(r"\| `(.+)` \| `(.+)` \|")


def examples() -> list[Any]:
    """Each row with its backend; of stacks that this version has."""
    yaml = YAML(typ="safe")
    return [
        pytest.param(
            section["backend"],
            *(yaml.load(f"{{{side}}}") for side in row.groups()),
            marks=pytest.mark.skipif(section["backend"] not in BACKENDS, reason="no such backend"),
            id=f"{section['backend']}-{number}",
        )
        for section in SECTION.finditer(PAGE)
        for number, row in enumerate(ROW.finditer(section["rows"]))
    ]


def of_kind(kind: type, side: dict[str, Any]) -> dict[str, str]:
    """The amounts of a container are numbers, and annotations are texts."""
    return {key: str(value) for key, value in side.items() if isinstance(value, kind)}


def test_every_stack_has_a_table() -> None:
    """The stacks from which people come."""
    found = [section["backend"] for section in SECTION.finditer(PAGE)]
    assert found == ["nvidia", "hami", "gpushare", "qgpu", "kai"]
    assert len(examples()) == len(re.findall(r"^\| `[^|]*\|[^|]*\|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize(("backend", "before", "after"), examples())
def test_the_annotations_give_what_the_pod_had(
    backend: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """The same resources and choices of cards on the same stack, at the same cost."""
    assert not of_kind(int, after)
    raw = pod(of_kind(str, after))
    settings = rewriting(backend=backend)
    verdict = admit(typed(raw), settings.backend_for(None), settings.rules)
    made: Raw = jsonpatch.apply_patch(copy.deepcopy(raw), verdict.operations)
    had = pod(
        of_kind(str, before),
        container("main", of_kind(int, before)),
        schedulerName=made["spec"].get("schedulerName"),
    )
    (now,) = made["spec"]["containers"]
    assert now.get("resources", {}).get("limits", {}) == of_kind(int, before)
    assert of_kind(str, before).items() <= made["metadata"]["annotations"].items()
    assert demand(typed(made)) == demand(typed(had))
