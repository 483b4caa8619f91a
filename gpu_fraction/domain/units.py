"""Parses user-written numbers into integers: milli-cores (thousandths of a GPU) and MiB.

The parsers match an ASCII pattern and compute exactly, because ``float()`` and ``int()`` accept
``" 0.5"``, ``0.2_5``, Arabic digits and ``NaN``. KAI-Scheduler#1798 was caused by three parsers
that disagreed about those.
"""

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Final

MILLI: Final = 1000
"""Milli-cores of one whole GPU."""

MIB: Final = 1 << 20
"""Bytes of one MiB."""

MAX_AMOUNT: Final = (1 << 63) - 1
"""Kubernetes caps every quantity here (apimachinery pkg/api/resource/quantity.go)."""

MAX_CHARS: Final = 30
"""Characters of a number: chosen, far more than any amount has.

Checked before the patterns, which backtrack over every split of a run of digits.
"""

SHARE_ALLOWED: Final = "a share of one GPU from 0.001 to 1 (0.25 or 25%)"
FRACTION_ALLOWED: Final = f"{SHARE_ALLOWED}, or a whole number of GPUs (1, 2, 4)"
MEMORY_ALLOWED: Final = "an amount above 0 with a unit (8Gi, 8000Mi) or a plain number of MiB"
COUNT_ALLOWED: Final = "a whole number of 1 or more"

_NUMBER: Final = re.compile(r"(-?)([0-9]*)\.?([0-9]*)(%?)", re.ASCII)
_COUNT: Final = re.compile(r"0*[1-9][0-9]*", re.ASCII)
_QUANTITY: Final = re.compile(
    r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:([eE][+-]?[0-9]{1,2})|([KMGTPE]i|[numkMGTPE])?)",
    re.ASCII,
)

# Source: Kubernetes API conventions, "Quantity" (apimachinery pkg/api/resource/quantity.go).
_SUFFIX: Final[Mapping[str, Decimal]] = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{s: Decimal(10) ** (3 * i) for i, s in enumerate("kMGTPE", start=1)},
    **{s + "i": Decimal(2) ** (10 * i) for i, s in enumerate("KMGTPE", start=1)},
}


class UnitError(ValueError):
    """A number that is not accepted.

    Attributes:
        reason: The fault.
        allowed: The accepted values.
    """

    def __init__(self, reason: str, allowed: str) -> None:
        super().__init__(f"{reason}; allowed: {allowed}")
        self.reason = reason
        self.allowed = allowed


def parse_fraction_milli(text: str) -> int:
    """The value of ``gpu-fraction`` in thousandths of a GPU, 1 to 1000 or a multiple of 1000.

    More decimals are taken to the nearest thousandth: three times 0.3333 fit one GPU.

    Raises:
        UnitError: anything but a share of one GPU or a whole number of GPUs.
    """
    milli = _milli(text, FRACTION_ALLOWED)
    if milli > MILLI and milli % MILLI:
        raise UnitError("more than one GPU but not a whole number", FRACTION_ALLOWED)
    return milli


def parse_share_milli(text: str) -> int:
    """A share of one GPU in thousandths, 1 to 1000, with more decimals as in a fraction.

    Raises:
        UnitError: anything but a share of one GPU.
    """
    milli = _milli(text, SHARE_ALLOWED)
    if milli > MILLI:
        raise UnitError("more than one GPU", SHARE_ALLOWED)
    return milli


def _match(
    pattern: re.Pattern[str], text: str, most_chars: int = MAX_CHARS
) -> re.Match[str] | None:
    """Match the whole text; None where it is too long."""
    return pattern.fullmatch(text) if len(text) <= most_chars else None


def is_exact(text: str) -> bool:
    """False for a share that was taken to the nearest thousandth.

    Args:
        text: What ``parse_fraction_milli`` took.
    """
    # One decimal of a percentage is the third decimal of a share.
    places = 1 if text.endswith("%") else 3
    return not text.partition(".")[2].rstrip("%0")[places:]


