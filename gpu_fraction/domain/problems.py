"""Messages about faults of a pod, for its author."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

MAX_SHOWN: Final = 5
"""Problems in one message: chosen, more would hide the first."""

MAX_VALUE_CHARS: Final = 64
"""Characters of a quoted value: it may be hostile and long."""

MAX_CANDIDATES: Final = 64
"""Words compared for a suggestion: chosen, each costs up to a millisecond."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal.

    Attributes:
        path: The field, as the API server writes it: ``metadata.annotations[gpu-fraction]``.
        message: The given value, the allowed values and the remedy.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def quote(value: str) -> str:
    """The value, escaped and truncated, so that it cannot forge or flood a message."""
    shown = value[:MAX_VALUE_CHARS].encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{shown}{"..." if len(value) > MAX_VALUE_CHARS else ""}"'


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The closest known word, as ``; did you mean "x"?``, or an empty text.

    Args:
        word: The given word.
        known: The candidates; only the first ``MAX_CANDIDATES`` are compared.
        prefix: A common prefix to leave out of the comparison.
    """
    words = {other.removeprefix(prefix): other for other in islice(known, MAX_CANDIDATES)}
    given = word[: len(prefix) + MAX_VALUE_CHARS].removeprefix(prefix)
    found = difflib.get_close_matches(given, words, n=1, cutoff=0.6)
    return f"; did you mean {quote(words[found[0]])}?" if found else ""


def join(problems: Iterable[Problem]) -> str:
    """All problems in one line, the first ones first."""
    texts = [str(problem) for problem in problems]
    more = f"; and {len(texts) - MAX_SHOWN} more" if len(texts) > MAX_SHOWN else ""
    return "; ".join(texts[:MAX_SHOWN]) + more
