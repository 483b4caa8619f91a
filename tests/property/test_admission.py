"""The whole way from pod to patch, for pods that nobody thought of."""

import copy
import dataclasses

import jsonpatch
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpu_fraction.domain import keys, request_annotation
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.backends import BACKENDS, Backend, BackendConfig, demand
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.guard import Policy
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import Raw, typed
from tests.builders.strategies import RESOURCES, asking_pods, hostile_pods, json_values

RULES = Rules(bounds=Bounds(max_memory_mib=1 << 20))
OPEN = Rules(policy=Policy("allow", "allow", "allow", "allow"), left_to=frozenset())
SIZES = [CardSizes(), CardSizes(81920), CardSizes(None, {"T4": 15360, "H100": 81559})]

backends = st.builds(
    lambda name, sizes, runtime, env: BACKENDS[name](BackendConfig(sizes, runtime, env)),
    st.sampled_from(sorted(BACKENDS)),
    st.sampled_from(SIZES),
    st.sampled_from([None, "nvidia"]),
    st.sampled_from([{}, {"EXTRA": "1"}]),
)


def applied(raw: Raw, operations: list[dict[str, object]]) -> Raw:
    """By a library that is not ours."""
    after: Raw = jsonpatch.JsonPatch(operations).apply(copy.deepcopy(raw))
    return after


@given(asking_pods(), backends, st.sampled_from(["containers", "initContainers"]), st.data())
def test_a_container_put_in_by_another_webhook_changes_nothing(
    raw: Raw, backend: Backend, kind: str, data: st.DataObject
) -> None:
    """Wherever it is put after the first call, the share stays where that call gave it."""
    try:
        first = admit(typed(raw), backend, RULES)
    except Refused:
        return
    after = applied(raw, first.operations)
    present = after["spec"].setdefault(kind, [])
    present.insert(data.draw(st.integers(0, len(present))), {"name": "mesh", "image": "x"})
    again = admit(typed(after), backend, RULES)
    assert again.operations == []
    assert again.request == first.request


@given(asking_pods(), backends)
def test_nothing_that_the_user_wrote_is_lost(raw: Raw, backend: Backend) -> None:
    """The patch adds; it replaces the default scheduler, and KAI's annotations by its spelling."""
    try:
        operations = admit(typed(raw), backend, RULES).operations
    except Refused:
        return
    after = applied(raw, operations)
    if raw["spec"].get("schedulerName", "") in {"", "default-scheduler"}:
        after["spec"]["schedulerName"] = raw["spec"].get("schedulerName")
    if not raw["spec"].get("runtimeClassName"):
        after["spec"]["runtimeClassName"] = raw["spec"].get("runtimeClassName")
    if backend.name == "kai":
        again = parse(typed(after), RULES.bounds)
        assert again == parse(typed(raw), RULES.bounds)
        after["metadata"]["annotations"] = raw["metadata"].get("annotations")
    assert contains(after, raw)


def contains(after: object, before: object) -> bool:
    """Everything of ``before`` is in ``after``, lists from their start."""
    if before in (None, {}, []):
        return True
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            contains(after.get(key), value) for key, value in before.items()
        )
    if isinstance(before, list):
        return isinstance(after, list) and all(
            contains(a, b) for a, b in zip(after, before, strict=False)
        )
    return after == before


