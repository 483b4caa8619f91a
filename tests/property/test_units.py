"""Numbers against an oracle that computes with fractions."""

import re
from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain import units
from tests.builders.strategies import text

NUMBERS = st.from_regex(r"-?[0-9]{0,28}(\.[0-9]{0,5})?%?", fullmatch=True)
QUANTITIES = st.from_regex(r"[0-9]{0,12}(\.[0-9]{0,9})?([KMGTPE]i|[numkMGTPE])?", fullmatch=True)
PLAIN = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)%?", re.ASCII)


def exact(number: str) -> Fraction | None:
    """The share, where the text is one that people write."""
    if not PLAIN.fullmatch(number) or len(number) > units.MAX_CHARS:
        return None
    return Fraction(number.rstrip("%")) / (100 if number.endswith("%") else 1)


@given(st.one_of(NUMBERS, text))
def test_a_fraction_is_the_nearest_thousandth_or_refused(number: str) -> None:
    """A whole number of GPUs is exact."""
    value = exact(number)
    good = (
        value is not None and value >= Fraction(1, 2000) and (value <= 1 or value.denominator == 1)
    )
    try:
        milli = units.parse_fraction_milli(number)
    except units.UnitError as e:
        assert not good, e
    else:
        assert good
        assert value is not None
        assert milli == floor(value * 1000 + Fraction(1, 2))
        assert units.is_exact(number) == (milli == value * 1000)


@given(st.integers(1, 1000))
def test_a_share_reads_back_as_it_is_shown(milli: int) -> None:
    """As a decimal and as a percentage."""
    assert units.parse_share_milli(units.format_milli(milli)) == milli
    assert units.parse_share_milli(units.format_percent(milli)) == milli


@given(st.integers(1, 1 << 40))
def test_memory_reads_back_as_it_is_shown(mib: int) -> None:
    """In whichever unit."""
    assert units.parse_memory_mib(units.format_memory(mib)) == (mib, False)
    assert units.parse_memory_mib(str(mib)) == (mib, False)


@given(st.one_of(QUANTITIES, text))
def test_memory_is_never_less_than_asked(amount: str) -> None:
    """And never a whole MiB more; rounding is owned up to."""
    try:
        mib, rounded = units.parse_memory_mib(amount)
    except units.UnitError:
        return
    asked = Fraction(amount) * units.MIB if amount.isdigit() else size(amount)
    assert asked <= mib * units.MIB < asked + units.MIB
    assert rounded == (asked != mib * units.MIB)


def size(amount: str) -> Fraction:
    """Bytes of a quantity, by Kubernetes' table of suffixes."""
    digits = amount.lstrip("+").rstrip("iKkMGTPEnum")
    suffix = amount[len(amount.rstrip("iKkMGTPEnum")) :]
    power = "_KMGTPE".find(suffix[0].upper())
    unit: int = (1024 if suffix.endswith("i") else 1000) ** power
    return Fraction(digits) * unit


@given(text)
def test_no_text_crashes_a_parser(given_text: str) -> None:
    """Each takes it or says what is allowed."""
    for parser in (
        units.parse_fraction_milli,
        units.parse_share_milli,
        units.parse_count,
        units.parse_memory_mib,
        units.parse_quantity,
    ):
        try:
            parser(given_text)
        except units.UnitError as e:
            assert e.allowed


@given(st.integers(1000, 1 << 20), st.lists(st.integers(1, 1000), min_size=1, max_size=40))
def test_shares_of_one_card_fit_on_one_card(total: int, milli: list[int]) -> None:
    """Rounding down keeps what adds up to a card on it."""
    fitting: list[int] = []
    for share in milli:
        if sum(fitting) + share <= 1000:
            fitting.append(share)
    assert sum(units.share_of(total, share) for share in fitting) <= total
