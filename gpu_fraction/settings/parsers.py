"""From text to a value, or a ValueError that says what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from gpu_fraction.domain.problems import nearest

_MAX_DIGITS: Final = 20
"""Of a whole number: chosen, so that no text costs time to convert."""

L = TypeVar("L", bound=str)


def text(given: str) -> str:
    """Any text that is not empty."""
    if not given:
        raise ValueError("allowed: a text that is not empty")
    return given


def path(given: str) -> Path:
    """A place in the file system."""
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
    """One of some words."""

    def parse(given: str) -> L:
        for word in allowed:
            if word == given:
                return word
        raise ValueError(f"allowed: {', '.join(allowed)}{nearest(given, allowed)}")

    return parse


def words(given: str) -> tuple[str, ...]:
    """A list separated by commas; empty for none."""
    return tuple(word.strip() for word in given.split(",") if word.strip())


def word_set(given: str) -> frozenset[str]:
    """The same without an order."""
    return frozenset(words(given))