def _milli(text: str, allowed: str) -> int:
    match = _match(_NUMBER, text)
    sign, whole, decimals, percent = match.groups() if match else ("", "", "", "")
    if not (whole or decimals):
        raise UnitError("not a number", allowed)
    if sign:
        raise UnitError("negative", allowed)
    places = 1 if percent else 3
    # Digits are shifted, not multiplied: Decimal rounds beyond its 28 digits.
    value = int(whole + decimals[:places].ljust(places, "0"))
    if len(decimals) > places:
        if value < MILLI:
            value += decimals[places] >= "5"
        elif not is_exact(text):
            value |= 1  # More than one GPU is not rounded: an odd number is no whole GPU.
    if value == 0:
        raise UnitError("zero" if is_exact(text) else "less than 0.001 of a GPU", allowed)
    return value


def parse_count(text: str) -> int:
    """A whole number of 1 or more.

    Raises:
        UnitError: anything else.
    """
    if not _match(_COUNT, text):
        raise UnitError("not a whole number of 1 or more", COUNT_ALLOWED)
    return int(text)


def parse_memory_mib(text: str) -> tuple[int, bool]:
    """An amount of memory in MiB, and whether it was rounded up to get there.

    A plain whole number counts MiB, as KAI-Scheduler users write it. With a unit it is a
    Kubernetes quantity of bytes. Fractions of a MiB are rounded up, so that a
    container never gets less than requested.

    Raises:
        UnitError: not an amount, zero or negative, or less than one MiB.
    """
    if text.isascii() and text.isdigit() and len(text) <= MAX_CHARS:
        value = int(text)
        if value == 0:
            raise UnitError("zero", MEMORY_ALLOWED)
        return value, False
    match = _match(_QUANTITY, text)
    if match is None or not (match[4] or match[1]):
        raise UnitError("not an amount of memory", MEMORY_ALLOWED)
    if match[1] == "-":
        raise UnitError("negative", MEMORY_ALLOWED)
    if match[4] not in _SUFFIX or match[4] in {"n", "u", "m", ""}:
        raise UnitError("not a unit of memory", MEMORY_ALLOWED)
    size = Decimal(match[2]) * _SUFFIX[match[4]]
    if size == 0:
        raise UnitError("zero", MEMORY_ALLOWED)
    if size < MIB:
        raise UnitError("less than 1Mi", MEMORY_ALLOWED)
    mib = (size / MIB).to_integral_value(ROUND_CEILING)
    return int(mib), mib * MIB != size


def parse_quantity(value: str) -> Decimal:
    """A Kubernetes quantity as an exact number.

    Raises:
        UnitError: not a quantity.
    """
    match = _match(_QUANTITY, value, 2 * MAX_CHARS)
    if match is None:
        raise UnitError("not a quantity", "a Kubernetes quantity (1, 500m, 8Gi)")
    sign, digits, exponent, suffix = match.groups()
    number = Decimal(f"{sign}{digits}{exponent or ''}")
    return number * _SUFFIX[suffix or ""]


def whole_amount(text: str) -> int:
    """An extended resource's amount, rounded up, 0 or more; 0 where it cannot be read.

    The API server's own validation takes whole numbers of 0 or more only.
    """
    if len(text) <= MAX_CHARS and text.isascii() and text.isdigit():
        return min(int(text), MAX_AMOUNT)  # the common form
    try:
        whole = parse_quantity(text).to_integral_value(ROUND_CEILING)
    except UnitError:
        return 0
    return max(0, min(int(whole), MAX_AMOUNT))


def share_of(total: int, milli: int) -> int:
    """``milli`` thousandths of ``total``, rounded down, at least 1.

    Rounds down, so that shares whose sum is one GPU fit on one GPU.
    """
    return max(1, total * milli // MILLI)


def ceil_div(a: int, b: int) -> int:
    """``a / b`` rounded up."""
    return -(-a // b)


def format_count(count: int) -> str:
    """A whole number as the API server stores it: 1000 is ``1k``, 1500 stays.

    Source: apimachinery pkg/api/resource/quantity.go, canonical form of DecimalSI.
    """
    for power, suffix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if count and count % 10**power == 0:
            return f"{count // 10**power}{suffix}"
    return str(count)


def format_milli(milli: int) -> str:
    """Thousandths as a decimal: 250 is ``0.25``."""
    return f"{Decimal(milli) / MILLI:f}"


def format_percent(milli: int) -> str:
    """Thousandths as a percentage: 125 is ``12.5%``."""
    return f"{(Decimal(milli) / 10).normalize():f}%"


def format_memory(mib: int) -> str:
    """MiB in the largest unit that keeps it whole: 8192 is ``8Gi``."""
    return f"{mib >> 10}Gi" if mib and mib % 1024 == 0 else f"{mib}Mi"
