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
from gpu_fraction.domain.backend import StackSetting
from gpu_fraction.domain.backends import BACKENDS, Backend, Stacks, configured, demand
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.request import Refused, Request, Slice
from gpu_fraction.domain.user_annotations import parse
from gpu_fraction.settings.option import SettingsError
from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import decode
from tests.builders.pods import Raw, container, pod, typed
from tests.builders.strategies import asking_pods
from tests.support.reviews import body, review, rewriting

SIZES: Final = (
    {},
    {"gpu_memory_mib": "80Gi"},
    {"gpu_memory_mib": "15360"},
    {"gpu_memory_by_model": "T4=15360,H100=81559"},
    {"gpu_memory_by_model": "A100=40536", "gpu_memory_mib": "24Gi"},
)
ANY_CARDS: Final = (15360, 81559)
"""MiB of a card, where the settings say nothing."""

HINT: Final = re.compile(r"allowed: |use a |remove |at most|largest eligible GPU has \d+ MiB")
"""What would work instead."""

PAGES: Final[dict[str, Any]] = {
    name: YAML(typ="safe").load(Path(__file__).parents[2] / "docs" / "backends" / f"{name}.yaml")
    for name in BACKENDS
}
FEWER: Final = hypothesis.settings(max_examples=hypothesis.settings().max_examples // 2)
"""Examples of one test of one backend: there are many backends."""


def every_backend(test: Callable[..., None]) -> Callable[..., None]:
    """The test of each backend, by its name."""
    found: Callable[..., None] = pytest.mark.parametrize("name", BACKENDS)(FEWER(test))
    return found


def own_values(one: StackSetting[Any]) -> st.SearchStrategy[str]:
    """Values of a setting that one stack has."""
    if isinstance(one.allowed, range):
        return st.integers(one.allowed.start, one.allowed.stop - 1).map(str)
    return st.sampled_from(one.allowed or (str(one.default or "team-a"),))


def settings_of(name: str) -> st.SearchStrategy[RewriteSettings]:
    """Of a cluster with this backend; sizes of cards are known, differ, or are unknown."""

    def make(known: dict[str, str], own: dict[str, str]) -> RewriteSettings:
        try:
            return rewriting(backend=name, **known, **own)
        except SettingsError:
            assume(False)
            raise

    own = {one.name: own_values(one) for one in BACKENDS[name].settings}
    return st.builds(make, st.sampled_from(SIZES), st.fixed_dictionaries({}, optional=own))


@st.composite
def pods_for(draw: st.DrawFn, name: str) -> Raw:
    """Pods that ask for GPUs, often only for what the stack knows at all."""
    raw: Raw = draw(asking_pods())
    asked = raw["metadata"]["annotations"]
    stack = BACKENDS[name]
    if draw(st.integers(0, 3)):
        asked.pop(keys.ISOLATION, None)
        if not stack.chooses_models:
            asked.pop(keys.MODEL, None)
        if not stack.chooses_uuids:
            asked.pop(keys.UUID, None)
    if draw(st.booleans()):
        asked.pop(keys.CORES, None)
    if draw(st.booleans()):
        for key in (keys.MEMORY, keys.CORES, keys.NUM_DEVICES):
            asked.pop(key, None)
        for key in (keys.FRACTION, *(k for k in asked if k.startswith(keys.CONTAINER_PREFIX))):
            asked[key] = draw(st.sampled_from("12"))
    return raw


@dataclass(frozen=True)
class Rendered:
    """A pod that a backend has admitted."""

    backend: Backend
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
    return Rendered(backend, verdict, verdict.request, after, typed(after))


def cards_of(settings: RewriteSettings, asked: Request) -> Iterator[int]:
    """MiB of the cards that the pod can land on."""
    most = max(part.memory_mib or 0 for part in asked.slices)
    known = settings.costs.config.card_sizes.eligible_mib(asked)
    for size in known or (max(most, size) for size in ANY_CARDS):
        if size >= most:
            yield size


def read_back(made: Rendered, stacks: Stacks) -> dict[str, Slice]:
    """What the stack hands out, by container; whole cards may be another stack's."""
    read = made.backend.read(made.pod)
    if read is None:
        claiming = (stack for stack in stacks.values() if stack.claims(made.pod))
        read = next((found for stack in claiming if (found := stack.read(made.pod))), None)
    return {part.container: part for part in read.slices} if read else {}


def on_card(part: Slice, size_mib: int) -> sizes.Amounts:
    """The amounts on a card of this size."""
    return sizes.resolve(part, frozenset({size_mib}))


def case(name: str, data: st.DataObject) -> tuple[Raw, RewriteSettings]:
    """A pod and a cluster for it."""
    return data.draw(pods_for(name)), data.draw(settings_of(name))


@every_backend
@given(st.data())
def test_never_less_is_charged_or_given_than_was_asked(name: str, data: st.DataObject) -> None:
    """On every card that the pod can land on: cards, compute and memory."""
    raw, settings = case(name, data)
    made = rendered(settings, raw)
    stacks = configured(settings.costs.config)
    cost = demand(made.pod, stacks)
    given_back = read_back(made, stacks)
    for size in cards_of(settings, made.asked):
        charged = cost.charged(size, size)
        wanted = [(part, on_card(part, size)) for part in made.asked.slices]
        assert charged.cards >= sum(part.cards for part, _ in wanted)
        assert charged.core_milli >= sum((a.core_milli or 0) * p.cards for p, a in wanted)
        assert charged.memory_mib >= sum((a.memory_mib or 0) * p.cards for p, a in wanted)
        for part, amounts in wanted:
            if (got := given_back.get(part.container)) is None:
                assert name == keys.NATIVE  # which is read by its annotations
                continue
            assert got.cards >= part.cards
            assert got.core_milli is None or got.core_milli >= (part.core_milli or 0)
            assert (on_card(got, size).memory_mib or 0) >= (amounts.memory_mib or 0)


@every_backend
@given(st.data())
def test_what_is_rounded_is_told(name: str, data: st.DataObject) -> None:
    """An amount that is known and is not the one that was asked comes with a warning."""
    raw, settings = case(name, data)
    made = rendered(settings, raw)
    eligible = settings.costs.config.card_sizes.eligible_mib(made.asked)
    given_back = read_back(made, configured(settings.costs.config))
    for part in made.asked.slices:
        got = given_back.get(part.container, part)
        asked, handed = (sizes.resolve(one, eligible) for one in (part, got))
        pairs = (
            (asked.memory_mib, handed.memory_mib),
            (part.memory_milli, got.memory_milli),
            (part.core_milli, got.core_milli),
        )
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            event("rounded")
            start = f"container {part.container}:"
            assert any(w.startswith(start) and "rounded" in w for w in made.verdict.warnings)


@every_backend
@given(st.data())
def test_twice_is_once(name: str, data: st.DataObject) -> None:
    """The rewritten pod is admitted as it is: a second call changes nothing."""
    raw, settings = case(name, data)
    made = rendered(settings, raw)
    again = admit(made.pod, made.backend, settings.rules)
    assert again.operations == []
    assert again.request == made.asked


@every_backend
@given(st.data())
def test_a_refusal_says_what_would_work(name: str, data: st.DataObject) -> None:
    """Every problem has the annotation, and words about the way out."""
    raw, settings = case(name, data)
    asked = parse(typed(raw), settings.rules.bounds)
    assert asked
    for problem in settings.backend_for(None).render(asked, typed(raw)).problems:
        event("refused")
        # Only these two give every share; no card holds more than the largest.
        assert name not in ("native", "hami") or keys.MEMORY in problem.path
        assert re.fullmatch(r"metadata\.annotations\[(.+)\]", problem.path)
        assert HINT.search(problem.message), problem


@every_backend
@given(st.data())
def test_a_pod_written_by_hand_is_charged(name: str, data: st.DataObject) -> None:
    """Whatever amounts of the stack's resources it names, and also by some of them alone."""
    example = data.draw(st.sampled_from(PAGES[name]["by_hand"]))
    amount = st.integers(1, 1 << 16).map(str) | st.integers(1, 100).map("{}k".format)
    named = sorted(example["resources"])
    if named:
        named = data.draw(st.lists(st.sampled_from(named), min_size=1, unique=True))
    resources = {resource: data.draw(amount) for resource in named}
    made = container(resources=resources, env=example.get("env", []))
    raw = pod(example.get("annotations"), made, **example.get("given", {}))
    raw["metadata"]["labels"] = example.get("labels", {})
    settings = data.draw(settings_of(name))
    cost = demand(typed(raw), configured(settings.costs.config))
    assert cost.cards
    if len(named) == len(example["resources"]):
        assert cost.core_milli or cost.open_core_mib
        assert cost.memory_mib or cost.open_memory_milli


@every_backend
@given(st.data())
def test_a_rendered_pod_keeps_its_backend(name: str, data: st.DataObject) -> None:
    """Under another one it is never made again, and as a stored pod it can still change."""
    raw, settings = case(name, data)
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
    changed["metadata"]["labels"] = {"team": "b"}
    assert other.validate(decode(body(review(changed, made.raw, operation="UPDATE")))).allowed
