"""The pod whose annotations tests read, and what is expected of it."""

from collections.abc import Mapping
from typing import Any

import pytest

from gpu_fraction.domain.request import Bounds, Refused, Request, Slice
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import container, pod, typed

THREE = (container("main"), container("side"), container("other"))
SIDECAR = container("proxy", restartPolicy="Always")
SETUP = container("fetch")


def read(annotations: Mapping[str, str], bounds: Bounds | None = None, **more: Any) -> Request:
    """The request of a pod with containers main, side, other, sidecar proxy and init fetch."""
    made = pod(annotations, *THREE, init=(SETUP, SIDECAR), **more)
    request = parse(typed(made), bounds or Bounds())
    assert request is not None
    return request


def share(container: str, milli: int, cards: int = 1) -> Slice:
    """The same share of compute and memory on each card."""
    return Slice(container, cards, core_milli=milli, memory_mib=None, memory_milli=milli)


def refusals(annotations: Mapping[str, str], bounds: Bounds | None = None) -> list[str]:
    """Every problem, as its author reads it."""
    with pytest.raises(Refused) as refused:
        read(annotations, bounds)
    assert str(refused.value) == "; ".join(map(str, refused.value.problems))
    return [str(problem) for problem in refused.value.problems]
