"""Ownership of fields holds for any objects and any order of managers."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.kube.resources import Resource
from gpu_fraction.sandbox.apiserver import ownership
from gpu_fraction.sandbox.apiserver.failures import ApiFailure
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.ownership import Owner
from gpu_fraction.sandbox.apiserver.storage import Object

KIND = Kind(Resource("g", "v1", "things", "Thing"), list_keys={"spec.items": "name"})
NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.integers(0, 3)
ITEMS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"x": SCALARS, "y": SCALARS}),
    max_size=3,
    unique_by=lambda item: item["name"],
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "size": SCALARS,
        "map": st.dictionaries(NAMES, SCALARS, max_size=3),
        "list": st.lists(SCALARS, max_size=2),
        "items": ITEMS,
    },
)
MANAGERS = st.sampled_from(["one", "two"])


def thing(spec: Any) -> Object:
    """An object with that spec."""
    return {"metadata": {"name": "t"}, "spec": spec}


def apply(obj: Object | None, spec: Any, manager: str, *, force: bool) -> Object:
    """Apply, and check that the owners survive being written and read."""
    owner = Owner(manager, "Apply", api_version="g/v1", time="now")
    result = ownership.apply(KIND, copy.deepcopy(obj), thing(spec), owner, force=force)
    owners = ownership.owners_of(result)
    again = copy.deepcopy(result)
    ownership.set_owners(again, owners)
    assert again == result
    return result


def bare(obj: Object) -> Any:
    """The spec."""
    return obj.get("spec", {})


@given(SPECS, st.lists(st.tuples(MANAGERS, SPECS), max_size=4))
def test_a_second_apply_changes_nothing(last: Any, before: list[tuple[str, Any]]) -> None:
    """Whatever happened before."""
    obj: Object | None = None
    for manager, spec in before:
        obj = apply(obj, spec, manager, force=True)
    once = apply(obj, last, "one", force=True)
    assert apply(once, last, "one", force=False) == once


@given(st.lists(st.tuples(MANAGERS, SPECS), min_size=1, max_size=5))
def test_what_was_applied_last_is_there(steps: list[tuple[str, Any]]) -> None:
    """Every field of the last forced apply has its value."""
    obj: Object | None = None
    for manager, spec in steps:
        obj = apply(obj, spec, manager, force=True)
        wanted = ownership.leaves(KIND, thing(spec))
        found = ownership.leaves(KIND, obj)
        for path, value in wanted.items():
            if value not in ({}, []):
                assert found[path] == value


@given(SPECS, SPECS)
def test_without_force_nothing_foreign_changes(first: Any, second: Any) -> None:
    """Either it is a conflict, or every field of the other manager keeps its value."""
    obj = apply(None, first, "one", force=True)
    try:
        result = apply(obj, second, "two", force=False)
    except ApiFailure:
        return
    before, after = ownership.leaves(KIND, thing(first)), ownership.leaves(KIND, result)
    for path, value in before.items():
        if value not in ({}, []):
            assert after[path] == value


@given(SPECS, SPECS)
def test_an_owner_that_leaves_takes_its_fields_along(first: Any, second: Any) -> None:
    """What remains is what the other one applied."""
    alone = apply(None, second, "two", force=True)
    obj = apply(None, first, "one", force=True)
    obj = apply(obj, second, "two", force=True)
    owner = Owner("one", "Apply", api_version="g/v1", time="now")
    left = ownership.apply(KIND, obj, {"metadata": {"name": "t"}}, owner, force=False)
    found, expected = ownership.leaves(KIND, left), ownership.leaves(KIND, alone)
    assert {p: v for p, v in found.items() if v not in ({}, [])} == {
        p: v for p, v in expected.items() if v not in ({}, [])
    }
