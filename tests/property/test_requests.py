"""What users write, through parsing and back."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain import keys, request_annotation, sizes
from gpu_fraction.domain.problems import join
from gpu_fraction.domain.request import Bounds, Refused, Request, Slice
from gpu_fraction.domain.request_annotation import RequestAnnotationError
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import Raw, typed
from tests.builders.strategies import asking_pods, hostile_pods, requests, text


@given(requests(), text)
def test_a_request_reads_back_as_it_was_written(request_: Request, backend: str) -> None:
    """Parsing what was rendered gives the request; rendering it again, the same bytes."""
    written = request_annotation.render(request_, backend)
    read = request_annotation.load(written)
    assert read == request_annotation.Rendered(backend, request_)
    assert request_annotation.render(read.request, read.backend) == written


@given(asking_pods())
def test_what_a_pod_asks_survives_the_annotation(raw: Raw) -> None:
    """Every later part reads the annotation instead of the user's."""
    asked = parse(typed(raw), Bounds())
    assert asked is not None
    assert request_annotation.load(request_annotation.render(asked, "native")).request == asked


@given(asking_pods())
def test_the_order_of_annotations_does_not_matter(raw: Raw) -> None:
    """Maps have none."""
    turned = copy.deepcopy(raw)
    turned["metadata"]["annotations"] = dict(reversed(raw["metadata"]["annotations"].items()))
    assert parse(typed(turned), Bounds()) == parse(typed(raw), Bounds())


@given(text)
def test_no_text_crashes_the_annotations_reader(given_text: str) -> None:
    """It is a request or it is refused."""
    try:
        request_annotation.load(given_text)
    except RequestAnnotationError as e:
        assert str(e)


@given(hostile_pods())
def test_a_refusal_can_always_be_shown(raw: Raw) -> None:
    """Every problem has a path and a message, in one line of printable ASCII or an ellipsis."""
    try:
        parse(typed(raw), Bounds())
    except Refused as e:
        assert e.problems
        for problem in e.problems:
            assert problem.path
            assert problem.message
            assert problem.path.startswith("metadata.annotations[")
        assert "\n" not in join(e.problems).replace("\\n", "")


@given(
    st.integers(1000, 1 << 20),
    st.integers(1, 1000),
    st.booleans(),
)
def test_equal_shares_fit_one_card(size_mib: int, milli: int, by_memory: bool) -> None:
    """As many as the share says: their memory and their compute together are one card at most."""
    if by_memory:
        memory_mib = max(1, size_mib * milli // 1000)
        part = Slice("main", 1, None, memory_mib, None)
        count = min(size_mib // memory_mib, 1000)
    else:
        part = Slice("main", 1, milli, None, milli)
        count = 1000 // milli
    amounts = sizes.resolve(part, frozenset({size_mib}))
    assert amounts.memory_mib is not None
    assert amounts.core_milli is not None
    assert count * amounts.memory_mib <= size_mib
    assert count * amounts.core_milli <= 1000


@given(st.integers(1, 1 << 20), st.integers(1, 999))
def test_a_larger_share_is_never_less(size_mib: int, milli: int) -> None:
    """Neither in memory nor in compute."""
    eligible = frozenset({size_mib})
    less = sizes.resolve(Slice("main", 1, milli, None, milli), eligible)
    more = sizes.resolve(Slice("main", 1, milli + 1, None, milli + 1), eligible)
    assert (less.memory_mib or 0) <= (more.memory_mib or 0)
    assert (less.core_milli or 0) < (more.core_milli or 0)


@given(hostile_pods())
def test_keys_of_ours_are_judged_or_read(raw: Raw) -> None:
    """A pod without user keys of ours has no request; with one it has one, or is refused."""
    pod = typed(raw)
    ours = [k for k in pod.annotations() if keys.is_ours(k) and k not in keys.SYSTEM_KEYS]
    try:
        asked = parse(pod, Bounds())
    except Refused:
        assert ours
    else:
        assert (asked is not None) == bool(ours)
