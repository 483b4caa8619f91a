"""Cards, what fits on them, and which are best.

All names here are plain Python. The modules for a whole cluster (``table``, ``vectorised``,
``search``) need numpy, so only the extender imports them.
"""

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import (
    CardState,
    Kind,
    Share,
    Taken,
    empty,
    held,
    less,
    share_of,
)
from gpu_fraction.domain.placement.choice import SCORE_MAX, Placed, choose
from gpu_fraction.domain.placement.fit import (
    NOTHING_BARRED,
    Refusal,
    Why,
    explain,
    refusal,
    summary,
    unenforced,
)

__all__ = [
    "NOTHING_BARRED",
    "SCORE_MAX",
    "Ask",
    "CardState",
    "Kind",
    "Placed",
    "Refusal",
    "Share",
    "Taken",
    "Why",
    "choose",
    "empty",
    "explain",
    "held",
    "less",
    "refusal",
    "share_of",
    "summary",
    "unenforced",
]
