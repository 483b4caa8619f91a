"""From a request to what is asked of cards."""

import pytest

from gpu_fraction.domain.placement import asks_of_request
from gpu_fraction.domain.request import Request, Slice


def test_a_request_becomes_one_ask_a_container() -> None:
    """With the pod's constraints on each of them."""
    request = Request(
        slices=(Slice("a", 2, 500, None, 500), Slice("b", 1, None, 8192, None)),
        models=("H100",),
        uuids=("GPU-1", "GPU-2"),
        placement="topology",
        isolation="required",
    )
    first, second = asks_of_request(request)
    assert (first.container, first.cards, first.core_milli) == ("a", 2, 500)
    assert (first.memory_mib, first.memory_milli) == (None, 500)
    assert (second.container, second.core_milli, second.memory_mib) == ("b", None, 8192)
    for ask in (first, second):
        assert (ask.models_in, ask.uuids) == (("H100",), ("GPU-1", "GPU-2"))
        assert (ask.placement, ask.isolation) == ("topology", "required")


@pytest.mark.parametrize(
    ("core_milli", "memory_mib", "expected"),
    [
        pytest.param(None, None, (500, None, 500), id="resources name nothing"),
        pytest.param(1000, 40960, (500, 20480, None), id="both were settled at admission"),
        pytest.param(1000, 0, (500, None, 500), id="memory waits for the card"),
    ],
)
def test_what_the_resources_name_is_what_counts(
    core_milli: int | None, memory_mib: int | None, expected: tuple[int | None, ...]
) -> None:
    """The scheduler and the kubelet have counted these; a card of another size changes nothing."""
    (ask,) = asks_of_request(Request((Slice("a", 2, 500, None, 500),)))
    settled = ask.settled(core_milli, memory_mib)
    assert (settled.core_milli, settled.memory_mib, settled.memory_milli) == expected
