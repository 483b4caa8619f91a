"""``gpu-fraction convert`` loses nothing that two forms can both say, for every backend."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.cli.convert import ANNOTATION, Conversion, convert
from gpu_fraction.cli.mutate import typed
from gpu_fraction.domain import keys, written_annotations
from gpu_fraction.domain.backends import BACKENDS, BackendConfig, configured
from gpu_fraction.domain.differences import differences
from gpu_fraction.domain.request import Bounds, Refused, Request, annotation_path
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.user_annotations import asks, parse
from tests.builders.pods import Raw, container, pod
from tests.builders.strategies import asking_annotations, asking_pods

CARD_MIB: Final = 80 * 1024
STACKS: Final = configured(BackendConfig(CardSizes(CARD_MIB)))
ELIGIBLE: Final = frozenset({CARD_MIB})


def converted(raw: Raw, to: str) -> Conversion | None:
    """The pod in another form; None where there is none."""
    try:
        return convert(raw, to, STACKS)
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
@given(raw=asking_pods())
def test_there_and_back(backend: str, raw: Raw) -> None:
    """What differs afterwards was named as lost, and the rest of the pod is as before."""
    asked = request_of(raw)
    if (there := converted(raw, backend)) is None:
        return
    if (back := converted(there.pod, ANNOTATION)) is None:
        return  # rounded to what annotations can say of one container only
    lost = {problem.path for problem in (*there.lost, *back.lost)}
    got = request_of(back.pod)
    for problem in differences(asked, got, ELIGIBLE):
        assert problem.path in lost, problem
    assert normal(back.pod) == normal(raw)


@pytest.mark.parametrize("backend", BACKENDS)
@given(raw=asking_pods())
def test_what_a_backend_can_choose_is_not_lost(backend: str, raw: Raw) -> None:
    """Models, cards and placement, where the stack says that it honours them."""
    stack = BACKENDS[backend]
    done = converted(raw, backend)
    lost = {problem.path for problem in done.lost} if done else set()
    for key, honoured in (
        (keys.MODEL, stack.chooses_models),
        (keys.UUID, stack.chooses_uuids),
        (keys.PLACEMENT, stack.chooses_placement),
    ):
        assert not honoured or annotation_path(key) not in lost


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != keys.NATIVE])
@given(raw=asking_pods())
def test_a_stacks_own_form_has_nothing_of_ours(backend: str, raw: Raw) -> None:
    """Except where the stack reads our annotations itself."""
    if (done := converted(raw, backend)) is None:
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
