"""Pods that ask by resources alone, in every way the API server writes quantities."""

from typing import Any

import msgspec
import pytest

from gpu_fraction.domain import keys, request_annotation
from gpu_fraction.domain.placement import Ask
from gpu_fraction.domain.request import Request, Slice
from scheduler.asks import AskError, asks_of, rendered_for_us
from scheduler.pods import Pod
from scheduler.views import view_of
from tests.builders import pods


def bare(*containers: dict[str, Any], sidecars: list[dict[str, Any]] | None = None) -> Pod:
    """A pod without our annotations."""
    spec = {"containers": list(containers), "initContainers": sidecars or []}
    return msgspec.convert({"metadata": {"name": "x", "uid": "u"}, "spec": spec}, Pod)


def container(name: str = "main", **amounts: str) -> dict[str, Any]:
    """A container with limits on slot, core_milli and memory_mib."""
    limits = {getattr(keys, key.upper()): text for key, text in amounts.items()}
    return {"name": name, "resources": {"limits": limits}}


def test_resources_alone_are_a_request() -> None:
    """Amounts are over all cards of the container; sidecars count, others do not."""
    pod = bare(
        container("a", slot="1", core_milli="300", memory_mib="4k"),
        container("b", slot="1", core_milli="2k", memory_mib="32Ki"),
        container("c", slot="1", memory_mib="100"),
        container("d", slot="1", core_milli="250"),
        {"name": "plain"},
        sidecars=[
            {**container("side", slot="1", memory_mib="7"), "restartPolicy": "Always"},
            container("init", slot="1", memory_mib="9"),
        ],
    )
    assert asks_of(pod, None) == (
        Ask("a", core_milli=300, memory_mib=4000),
        Ask("b", cards=2, core_milli=1000, memory_mib=16384),
        Ask("c", memory_mib=100),
        Ask("d", core_milli=250, memory_milli=250),
        Ask("side", memory_mib=7),
    )


def test_the_request_annotation_comes_first() -> None:
    """It knows models, policy and shares that resources cannot say."""
    ask = Ask("main", memory_milli=500, core_milli=500, models_in=("T4",), placement="spread")
    pod = pods.pod("x", ask)
    assert asks_of(pod, rendered_for_us(pod)) == (ask,)


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"slot": "1"}, "asks for gpu-fraction.dev/slot without"),
        ({"core_milli": "1001"}, "is 1001 over 2 cards"),
        ({"memory_mib": "1.5.2"}, "is '1.5.2', no quantity"),
        ({"memory_mib": "1Q"}, "is '1Q', no quantity"),
        ({"memory_mib": "nan"}, "is 'nan', no quantity"),
        ({"memory_mib": "-1"}, "is '-1', allowed: 0 or more"),
    ],
)
def test_what_cannot_be_placed_says_why(amounts: dict[str, str], message: str) -> None:
    """The container, the resource and what is wrong."""
    with pytest.raises(AskError, match=message.replace("(", r"\(")) as refused:
        asks_of(bare(container(**amounts)), None)
    assert str(refused.value).startswith("container main: ")


def test_an_unreadable_request_names_the_annotation() -> None:
    """And the place in it, so that the user sees where to look."""
    metadata = {"name": "x", "uid": "u", "annotations": {keys.REQUEST: '{"v": 7}'}}
    pod = msgspec.convert({"metadata": metadata, "spec": {}}, Pod)
    with pytest.raises(AskError, match=r"^gpu-fraction.dev/request: not a request: .*\$\.v"):
        rendered_for_us(pod)


def test_what_another_stack_serves_is_nothing_for_us() -> None:
    """HAMi's scheduler places it."""
    request = Request((Slice("main", 1, 500, None, 500),))
    annotations = {keys.REQUEST: request_annotation.render(request, "hami")}
    metadata = {"name": "x", "uid": "u", "annotations": annotations}
    pod = msgspec.convert({"metadata": metadata, "spec": {}}, Pod)
    assert rendered_for_us(pod) is None
    assert not view_of(pod).asks