@given(asking_pods())
def test_the_native_resources_cost_what_was_asked(raw: Raw) -> None:
    """The demand of the patched pod is the sum of the request's own numbers."""
    backend = BACKENDS["native"](BackendConfig(CardSizes(1 << 20)))
    asked = parse(typed(raw), RULES.bounds)
    assert asked is not None
    after = typed(applied(raw, admit(typed(raw), backend, RULES).operations))
    expected = ZERO
    for part in asked.slices:
        if part.memory_mib is None:
            memory_mib = max(1, (1 << 20) * (part.memory_milli or 0) // 1000)
        else:
            memory_mib = part.memory_mib
        core_milli = part.core_milli or max(1, memory_mib * 1000 >> 20)
        expected += Demand(part.cards, core_milli * part.cards, memory_mib * part.cards)
    assert demand(after) == expected


@given(asking_pods())
def test_what_is_open_is_what_was_left_open(raw: Raw) -> None:
    """Where no size is known, shares of memory and compute that follows wait for a card."""
    backend = BACKENDS["native"](BackendConfig())
    asked = parse(typed(raw), RULES.bounds)
    assert asked is not None
    found = demand(typed(applied(raw, admit(typed(raw), backend, RULES).operations)))
    assert found.open_memory_milli == sum((s.memory_milli or 0) * s.cards for s in asked.slices)
    assert found.open_core_mib == sum(
        (s.memory_mib or 0) * s.cards for s in asked.slices if s.core_milli is None
    )
    assert found.cards == sum(s.cards for s in asked.slices)


@given(hostile_pods(), backends, st.sampled_from([RULES, OPEN]), st.booleans())
def test_no_pod_crashes_us(raw: Raw, backend: Backend, rules: Rules, trusted: bool) -> None:
    """It is admitted or refused; what is admitted can be patched, and stays as it is then."""
    pod = typed(raw)
    assert demand(pod).cards >= 0
    try:
        verdict = admit(pod, backend, rules, trusted=trusted)
    except Refused as e:
        assert e.problems
        assert all(str(problem) for problem in e.problems)
        return
    after = typed(applied(raw, verdict.operations))
    assert admit(after, backend, rules, trusted=trusted).operations == []


@given(json_values, backends)
def test_no_json_crashes_us(value: object, backend: Backend) -> None:
    """It is no pod, or it is judged as one."""
    try:
        pod = msgspec.convert(value, Pod)
    except msgspec.ValidationError:
        return
    admit(pod, backend, RULES)


def costs_no_less(after: Demand, before: Demand) -> bool:
    """In every amount; the least memory of a card is none, but bounds how compute follows."""
    fields = {f.name for f in dataclasses.fields(Demand)} - {"open_least_mib"}
    return all(getattr(after, name) >= getattr(before, name) for name in fields)


@given(
    hostile_pods(), st.sampled_from(RESOURCES), st.integers(0, 5), st.integers(1, 1000), st.data()
)
def test_asking_more_never_costs_less(
    raw: Raw, name: str, amount: int, more: int, data: st.DataObject
) -> None:
    """In any container, of any resource: every amount of the demand stays or grows.

    Zero is left out where it reads as not limited: HAMi's amounts, and ours beside a slot, which
    alone is charged as whole cards. So is HAMi's memory beside its percentage, which it takes
    the place of.
    """
    assume(raw["spec"]["containers"])
    index = data.draw(st.integers(0, len(raw["spec"]["containers"]) - 1))
    small, large = copy.deepcopy(raw), copy.deepcopy(raw)
    for made, value in ((small, amount), (large, amount + more)):
        made["spec"]["containers"][index].setdefault("resources", {}).setdefault("limits", {})[
            name
        ] = str(value)
    if name.startswith("nvidia.com/gpu") and name != "nvidia.com/gpu.shared":
        assume(amount > 0 or name == "nvidia.com/gpu")
    if name in (keys.CORE_MILLI, keys.MEMORY_MIB):
        assume(amount > 0)
    before, after = demand(typed(small)), demand(typed(large))
    if name == "nvidia.com/gpumem":
        assert before.memory_mib <= after.memory_mib
        return
    if name in keys.NATIVE_RESOURCES:
        # Amounts that no card can serve are charged as they are named, and nothing follows them.
        named = ("cards", "core_milli", "memory_mib")
        assert all(getattr(after, amount) >= getattr(before, amount) for amount in named)
        return
    assert costs_no_less(after, before), (before, after)


@given(hostile_pods())
def test_one_more_container_never_costs_less(raw: Raw) -> None:
    """Whatever it asks for."""
    assume(len(raw["spec"]["containers"]) > 1)
    fewer = copy.deepcopy(raw)
    gone = fewer["spec"]["containers"].pop()
    # A container with HAMi's names makes the others HAMi's; that is another pod altogether.
    assume(not any("gpu" in name for name in str(gone.get("resources")).split("nvidia.com/")[1:]))
    assert costs_no_less(demand(typed(raw)), demand(typed(fewer)))


@given(asking_pods())
def test_a_rendered_request_can_be_read_by_everybody(raw: Raw) -> None:
    """The annotation in the patch is the request that was parsed."""
    backend = BACKENDS["native"](BackendConfig())
    verdict = admit(typed(raw), backend, RULES)
    after = applied(raw, verdict.operations)
    written = after["metadata"]["annotations"][keys.REQUEST]
    assert request_annotation.load(written) == request_annotation.Rendered(
        "native", verdict.request or pytest.fail("no request")
    )
