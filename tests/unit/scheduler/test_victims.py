"""The pods to evict from one card."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_fraction.scheduler.victims import Holder, fewest, rank


def holder(name: str, core_milli: int, priority: int = 0, *, added: bool = True) -> Holder:
    """A pod that holds as many MiB as milli-cores, in one slot."""
    return Holder(priority, added, name, (core_milli, core_milli, 1))


def uids(short: int, *holders: Holder) -> list[str] | None:
    """The pods that free that many milli-cores and MiB."""
    found = fewest((short, short, 0), holders)
    return None if found is None else sorted(holder.uid for holder in found)


def test_a_card_with_enough_free_needs_no_victims() -> None:
    """A card that all pods together do not free has no answer."""
    assert uids(0, holder("p", 500)) == []
    assert uids(501, holder("p", 500)) is None
    assert uids(1) is None


def test_of_many_equal_slices_those_of_the_lowest_priority_are_evicted() -> None:
    """Far more sets than are compared: the least important pods come first."""
    slices = [holder(f"p{at:02}", 30, priority=5 if at < 20 else 0) for at in range(32)]
    assert uids(300, *slices) == [f"p{at}" for at in range(20, 30)]
    assert uids(960, *slices) == [f"p{at:02}" for at in range(32)]


def test_few_large_pods_are_evicted_rather_than_many_small_ones() -> None:
    """More sets than are compared; the good answer is still the fewest."""
    small = [holder(f"a{at:02}", 10) for at in range(30)]
    large = [holder(f"b{at}", 100, priority=at % 2) for at in range(6)]
    assert uids(300, *small, *large) == ["b0", "b2", "b4"]
    assert uids(310, *small, *large) == ["a00", "b0", "b2", "b4"]


def test_among_equals_the_schedulers_own_victims_are_evicted() -> None:
    """Names decide only after that."""
    mine, proposed = holder("a", 500), holder("b", 500, added=False)
    assert uids(500, mine, proposed) == ["b"]
    assert uids(500, holder("d", 500), holder("c", 500)) == ["c"]


amounts = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 2))
crowds = st.lists(st.tuples(st.integers(0, 3), st.booleans(), amounts), max_size=8)


@given(st.tuples(st.integers(-5, 30), st.integers(-5, 30), st.integers(0, 9)), crowds)
@settings(max_examples=300, deadline=None)
def test_of_a_few_pods_no_set_ranks_before_the_answer(
    short: tuple[int, int, int], crowd: list[tuple[int, bool, tuple[int, int, int]]]
) -> None:
    """Compared with all of them; eight pods have fewer sets than are tried."""
    holders = [Holder(*fields[:2], f"p{at}", fields[2]) for at, fields in enumerate(crowd)]
    ranks = [
        rank(chosen)
        for size in range(len(holders) + 1)
        for chosen in combinations(holders, size)
        if all(sum(h.taken[at] for h in chosen) >= short[at] or short[at] <= 0 for at in range(3))
    ]
    found = fewest(short, holders)
    assert (None if found is None else rank(found)) == (min(ranks) if ranks else None)
