"""Every cause that ``explain`` knows, with its next action and its place in docs/operations.md.

The name of a cause is part of the JSON output, so a change here is a breaking change.
"""

from typing import Final

from gpu_fraction.dashboard.explain.admission_causes import ADMISSION
from gpu_fraction.dashboard.explain.cause import Cause, Finding, State
from gpu_fraction.dashboard.explain.facts import Evidence
from gpu_fraction.dashboard.explain.life_causes import LIFE

CAUSES: Final = {cause.name: cause for cause in (*ADMISSION, *LIFE)}
"""Every cause by its name, in the order of the steps; of one step, the surest first."""

ORDER: Final = {name: at for at, name in enumerate(CAUSES)}


def found(name: str, says: str, *evidence: Evidence) -> Finding:
    """A finding of the named cause."""
    return Finding(CAUSES[name], says, evidence)


__all__ = ["CAUSES", "ORDER", "Cause", "Finding", "State", "found"]
