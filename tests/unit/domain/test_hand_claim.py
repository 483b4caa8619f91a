"""What a claim that somebody wrote costs."""

import json
from typing import Any

import msgspec
import pytest

from gpu_fraction.domain import dra
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.hand_claim import ClaimSpec

WHOLE = Demand(1, 1000, open_memory_milli=1000)


def spec(*requests: dict[str, Any]) -> ClaimSpec:
    """A claim's specification from the wire."""
    return msgspec.json.decode(
        json.dumps({"devices": {"requests": list(requests)}}), type=ClaimSpec
    )


def share(device_class: str = dra.FRACTION_CLASS, count: int | None = None, **asked: Any) -> Any:
    """A request for devices of a class; amounts by the last part of their names."""
    found: dict[str, Any] = {"deviceClassName": device_class}
    if count is not None:
        found["count"] = count
    if asked:
        found["capacity"] = {"requests": {f"{dra.DRIVER}/{k}": v for k, v in asked.items()}}
    return found


@pytest.mark.parametrize(
    ("asked", "demand"),
    [
        pytest.param(
            share(cores="250", memory_ppm="250k"), Demand(1, 250, open_memory_milli=250), id="part"
        ),
        pytest.param(
            share(count=2, cores=250, memory_ppm="250000"),
            Demand(2, 500, open_memory_milli=500),
            id="of-two-cards",
        ),
        pytest.param(share(cores="250"), Demand(1, 250, open_memory_milli=1000), id="no-memory"),
        pytest.param(share(memory_ppm="1"), Demand(1, 1000, open_memory_milli=1), id="no-cores"),
        pytest.param(share(), WHOLE, id="no-amounts"),
        pytest.param(
            share(cores="1500m", memory_ppm="416667"),
            Demand(1, 2, open_memory_milli=417),
            id="rounded-up",
        ),
        pytest.param(
            share(cores="0", memory_ppm="-1"), Demand(1, 1, open_memory_milli=1), id="at-least-1"
        ),
        pytest.param(share(cores="1M", memory_ppm="1E"), WHOLE, id="at-most-a-card"),
        pytest.param(share(cores="much", memory_ppm="1 k"), WHOLE, id="unreadable"),
        pytest.param(share(dra.WHOLE_CLASS, cores="1", memory_ppm="1"), WHOLE, id="whole"),
        pytest.param(share(dra.MIG_CLASS, cores="1", memory_ppm="1"), WHOLE, id="mig"),
        pytest.param(share("later.gpu-fraction.dev", cores="1"), WHOLE, id="class-of-later"),
        pytest.param(share("gpu.example.com", cores="1"), ZERO, id="other-driver"),
        pytest.param(share("notgpu-fraction.dev"), ZERO, id="other-domain"),
        pytest.param(
            share() | {"allocationMode": "All"},
            Demand(32, 32000, open_memory_milli=32000),
            id="all",
        ),
    ],
)
def test_a_request_costs_what_it_can_take(asked: Any, demand: Demand) -> None:
    """Whatever it does not name is a whole card, as for the scheduler."""
    assert spec({"name": "r", "exactly": asked}).demand == demand


def test_requests_add_up_and_of_a_list_the_largest_counts() -> None:
    """In each amount by itself."""
    listed = [
        share(count=2, cores="100", memory_ppm="100k"),
        share(cores="900", memory_ppm="50k"),
        share("gpu.example.com"),
    ]
    claim = spec(
        {"name": "a", "firstAvailable": listed},
        {"name": "b", "exactly": share(cores="50", memory_ppm="50k")},
    )
    assert claim.demand == Demand(3, 950, open_memory_milli=250)


def test_a_claim_without_requests_costs_nothing() -> None:
    """Nor does one of an unknown form of request."""
    assert spec().demand == spec({"name": "r"}).demand == ZERO
    assert msgspec.json.decode(b"{}", type=ClaimSpec).demand == ZERO


def test_a_number_of_cards_that_is_not_known_is_a_problem() -> None:
    """Of ours only, and with its place."""
    everything = {"allocationMode": "All"}
    claim = spec(
        {"name": "a", "exactly": share("gpu.example.com") | everything},
        {"name": "b", "firstAvailable": [share(), share() | everything]},
        {"name": "c", "exactly": share() | {"allocationMode": "ExactCount"}},
    )
    [problem] = claim.problems()
    assert problem == (
        "spec.devices.requests[1].firstAvailable[1].allocationMode: All takes a number of cards "
        "that no quota can know; allowed: ExactCount with a count"
    )
