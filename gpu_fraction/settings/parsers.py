"""Parsers of setting values; their ValueErrors name the allowed values."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from gpu_fraction.domain.problems import nearest

_MAX_DIGITS: Final = 20
"""Digits of a whole number: chosen, to bound the cost of the conversion."""

L = TypeVar("L", bound=str)


def text(given: str) -> str:
    """Any text that is not empty."""
    if not given:
        raise ValueError("allowed: any text that is not empty")
    return given


def path(given: str) -> Path:
    """A file system path."""
    return Path(text(given))


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number in a range, both ends included."""

    def parse(given: str) -> int:
        plain = given.isascii() and given.isdigit() and len(given) <= _MAX_DIGITS
        if not plain or not low <= int(given) <= high:
            raise ValueError(f"allowed: a whole number from {low} to {high}")
        return int(given)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A time in seconds in a range, both ends included."""

    def parse(given: str) -> float:
        allowed = f"allowed: seconds from {low:.10g} to {high:.10g}"
        if not given.replace(".", "", 1).isdigit() or not given.isascii():
            raise ValueError(allowed)
        if not low <= (value := float(given)) <= high:
            raise ValueError(allowed)
        return value

    return parse


def boolean(given: str) -> bool:
    """``true`` or ``false``."""
    if given not in {"true", "false"}:
        raise ValueError("allowed: true, false")
    return given == "true"


def choice(*allowed: L) -> Callable[[str], L]:
    """One of several words."""

    def parse(given: str) -> L:
        for word in allowed:
            if word == given:
                return word
        raise ValueError(f"allowed: {', '.join(allowed)}{nearest(given, allowed)}")

    return parse


def words(given: str) -> tuple[str, ...]:
    """A list separated by commas; may be empty."""
    return tuple(word.strip() for word in given.split(",") if word.strip())


def word_set(given: str) -> frozenset[str]:
    """A set separated by commas; may be empty."""
    return frozenset(words(given))
