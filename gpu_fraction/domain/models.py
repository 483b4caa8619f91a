"""Comparison of a card's product name with the model that a user wrote.

Users write ``A100`` or ``h100-80gb``; NVML says ``NVIDIA A100-SXM4-80GB``. Comparing whole
words keeps ``T4`` from meaning ``Tesla T40`` and ``A10`` from meaning ``A100``.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_SEPARATORS: Final = re.compile(r"[\s-]+")

KNOWN: Final = (
    *("A2", "A10", "A10G", "A10M", "A16", "A30", "A40", "A100", "A100X", "A800", "A5000"),
    *("A400", "A1000", "A2000", "A3000", "A4000", "A4500", "A5500", "A6000"),
    *("B200", "B300", "GB200", "GB300", "GH200", "H20", "H100", "H200", "H800"),
    *("K20", "K40", "K80", "L2", "L4", "L20", "L40", "L40G", "L40S", "M4", "M6", "M10", "M40"),
    *("M60", "M2000", "M4000", "M5000", "M6000", "P4", "P6", "P40", "P100", "P400", "P600"),
    *("P620", "P1000", "P2000", "P2200", "P4000", "P5000", "P6000"),
    *("T4", "T4G", "T40", "T400", "T600", "T1000", "T1200", "V100", "V100S"),
)
"""Models by their word in NVML's product names. Source: NVIDIA's lists of
CUDA GPUs (developer.nvidia.com/cuda-gpus, /cuda-legacy-gpus). A model may be missing."""


# Chosen: a cluster has a few dozen product names and patterns.
@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _SEPARATORS.split(text.casefold()) if word)


def matches(pattern: str, model: str) -> bool:
    """True if the pattern's words stand side by side, whole and in order, in the model.

    Words are separated by spaces and hyphens, and case does not count.

    Args:
        pattern: The user's text, for example ``A100`` or ``RTX 6000``. A pattern without
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
