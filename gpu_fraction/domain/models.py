"""Whether a card's product name is the model a user wrote.

Users write ``A100`` or ``h100-80gb``; NVML says ``NVIDIA A100-SXM4-80GB``. Comparing whole
words keeps ``T4`` from meaning ``Tesla T40`` and ``A10`` from meaning ``A100``.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_SEPARATORS: Final = re.compile(r"[\s-]+")

__all__ = ["allowed", "matches"]


# Chosen: a cluster has a few dozen product names and patterns; the bound only stops growth.
@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _SEPARATORS.split(text.casefold()) if word)


def matches(pattern: str, model: str) -> bool:
    """True if the pattern's words stand side by side, whole and in order, in the model.

    Words are separated by spaces and hyphens, and case does not count.

    Args:
        pattern: What the user wrote, for example ``A100`` or ``RTX 6000``. A pattern without
            a word matches nothing.
        model: NVML's product name, for example ``NVIDIA A100-SXM4-80GB``.
    """
    wanted, given = _words(pattern), _words(model)
    if not wanted:
        return False
    last = len(given) - len(wanted)
    return any(given[at : at + len(wanted)] == wanted for at in range(last + 1))


def allowed(model: str, models_in: Iterable[str], models_out: Iterable[str]) -> bool:
    """True if the model is one of ``models_in`` (empty: any) and none of ``models_out``."""
    wanted = tuple(models_in)
    if wanted and not any(matches(pattern, model) for pattern in wanted):
        return False
    return not any(matches(pattern, model) for pattern in models_out)
