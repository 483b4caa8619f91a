"""Which numbers people may write, and what each comes to."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from gpu_fraction.domain import units
from gpu_fraction.domain.units import UnitError


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("0.25", 250),
        ("0.5", 500),
        ("0.001", 1),
        ("0.010", 10),
        ("0.999", 999),
        ("25%", 250),
        ("12.5%", 125),
        ("0.1%", 1),
        ("100%", 1000),
        ("1", 1000),
        ("1.0", 1000),
        ("1.000", 1000),
        ("2", 2000),
        ("16", 16000),
        ("2.0", 2000),
        (".5", 500),
        ("00.5", 500),
        ("01", 1000),
        ("1.", 1000),
        ("5.", 5000),
        (".5%", 5),
        ("05.%", 50),
        ("0.25000", 250),
        ("25.000%", 250),
        ("2.0000", 2000),
    ],
)
def test_fraction_is_read_in_thousandths(text: str, milli: int) -> None:
    """A share of one GPU, as a decimal or a percentage, or a whole number of GPUs."""
    assert units.parse_fraction_milli(text) == milli


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("0.3333", 333),
        ("0.3335", 334),
        ("0.33349999", 333),
        ("0.0005", 1),
        ("0.0014", 1),
        ("0.9994", 999),
        ("0.9996", 1000),
        (".00051", 1),
        ("33.33%", 333),
        ("0.05%", 1),
        ("99.96%", 1000),
        ("0.1234567890123456789012345678", 123),
    ],
)
def test_more_decimals_are_taken_to_the_nearest_thousandth(text: str, milli: int) -> None:
    """Of a decimal and of a percentage; the caller can tell, and warns."""
    assert units.parse_fraction_milli(text) == units.parse_share_milli(text) == milli
    assert not units.is_exact(text)


@pytest.mark.parametrize("text", ["0.25", "0.250", "0.25000", "1", "2.0000", ".5", "5.", "25.50%"])
def test_zeros_are_not_more_decimals(text: str) -> None:
    """Nothing was rounded."""
    assert units.is_exact(text)


def test_three_times_a_third_fit_one_gpu() -> None:
    """As they do where KAI-Scheduler counts them."""
    assert 3 * units.parse_fraction_milli("0.3333") <= units.MILLI


NO_NUMBERS = [
    "",
    " ",
    "0.5 ",
    " 0.5",
    "0.5\n",
    "\t0.5",
    "0 .5",
    ".",
    ".%",
    "-",
    "-.",
    "1..5",
    "%",
    "%25",
    "25 %",
    "25%%",
    "0,5",
    "1/4",
    "half",
    "0.2_5",
    "1_000",
    "1e-3",
    "1E0",
    "5e-1",
    "0x1",
    "0b1",
    "0o1",
    "+0.5",
    "--0.5",
    "0.5.0",
    "NaN",
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "None",
    "true",
    "٠.٥",
    "٠٫٢٥",
    "٢",
    "²",
    "０.５",
    "0.５",
    "۱",
    "0.5\u200b",
    "\ufeff0.5",
    "0.5\x00",
    "500m",
    "0.5Gi",
    "1" * 31,
    "0." + "0" * 40 + "1",
]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_other_parsers_would_take_is_no_number(text: str) -> None:
    """Only plain ASCII decimals count; the refusal says what is allowed."""
    with pytest.raises(UnitError) as refused:
        units.parse_fraction_milli(text)
    assert refused.value.reason == "not a number"
    assert refused.value.allowed == units.FRACTION_ALLOWED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0", "zero"),
        ("0.0", "zero"),
        ("0.000", "zero"),
        ("0%", "zero"),
        ("0.0%", "zero"),
        ("-0.5", "negative"),
        ("-1", "negative"),
        ("-0", "negative"),
        ("-25%", "negative"),
        ("0.", "zero"),
        ("0.00000", "zero"),
        ("-.5", "negative"),
        ("0.0004", "less than 0.001 of a GPU"),
        ("0.0000000001", "less than 0.001 of a GPU"),
        ("0.04%", "less than 0.001 of a GPU"),
        ("1.0004", "more than one GPU but not a whole number"),
        ("100.01%", "more than one GPU but not a whole number"),
        ("1.9999", "more than one GPU but not a whole number"),
        ("1.5", "more than one GPU but not a whole number"),
        ("1.001", "more than one GPU but not a whole number"),
        ("2.5", "more than one GPU but not a whole number"),
        ("100.1%", "more than one GPU but not a whole number"),
        ("150%", "more than one GPU but not a whole number"),
    ],
)
def test_numbers_that_are_no_fraction(text: str, reason: str) -> None:
    """Zero, negative, too fine and above one are refused, each with its own reason."""
    with pytest.raises(UnitError) as refused:
        units.parse_fraction_milli(text)
    assert (refused.value.reason, refused.value.allowed) == (reason, units.FRACTION_ALLOWED)
    assert str(refused.value) == f"{reason}; allowed: {units.FRACTION_ALLOWED}"


def test_a_part_that_decimals_would_round_away_is_still_a_part() -> None:
    """Twenty-nine digits are one more than decimal arithmetic keeps by default."""
    with pytest.raises(UnitError, match="more than one GPU but not a whole number"):
        units.parse_fraction_milli("12345678901234567890123456.001")


@pytest.mark.parametrize(("text", "milli"), [("0.3", 300), ("30%", 300), ("1", 1000)])
def test_share(text: str, milli: int) -> None:
    """A share of one GPU, at most all of it."""
    assert units.parse_share_milli(text) == milli


@pytest.mark.parametrize("text", ["2", "1.001", "1.0001", "101%", "200%"])
def test_share_is_never_a_count(text: str) -> None:
    """Whole numbers above one count GPUs in ``gpu-fraction`` only."""
    with pytest.raises(UnitError) as refused:
        units.parse_share_milli(text)
    assert refused.value.reason == "more than one GPU"
    assert refused.value.allowed == units.SHARE_ALLOWED


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("2", 2), ("10", 10), ("02", 2), ("9" * 30, 10**30 - 1)]
)
def test_count(text: str, count: int) -> None:
    """A whole number of 1 or more."""
    assert units.parse_count(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "+1", "1.0", "1.2", "00", " 1", "1 ", "1\n", "1e1", "٢", "1_0", "9" * 31],
)
def test_no_count(text: str) -> None:
    """Anything else is refused with what is allowed."""
    with pytest.raises(UnitError) as refused:
        units.parse_count(text)
    assert refused.value.allowed == "a whole number of 1 or more"


@pytest.mark.parametrize(
    ("text", "mib", "rounded"),
    [
        ("1", 1, False),
        ("8000", 8000, False),
        ("08", 8, False),
        ("04096", 4096, False),
        ("8Gi", 8192, False),
        ("8000Mi", 8000, False),
        ("1024Ki", 1, False),
        ("0.5Gi", 512, False),
        (".5Gi", 512, False),
        ("8.Gi", 8192, False),
        ("+8Gi", 8192, False),
        ("1Ti", 1 << 20, False),
        ("1.5Mi", 2, True),
        ("1025Ki", 2, True),
        ("8G", 7630, True),
        ("8000M", 7630, True),
        ("2000000k", 1908, True),
        ("1T", 953675, True),
        ("1.0000001Gi", 1025, True),
    ],
)
def test_memory(text: str, mib: int, rounded: bool) -> None:
    """A plain number counts MiB; with a unit it is bytes, rounded up to whole MiB."""
    assert units.parse_memory_mib(text) == (mib, rounded)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an amount of memory"),
        (" 8Gi", "not an amount of memory"),
        ("8 Gi", "not an amount of memory"),
        ("8Gi\n", "not an amount of memory"),
        ("8gi", "not an amount of memory"),
        ("8GB", "not an amount of memory"),
        ("8GiB", "not an amount of memory"),
        ("8Mb", "not an amount of memory"),
        ("8e9", "not an amount of memory"),
        ("1e3", "not an amount of memory"),
        ("8.5", "not an amount of memory"),
        ("Gi", "not an amount of memory"),
        ("0x8Gi", "not an amount of memory"),
        ("1_000Mi", "not an amount of memory"),
        ("NaN", "not an amount of memory"),
        ("inf", "not an amount of memory"),
        ("٨Gi", "not an amount of memory"),
        ("٨", "not an amount of memory"),
        ("8²", "not an amount of memory"),
        ("50%", "not an amount of memory"),
        ("9" * 31, "not an amount of memory"),
        ("9" * 31 + "Gi", "not an amount of memory"),
        ("+8", "not a unit of memory"),
        ("500m", "not a unit of memory"),
        ("8n", "not a unit of memory"),
        ("8u", "not a unit of memory"),
        ("-8Gi", "negative"),
        ("-1", "negative"),
        ("-0Gi", "negative"),
        ("0", "zero"),
        ("000", "zero"),
        ("0Gi", "zero"),
        ("0.0Mi", "zero"),
        ("1Ki", "less than 1Mi"),
        ("1023Ki", "less than 1Mi"),
        ("0.5Mi", "less than 1Mi"),
        ("999k", "less than 1Mi"),
    ],
)
def test_no_memory(text: str, reason: str) -> None:
    """What is no amount, or not one of memory, is refused with what is allowed."""
    with pytest.raises(UnitError) as refused:
        units.parse_memory_mib(text)
    assert (refused.value.reason, refused.value.allowed) == (reason, units.MEMORY_ALLOWED)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        ("-1", "-1"),
        ("500m", "0.5"),
        ("2000m", "2"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("3Gi", "3221225472"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("5e-1", "0.5"),
        ("1E", "1000000000000000000"),
        ("1Ei", "1152921504606846976"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1n", "0.000000001"),
    ],
)
def test_quantity(text: str, number: str) -> None:
    """Kubernetes quantities are exact numbers, whatever suffix they carry."""
    assert units.parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize(
    "text", ["", ".", "-", "1 ", "1KI", "1K", "1e", "1e100", "1.2.3", "NaN", "1Gib", "٣", "1" * 61]
)
def test_no_quantity(text: str) -> None:
    """What Kubernetes would not take is refused."""
    with pytest.raises(UnitError, match="not a quantity"):
        units.parse_quantity(text)


@pytest.mark.parametrize(
    ("total", "milli", "share"),
    [(81920, 250, 20480), (81920, 1000, 81920), (81920, 333, 27279), (15360, 1, 15), (10, 1, 1)],
)
def test_share_of_a_card_is_rounded_down(total: int, milli: int, share: int) -> None:
    """Down, so that shares fit together on one card; never to nothing."""
    assert units.share_of(total, milli) == share


@pytest.mark.parametrize(("a", "b", "up"), [(0, 7, 0), (1, 7, 1), (7, 7, 1), (8, 7, 2)])
def test_division_rounded_up(a: int, b: int, up: int) -> None:
    """Exact multiples stay."""
    assert units.ceil_div(a, b) == up


@pytest.mark.parametrize(
    ("milli", "decimal", "percent"),
    [
        (1, "0.001", "0.1%"),
        (10, "0.01", "1%"),
        (125, "0.125", "12.5%"),
        (250, "0.25", "25%"),
        (500, "0.5", "50%"),
        (1000, "1", "100%"),
        (2000, "2", "200%"),
        (10000, "10", "1000%"),
    ],
)
def test_shares_are_shown_as_people_write_them(milli: int, decimal: str, percent: str) -> None:
    """No trailing zeros, no exponents."""
    assert units.format_milli(milli) == decimal
    assert units.format_percent(milli) == percent


@pytest.mark.parametrize(
    ("mib", "text"), [(0, "0Mi"), (1, "1Mi"), (1000, "1000Mi"), (1024, "1Gi"), (81920, "80Gi")]
)
def test_memory_is_shown_in_the_largest_whole_unit(mib: int, text: str) -> None:
    """Gi where that is whole, else Mi."""
    assert units.format_memory(mib) == text


@pytest.mark.parametrize(
    "parse",
    [
        units.parse_fraction_milli,
        units.parse_share_milli,
        units.parse_count,
        units.parse_memory_mib,
        units.parse_quantity,
    ],
)
@pytest.mark.parametrize("end", ["", "x", ".5x", "Gi", "%", "."])
def test_a_number_as_long_as_a_request_body_is_answered(
    parse: Callable[[str], object], end: str
) -> None:
    """Anybody may send one to the webhook, whose pattern must not part its digits in every way."""
    with pytest.raises(UnitError):
        parse("1" * 3_000_000 + end)
