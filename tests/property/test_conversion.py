"""``gpu-fraction convert`` loses nothing that two forms can both say, for every backend."""

from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gpu_fraction.cli.convert import ANNOTATION, Conversion, convert
from gpu_fraction.cli.mutate import typed
from gpu_fraction.domain import keys, written_annotations
from gpu_fraction.domain.backends import BACKENDS, Stacks, configured
from gpu_fraction.domain.differences import differences
from gpu_fraction.domain.request import Bounds, Refused, Request, annotation_path
from gpu_fraction.domain.user_annotations import asks, parse
from tests.builders.pods import Raw, container, pod
from tests.builders.strategies import asking_annotations, asking_pods
from tests.support.reviews import rewriting

PAGES: Final = Path(__file__).parents[2] / "docs" / "backends"
SIZE: Final = {"gpu_memory_mib": "80Gi"}


@cache
def first_example(backend: str) -> Any:
    """The first of the backend's page that is not refused; its settings are what it needs."""
    examples = YAML(typ="safe").load(PAGES / f"{backend}.yaml")["annotated"]
    return next(one for one in examples if "refused" not in one)


@cache
def stacks_of(backend: str) -> Stacks:
    """Every stack on a cluster that is configured for one."""
    settings = {"backend": backend, **SIZE, **first_example(backend).get("settings", {})}
    return configured(rewriting(**settings).backends[backend].config)


def converted(raw: Raw, to: str, backend: str) -> Conversion | None:
    """The pod in another form, on a cluster with a backend; None where there is none."""
    try:
        return convert(raw, to, stacks_of(backend))
    except Refused:
        return None


def request_of(raw: Raw) -> Request:
    """What the annotations ask."""
    asked = parse(typed(raw), Bounds())
    assert asked is not None
    return asked


def normal(node: Any) -> Any:
    """The pod apart from GPU annotations, defaults and the variables that tell the share."""
    if isinstance(node, dict):
        made = {key: normal(value) for key, value in node.items() if not keys.is_ours(key)}
        if made.get("schedulerName") == "default-scheduler":
            del made["schedulerName"]
        return {key: value for key, value in made.items() if value not in (None, "", {}, [])}
    if isinstance(node, list):
        told = (keys.SHARE_VARIABLE, keys.MEMORY_VARIABLE)
        return [
            normal(one) for one in node if not (isinstance(one, dict) and one.get("name") in told)
        ]
    return node


@pytest.mark.parametrize("backend", BACKENDS)
def test_some_pod_can_be_converted(backend: str) -> None:
    """There and back, on the cluster of the properties below."""
    there = converted(pod(first_example(backend)["annotations"]), backend, backend)
    assert there is not None
    assert converted(there.pod, ANNOTATION, backend) is not None


@pytest.mark.parametrize("backend", BACKENDS)
@given(raw=asking_pods())
def test_there_and_back(backend: str, raw: Raw) -> None:
    """What differs afterwards was named as lost, and the rest of the pod is as before."""
    asked = request_of(raw)
    if (there := converted(raw, backend, backend)) is None:
        return
    if (back := converted(there.pod, ANNOTATION, backend)) is None:
        return  # rounded to what annotations can say of one container only
    lost = {problem.path for problem in (*there.lost, *back.lost)}
    got = request_of(back.pod)
    eligible = stacks_of(backend)[backend].config.card_sizes.eligible_mib(asked)
    for problem in differences(asked, got, eligible):
        assert problem.path in lost, problem
    assert normal(back.pod) == normal(raw)


@pytest.mark.parametrize("backend", BACKENDS)
@given(raw=asking_pods())
def test_what_a_backend_can_choose_is_not_lost(backend: str, raw: Raw) -> None:
    """Models, cards and placement, where the stack honours them and refuses nothing."""
    stack = stacks_of(backend)[backend]
    if stack.render(request_of(raw), typed(raw)).problems:
        return
    done = converted(raw, backend, backend)
    assert done is not None
    lost = {problem.path for problem in done.lost}
    for key, honoured in (
        (keys.MODEL, stack.chooses_models),
        (keys.UUID, stack.chooses_uuids),
        (keys.PLACEMENT, stack.chooses_placement),
    ):
        assert not honoured or annotation_path(key) not in lost


@pytest.mark.parametrize("backend", [name for name in BACKENDS if not BACKENDS[name].ours])
@given(raw=asking_pods())
def test_a_stacks_own_form_has_nothing_of_ours(backend: str, raw: Raw) -> None:
    """Except where the stack reads our annotations itself."""
    if (done := converted(raw, backend, backend)) is None:
        return
    made = typed(done.pod)
    assert BACKENDS[backend].reads_our_annotations or not asks(made.annotations())
    assert keys.REQUEST not in made.annotations()


@given(annotations=asking_annotations(("side",)), target=st.sampled_from(["main", "last"]))
def test_annotations_written_from_a_request_are_that_request(
    annotations: dict[str, str], target: str
) -> None:
    """Whatever container has which share."""
    if keys.CONTAINER_NAME in annotations:
        annotations[keys.CONTAINER_NAME] = target
    containers = (container("main"), container("side"), container("last"))
    asked = request_of(pod(annotations, *containers))
    plain = typed(pod(None, *containers))
    written, lost = written_annotations.write(asked, plain)
    assert lost == []
    assert parse(typed(pod(written, *containers)), Bounds()) == asked
