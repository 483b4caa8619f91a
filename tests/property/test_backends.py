"""What holds for every backend, whatever a pod asks and whatever its settings are."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hypothesis
import jsonpatch
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gpu_fraction.domain import keys, sizes
from gpu_fraction.domain.admission import Verdict, admit
from gpu_fraction.domain.backends import (
    BACKENDS,
    Backend,
    Stacks,
    claiming,
    configured,
    demand,
)
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.request import Refused, Request, Slice
from gpu_fraction.domain.stack import StackSetting
from gpu_fraction.domain.user_annotations import parse
from gpu_fraction.settings.option import SettingsError
from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import decode
from tests.builders.pods import Raw, container, pod, typed
from tests.builders.strategies import asking_pods, shares
from tests.support.reviews import body, review, rewriting

SIZES: Final[tuple[dict[str, str], ...]] = (
    {},
    {"gpu_memory_mib": "80Gi"},
    {"gpu_memory_mib": "15360"},
    {"gpu_memory_by_model": "T4=15360,H100=81559"},
    {"gpu_memory_by_model": "A100=40536", "gpu_memory_mib": "24Gi"},
)
ANY_CARDS: Final = (15360, 81559)
"""MiB of a card, where the settings say nothing."""

HINT: Final = re.compile(r"allowed: |\b(use|set|remove|ask for) |largest eligible GPU has \d+ MiB")
"""What would work instead."""

PAGES: Final[dict[str, Any]] = {
    name: YAML(typ="safe").load(Path(__file__).parents[2] / "docs" / "backends" / f"{name}.yaml")
    for name in BACKENDS
}
FEWER: Final = hypothesis.settings(
    max_examples=hypothesis.settings().max_examples // 3,
    suppress_health_check=[hypothesis.HealthCheck.filter_too_much],
)
"""Examples of one test of one backend: there are many backends, and some refuse most pods."""


def every_backend(test: Callable[..., None]) -> Callable[..., None]:
    """The test of each backend, by its name."""
    found: Callable[..., None] = pytest.mark.parametrize("name", BACKENDS)(FEWER(test))
    return found


def shown_settings(name: str) -> list[dict[str, str]]:
    """The settings of the stack itself, in the examples of its page that are not refused."""
    own = {one.name for one in BACKENDS[name].settings}
    given = [one.get("settings", {}) for one in PAGES[name]["annotated"] if "refused" not in one]
    return [{key: str(text) for key, text in of.items() if key in own} for of in given]


def own_values(name: str, one: StackSetting[Any]) -> st.SearchStrategy[str]:
    """Values of a setting; texts are those of the page."""
    if isinstance(one.allowed, range):
        return st.integers(one.allowed.start, one.allowed.stop - 1).map(str)
    shown = {of[one.name]: None for of in shown_settings(name) if one.name in of}
    return st.sampled_from(one.allowed or tuple(shown) or (str(one.default or "x"),))


def settings_of(name: str) -> st.SearchStrategy[RewriteSettings]:
    """Of a cluster with this backend; sizes of cards are known, differ, or are unknown."""

    def make(known: dict[str, str], own: dict[str, str]) -> RewriteSettings:
        try:
            return rewriting(backend=name, **known, **own)
        except SettingsError:
            assume(False)
            raise

    own = {one.name: own_values(name, one) for one in BACKENDS[name].settings}
    each = st.sampled_from(shown_settings(name)) | st.fixed_dictionaries({}, optional=own)
    return st.builds(make, st.sampled_from(SIZES), each)


@st.composite
def pods_for(draw: st.DrawFn, name: str) -> Raw:
    """Pods that ask for GPUs, often in the few words that every stack knows."""
    raw: Raw = draw(asking_pods())
    asked = raw["metadata"]["annotations"]
    own = [key for key in asked if key.startswith(keys.CONTAINER_PREFIX)]
    stack = BACKENDS[name]
    if draw(st.integers(0, 3)):
        asked.pop(keys.ISOLATION, None)
        for key, chooses in ((keys.MODEL, stack.chooses_models), (keys.UUID, stack.chooses_uuids)):
            if not chooses or draw(st.booleans()):
                asked.pop(key, None)
    if draw(st.booleans()):
        for key in (keys.CORES, *own):
            asked.pop(key, None)
    match draw(st.sampled_from(["as it is", "whole", "share", "memory"])):
        case "as it is":
            return raw
        case "memory":
            asked.pop(keys.FRACTION, None)
            asked[keys.MEMORY] = draw(st.integers(1, 15000).map(str))
        case kind:
            asked.pop(keys.MEMORY, None)
            asked.pop(keys.NUM_DEVICES, None)
            asked[keys.FRACTION] = draw(st.sampled_from("12") if kind == "whole" else shares)
    return raw


@dataclass(frozen=True)
class Rendered:
    """A pod that a backend has admitted."""

    backend: Backend
    edit: PodEdit
    verdict: Verdict
    asked: Request
    raw: Raw
    pod: Pod


def rendered(settings: RewriteSettings, raw: Raw) -> Rendered:
    """The pod as it is stored; refused ones are of no interest."""
    backend = settings.backend_for(None)
    try:
        verdict = admit(typed(raw), backend, settings.rules)
    except Refused:
        event("refused")
        assume(False)
        raise
    event("admitted")
    assert verdict.request
    after = jsonpatch.JsonPatch(verdict.operations).apply(copy.deepcopy(raw))
    edit = backend.render(verdict.request, typed(raw))
    return Rendered(backend, edit, verdict, verdict.request, after, typed(after))


def cards_of(settings: RewriteSettings, asked: Request) -> Iterator[int]:
    """MiB of the cards that the pod can land on."""
    most = max(part.memory_mib or 0 for part in asked.slices)
    known = settings.stacks.costs.config.card_sizes.eligible_mib(asked)
    for size in known or (max(most, size) for size in ANY_CARDS):
        if size >= most:
            yield size


def read_back(made: Rendered, stacks: Stacks) -> dict[str, Slice]:
    """What the stack hands out, by container; whole cards may be another stack's."""
    read = made.backend.read(made.pod)
    if read is None:
        others = claiming(made.pod, stacks)
        read = next((found for stack, pod in others if (found := stack.read(pod))), None)
    return {part.container: part for part in read.slices} if read else {}


