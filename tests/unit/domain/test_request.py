"""A request's parts by themselves."""

import pytest

from gpu_fraction.domain.request import Slice
from tests.unit.domain.annotated_pod import share


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        (share("main", 1000), True),
        (share("main", 1000, 8), True),
        (share("main", 999), False),
        (Slice("main", 1, core_milli=1000, memory_mib=81920, memory_milli=None), False),
        (Slice("main", 1, core_milli=500, memory_mib=None, memory_milli=1000), False),
    ],
)
def test_whole_cards(part: Slice, whole: bool) -> None:
    """Whole means all compute and all memory, not an amount that may happen to be all."""
    assert part.whole is whole


@pytest.mark.parametrize(
    ("core_milli", "memory_mib", "memory_milli"),
    [(500, 8192, 500), (500, None, None), (None, None, 500)],
)
def test_a_slice_cannot_contradict_itself(
    core_milli: int | None, memory_mib: int | None, memory_milli: int | None
) -> None:
    """Memory is an amount or a share; compute can follow an amount only."""
    with pytest.raises(ValueError, match="memory"):
        Slice("main", 1, core_milli, memory_mib, memory_milli)
