"""Cards, what fits on them, and which are best.

The arrays that judge a whole cluster (``table``, ``vectorised``) need numpy and are imported
by who uses them; everything here is plain Python.
"""

from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.placement.cards import CardState, Kind, Share, empty, less, share_of
from gpu_fraction.domain.placement.explain import explain, summary
from gpu_fraction.domain.placement.fit import NOTHING_BARRED, Refusal, Why, refusal
from gpu_fraction.domain.placement.policies import SCORE_MAX
from gpu_fraction.domain.placement.reference import Placed, choose

__all__ = [
    "NOTHING_BARRED",
    "SCORE_MAX",
    "Ask",
    "CardState",
    "Kind",
    "Placed",
    "Refusal",
    "Share",
    "Why",
    "choose",
    "empty",
    "explain",
    "less",
    "refusal",
    "share_of",
    "summary",
]