def promised_mib(made: Rendered, part: Slice) -> int | None:
    """Memory on each card, as the author wrote it or as the container is told; None if open."""
    told = made.edit.env.get(part.container, {}).get("GPU_MEMORY_LIMIT_MIB")
    return part.memory_mib or (int(str(told)) if told else None)


def on_card(part: Slice, size_mib: int) -> sizes.Amounts:
    """The amounts on a card of this size."""
    return sizes.resolve(part, frozenset({size_mib}))


def a_case(name: str, data: st.DataObject) -> tuple[Raw, RewriteSettings]:
    """A pod and a cluster for it."""
    return data.draw(pods_for(name)), data.draw(settings_of(name))


@every_backend
@given(st.data())
def test_never_less_is_charged_or_given_than_was_asked(name: str, data: st.DataObject) -> None:
    """On every card that the pod can land on: cards, compute and memory.

    A share of an unknown card's memory can be an amount that the stack knows by itself, such as
    that of a MIG instance. Then nothing is promised in MiB.
    """
    raw, settings = a_case(name, data)
    made = rendered(settings, raw)
    stacks = configured(settings.stacks.costs.config)
    cost = demand(made.pod, stacks)
    given_back = read_back(made, stacks)
    parts = made.asked.slices
    for size in cards_of(settings, made.asked):
        charged = cost.charged(size, size)
        assert charged.cards >= sum(part.cards for part in parts)
        wanted_milli = 0
        for part in parts:
            if part.core_milli is not None:
                wanted_milli += part.core_milli * part.cards
            elif given_back.get(part.container, part).core_milli is None:
                wanted_milli += (part.memory_mib or 0) * 1000 // size * part.cards
        assert charged.core_milli >= wanted_milli
        assert charged.memory_mib >= sum((promised_mib(made, p) or 0) * p.cards for p in parts)
        for part in parts:
            if (got := given_back.get(part.container)) is None:
                assert name == keys.NATIVE  # which is read by its annotations
                continue
            assert got.cards >= part.cards
            assert got.core_milli is None or got.core_milli >= (part.core_milli or 0)
            if got.memory_milli and part.memory_milli:
                assert got.memory_milli >= part.memory_milli
            else:
                assert (on_card(got, size).memory_mib or 0) >= (promised_mib(made, part) or 0)


