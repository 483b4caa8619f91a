"""What each container asks: by the request and its resources, or by resources alone."""

import json
from typing import Any

import pytest

from gpu_fraction.domain import keys, request_annotation
from gpu_fraction.domain.asks import Ask, AskError, amounts_of, asks_of, rendered_for_us
from gpu_fraction.domain.request import Request, Slice


def named(**amounts: str) -> dict[str, int]:
    """What limits on slot, core_milli and memory_mib name."""
    return amounts_of({getattr(keys, key.upper()): text for key, text in amounts.items()})


def annotated(request: Request, backend: str = keys.NATIVE) -> dict[str, str]:
    """Annotations with this request."""
    return {keys.REQUEST: request_annotation.render(request, backend)}


def test_a_request_becomes_one_ask_a_container() -> None:
    """With the pod's constraints on each of them, in the pod's order."""
    request = Request(
        slices=(Slice("a", 2, 500, None, 500), Slice("b", 1, None, 8192, None)),
        models=("H100",),
        uuids=("GPU-1", "GPU-2"),
        placement="topology",
        isolation="required",
    )
    containers = [("b", named(slot="1")), ("plain", {}), ("a", named(slot="1"))]
    second, first = asks_of(rendered_for_us(annotated(request)), containers)
    assert (first.container, first.cards, first.core_milli) == ("a", 2, 500)
    assert (first.memory_mib, first.memory_milli) == (None, 500)
    assert (second.container, second.core_milli, second.memory_mib) == ("b", None, 8192)
    for ask in (first, second):
        assert (ask.models_in, ask.uuids) == (("H100",), ("GPU-1", "GPU-2"))
        assert (ask.placement, ask.isolation) == ("topology", "required")


@pytest.mark.parametrize(
    ("amounts", "most_mib"),
    [
        pytest.param({}, None, id="resources name nothing"),
        pytest.param({"core_milli": "1k", "memory_mib": "40960"}, 20480, id="both counted"),
        pytest.param({"core_milli": "1k"}, None, id="memory waits for the card"),
        pytest.param({"core_milli": "0", "memory_mib": "0"}, None, id="zeros"),
    ],
)
def test_a_share_of_memory_stays_a_share(amounts: dict[str, str], most_mib: int | None) -> None:
    """Of the card that is chosen; MiB counted by a configured size are the most of it."""
    rendered = rendered_for_us(annotated(Request((Slice("a", 2, 500, None, 500),))))
    (ask,) = asks_of(rendered, [("a", named(slot="1", **amounts))])
    assert (ask.core_milli, ask.memory_mib, ask.memory_milli) == (500, None, 500)
    assert ask.most_mib == most_mib


def test_an_amount_of_memory_is_what_the_resources_name() -> None:
    """The scheduler and the kubelet have counted these."""
    rendered = rendered_for_us(annotated(Request((Slice("a", 2, None, 8192, None),))))
    containers = [("a", named(slot="1", core_milli="204", memory_mib="16k"))]
    (ask,) = asks_of(rendered, containers)
    assert (ask.core_milli, ask.memory_mib, ask.memory_milli) == (102, 8000, None)
    assert ask.most_mib is None


def test_an_init_container_holds_nothing() -> None:
    """The kubelet does not tell which of them it starts."""
    running = [("main", named(slot="1", memory_mib="1"))]
    assert asks_of(None, running, [("setup", named(slot="0", core_milli="0"))])
    with pytest.raises(AskError, match=r"init container setup: asks for gpu-fraction\.dev/slot"):
        asks_of(None, running, [("setup", named(slot="1"))])


