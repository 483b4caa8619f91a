"""Amounts, models and times as people read them in tables."""

from datetime import datetime
from typing import Final

from gpu_fraction.domain import units

_VENDOR: Final = "NVIDIA "

_UNITS_S: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def short_model(model: str) -> str:
    """A product name without its vendor; ``-`` where unknown."""
    return model.removeprefix(_VENDOR) or "-"


def age_s(since: str | None, now: datetime) -> int:
    """Seconds since a timestamp, 0 or more; -1 where unknown."""
    try:
        return max(0, int((now - datetime.fromisoformat(since or "")).total_seconds()))
    except (ValueError, TypeError):
        return -1


def age(since: str | None, now: datetime) -> str:
    """Whole days, hours, minutes or seconds since a timestamp; ``-`` where unknown."""
    if (passed_s := age_s(since, now)) < 0:
        return "-"
    for unit_s, letter in _UNITS_S:
        # As kubectl does, the next smaller unit is kept up to two of the larger one.
        if passed_s >= 2 * unit_s:
            return f"{passed_s // unit_s}{letter}"
    return f"{passed_s}s"


def share(milli: int) -> str:
    """Thousandths of a card as a user writes them: ``0.25``, ``2``."""
    whole, rest = divmod(milli, units.MILLI)
    return str(whole) if not rest else f"{milli / units.MILLI:.3f}".rstrip("0")


def memory(mib: int) -> str:
    """MiB, in GiB from one on, with a decimal where there is one: ``512Mi``, ``79.6Gi``."""
    return f"{mib}Mi" if abs(mib) < 1024 else f"{mib / 1024:.1f}".removesuffix(".0") + "Gi"