@every_backend
@given(st.data())
def test_what_is_rounded_is_told(name: str, data: st.DataObject) -> None:
    """An amount that is known and is not the one that was asked comes with a warning."""
    raw, settings = a_case(name, data)
    made = rendered(settings, raw)
    eligible = settings.stacks.costs.config.card_sizes.eligible_mib(made.asked)
    given_back = read_back(made, configured(settings.stacks.costs.config))
    for part in made.asked.slices:
        got = given_back.get(part.container, part)
        asked, handed = (sizes.resolve(one, eligible) for one in (part, got))
        pairs = (
            (asked.memory_mib, handed.memory_mib),
            (part.memory_milli, got.memory_milli),
            (part.core_milli, got.core_milli),
        )
        # Units that are no multiple of ours read back as the next MiB or thousandth.
        if any(a is not None and b is not None and abs(a - b) > 1 for a, b in pairs):
            event("rounded")
            start, known = f"container {part.container}:", sizes.describe(part, asked, eligible)
            told = [text for text in made.verdict.warnings if text.startswith(start)]
            assert set(told) - {known}


@every_backend
@given(st.data())
def test_twice_is_once(name: str, data: st.DataObject) -> None:
    """The rewritten pod is admitted as it is: a second call changes nothing."""
    raw, settings = a_case(name, data)
    made = rendered(settings, raw)
    again = admit(made.pod, made.backend, settings.rules)
    assert again.operations == []
    assert again.request == made.asked


@every_backend
@given(st.data())
def test_a_refusal_says_what_would_work(name: str, data: st.DataObject) -> None:
    """Every problem has the annotation, and words about the way out."""
    raw, settings = a_case(name, data)
    asked = parse(typed(raw), settings.rules.bounds)
    assert asked
    for problem in settings.backend_for(None).render(asked, typed(raw)).problems:
        event("refused")
        # The native one gives every share; no card holds more than the largest.
        assert name != keys.NATIVE or keys.MEMORY in problem.path
        assert re.fullmatch(r"metadata\.annotations\[(.+)\]", problem.path)
        assert HINT.search(problem.message), problem


@every_backend
@given(st.data())
def test_a_pod_written_by_hand_is_charged(name: str, data: st.DataObject) -> None:
    """Whatever amounts of the stack's resources it names, and also by some of them alone."""
    costing = [example for example in PAGES[name]["by_hand"] if example["costs"]]
    example = data.draw(st.sampled_from(costing))
    amount = st.integers(1, 1 << 16).map(str) | st.integers(1, 100).map("{}k".format)
    named = sorted(example["resources"])
    if named:
        named = data.draw(st.lists(st.sampled_from(named), min_size=1, unique=True))
    resources = {resource: data.draw(amount) for resource in named}
    made = container(resources=resources, env=example.get("env", []))
    raw = pod(example.get("annotations"), made, **example.get("given", {}))
    raw["metadata"]["labels"] = example.get("labels", {})
    settings = data.draw(settings_of(name))
    cost = demand(typed(raw), configured(settings.stacks.costs.config))
    assert cost.cards
    if len(named) == len(example["resources"]):
        assert cost.core_milli or cost.open_core_mib
        assert cost.memory_mib or cost.open_memory_milli


@every_backend
@given(st.data())
def test_a_rendered_pod_keeps_its_backend(name: str, data: st.DataObject) -> None:
    """Under another one it is never made again, and as a stored pod it can still change."""
    raw, settings = a_case(name, data)
    made = rendered(settings, raw)
    other = Decider(
        rewriting(backend=data.draw(st.sampled_from([b for b in BACKENDS if b != name])))
    )
    created = decode(body(review(made.raw)))
    for answer in (other.mutate(created), other.validate(created)):
        assert not answer.allowed
        assert not answer.patch
        assert f"annotations[{keys.REQUEST}]" in answer.message
    changed = copy.deepcopy(made.raw)
    changed["metadata"]["labels"] = {**changed["metadata"].get("labels", {}), "team": "b"}
    assert other.validate(decode(body(review(changed, made.raw, operation="UPDATE")))).allowed
