"""Specifications: what is read, and what is refused in which words."""

from typing import Any

import msgspec
import pytest

from gpu_fraction.domain.amounts import format_amount, parse_amount
from gpu_fraction.domain.units import UnitError
from gpu_fraction.quota.spec import parse_spec
from gpu_fraction.quota.wire import SpecWire


@pytest.mark.parametrize(
    ("kind", "text", "amount", "shown"),
    [
        ("cores", "4", 4000, "4"),
        ("cores", "2500m", 2500, "2500m"),
        ("cores", 1, 1000, "1"),
        ("cores", "0", 0, "0"),
        ("memory", "160Gi", 163840, "160Gi"),
        ("memory", "160G", 152587, "152587Mi"),
        ("memory", 0, 0, "0"),
        ("gpus", "8", 8, "8"),
        ("pods", "2k", 2000, "2000"),
        ("A100.memory", "1Gi", 1024, "1Gi"),
    ],
)
def test_quantities(kind: str, text: str | int, amount: int, shown: str) -> None:
    """As Kubernetes writes them, in integers inside."""
    assert parse_amount(kind.rpartition(".")[2], text) == amount
    assert format_amount(kind, amount) == shown


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("cores", "-1", "negative"),
        ("cores", "0.0001", "too fine"),
        ("gpus", "1.5", "too fine"),
        ("memory", 160, "less than 1Mi"),
        ("memory", "lots", "not a quantity"),
        ("pods", "9E", "too large"),
        ("cores", "٣", "not a quantity"),
    ],
)
def test_amounts_that_are_none(kind: str, text: str | int, reason: str) -> None:
    """The reason, and what would be accepted."""
    with pytest.raises(UnitError, match=f"{reason}; allowed: "):
        parse_amount(kind, text)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"hard": {"cores": "many"}}, 'spec.hard.cores: "many" is not a quantity'),
        ({"hard": {"models": {" ": {}}}}, "spec.hard.models[ ]: not a GPU model"),
        ({"perPod": {"defaultFraction": "1.5"}}, "spec.perPod.defaultFraction"),
        (
            {"perPod": {"min": {"gpus": 2}, "max": {"gpus": 1}}},
            "spec.perPod.min.gpus: 2 is more than spec.perPod.max.gpus, 1",
        ),
    ],
)
def test_specifications_that_cannot_be_used(spec: dict[str, Any], said: str) -> None:
    """The path of the field, what was given and what is allowed."""
    (problem,) = parse_spec(msgspec.convert(spec, SpecWire))[1]
    assert said in str(problem)
