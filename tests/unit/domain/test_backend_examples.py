"""The examples that each backend's page gives, docs/backends/NAME.yaml, are so."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain.backends import BACKENDS, configured
from gpu_fraction.domain.demand import Demand
from gpu_fraction.quota.pods import PodRecord, facts_of
from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import decode, encode
from tests.builders.pods import Raw, container, pod
from tests.support.reviews import body, patch_of, review, rewriting

FOLDER = Path(__file__).parents[3] / "docs" / "backends"
PAGES: dict[str, Any] = {
    file.stem: YAML(typ="safe").load(file) for file in sorted(FOLDER.glob("*.yaml"))
}


def examples(part: str) -> list[Any]:
    """Every example of one part of the pages, with its backend."""
    return [
        pytest.param(backend, example, id=f"{backend}-{index}")
        for backend, page in PAGES.items()
        for index, example in enumerate(page[part])
    ]


def mutated(decider: Decider, raw: Raw) -> Raw:
    """What the API server would make of the webhook's answer."""
    answer = decider.mutate(decode(body(review(raw))))
    response: Raw = json.loads(encode("u-1", answer))["response"]
    if not answer.allowed:
        raise AssertionError(answer.message)
    made: Raw = jsonpatch.JsonPatch(patch_of(response)).apply(copy.deepcopy(raw))
    return made


def cost(raw: Raw, settings: RewriteSettings) -> Demand:
    """What a quota counts."""
    record = msgspec.convert(raw, PodRecord)
    return facts_of(record, configured(settings.stacks.costs.config)).demand


def amounts(example: Any) -> dict[str, str]:
    """The resources, as the API server writes them."""
    return {name: str(amount) for name, amount in example["resources"].items()}


def contains(found: object, expected: object) -> bool:
    """Everything that is expected, and maybe more."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            contains(found.get(key), value) for key, value in expected.items()
        )
    return found == expected


def test_every_backend_has_a_page() -> None:
    """And every page a backend."""
    assert set(PAGES) == set(BACKENDS)


def env_of(example: Any) -> dict[str, Any]:
    """The container's variables, where it has any."""
    return {"env": example["env"]} if "env" in example else {}


@pytest.mark.parametrize(("backend", "example"), examples("annotated"))
def test_an_annotated_pod(backend: str, example: Any) -> None:
    """It is rewritten as the page says, valid then, and charged so; or refused as it says."""
    raw = pod(example["annotations"], container(**env_of(example)), **example.get("given", {}))
    settings = rewriting(backend=backend, **example.get("settings", {}))
    decider = Decider(settings)
    if "refused" in example:
        assert decider.mutate(decode(body(review(raw)))).message == example["refused"]
        return
    after = mutated(decider, raw)
    resources = after["spec"]["containers"][0].get("resources", {})
    assert resources.get("limits", {}) == resources.get("requests", {}) == amounts(example)
    assert contains(after["spec"], example.get("spec", {}))
    assert contains(after["metadata"], example.get("metadata", {}))
    assert decider.validate(decode(body(review(after)))).allowed
    assert mutated(decider, after) == after
    if "costs" in example:
        assert cost(after, settings) == Demand(**example["costs"])


@pytest.mark.parametrize(("backend", "example"), examples("by_hand"))
def test_a_pod_written_by_hand(backend: str, example: Any) -> None:
    """It is left as it is, and charged as the page says."""
    made = container(resources=amounts(example), **env_of(example))
    raw = pod(example.get("annotations"), made, **example.get("given", {}))
    raw["metadata"]["labels"] = example.get("labels", {})
    settings = rewriting(**{"backend": backend, **example.get("settings", {})})
    assert Decider(settings).validate(decode(body(review(raw)))).allowed
    assert cost(raw, settings) == Demand(**example["costs"])