def test_resources_alone_are_a_request() -> None:
    """Amounts are over all cards of the container, in each way that quantities are written."""
    containers = [
        ("a", named(slot="1", core_milli="300", memory_mib="4k")),
        ("b", named(slot="1", core_milli="2k", memory_mib="32Ki")),
        ("c", named(slot="1", memory_mib="100")),
        ("d", named(slot="1", core_milli="250")),
        ("e", named(slot="1", core_milli="1500", memory_mib="20")),
        ("plain", {}),
        ("nothing", named(slot="0", core_milli="0")),
    ]
    assert asks_of(None, containers) == (
        Ask("a", core_milli=300, memory_mib=4000),
        Ask("b", cards=2, core_milli=1000, memory_mib=16384),
        Ask("c", memory_mib=100),
        Ask("d", core_milli=250, memory_milli=250),
        Ask("e", cards=2, core_milli=750, memory_mib=10),
    )


def test_the_limit_counts_before_the_request() -> None:
    """The API server keeps the two equal for resources like ours."""
    assert amounts_of({keys.SLOT: "1"}, {keys.SLOT: "2", keys.MEMORY_MIB: "3", "cpu": "1"}) == {
        keys.SLOT: 1,
        keys.MEMORY_MIB: 3,
    }


def test_resources_alone_are_isolated_as_requests_are() -> None:
    """One default, whichever way a pod asks."""
    (ask,) = asks_of(None, [("a", named(slot="1", memory_mib="1"))])
    assert ask.isolation == Request((Slice("a", memory_mib=1),)).isolation


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"slot": "1"}, "asks for gpu-fraction.dev/slot without"),
        ({"slot": "1", "core_milli": "1001"}, "is 1001 over 2 cards"),
        ({"slot": "1", "core_milli": "2k", "memory_mib": "3"}, "memory-mib is 3 over 2 cards"),
        ({"slot": "3", "memory_mib": "3"}, "asks for 3 of gpu-fraction.dev/slot, allowed is exa"),
        (
            {"slot": "1", "core_milli": "0", "memory_mib": "7"},
            "core-milli is 0, allowed: 1 or more",
        ),
        ({"slot": "1", "core_milli": "9E"}, "cards is 9000000000000000, allowed: 1 to 65536"),
        ({"core_milli": "250"}, "asks for 0 of gpu-fraction.dev/slot, allowed is exactly 1"),
        ({"slot": "1", "memory_mib": "1.5.2"}, "asks for gpu-fraction.dev/slot without"),
        ({"slot": "1", "memory_mib": "-1"}, "asks for gpu-fraction.dev/slot without"),
    ],
)
def test_what_no_cards_can_give_says_why(amounts: dict[str, str], message: str) -> None:
    """The container, the resource and what is wrong."""
    with pytest.raises(AskError, match=message) as refused:
        asks_of(None, [("main", named(**amounts))])
    assert str(refused.value).startswith("container main: ")


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({}, "asks for 0 of gpu-fraction.dev/slot"),
        ({"slot": "1", "core_milli": "1001"}, "gpu-fraction.dev/core-milli is 1001 over 2 cards"),
        ({"slot": "1", "core_milli": "4k"}, "core_milli is 2000, allowed: 0 to 1000"),
    ],
)
def test_resources_that_contradict_the_request_say_why(
    amounts: dict[str, str], message: str
) -> None:
    """Something changed them after the webhook wrote both."""
    rendered = rendered_for_us(annotated(Request((Slice("a", 2, 500, None, 500),))))
    with pytest.raises(AskError, match=f"container a: {message}"):
        asks_of(rendered, [("a", named(**amounts))])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"v": 1}, "not a request: "),
        ([], "not a request: "),
        ({"v": 7}, "version 7, from a newer"),
    ],
)
def test_an_unreadable_request_names_the_annotation(value: Any, told: str) -> None:
    """And the place in it, so that the user sees where to look."""
    with pytest.raises(AskError, match=f"^gpu-fraction.dev/request: {told}"):
        rendered_for_us({keys.REQUEST: json.dumps(value)})


def test_what_another_stack_serves_is_nothing_for_us() -> None:
    """HAMi's scheduler places it."""
    assert rendered_for_us(annotated(Request((Slice("main", 1, 500, None, 500),)), "hami")) is None
