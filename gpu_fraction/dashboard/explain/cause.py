"""What a cause is, and a cause that holds for a pod."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from gpu_fraction.dashboard.explain.facts import Evidence
from gpu_fraction.domain.pages import anchor

PAGE: Final = "docs/operations.md"
"""The page with a section for each cause."""

State = Literal["done", "waiting", "refused", "unknown"]
"""Of a step: over; not yet; it will not happen as the pod is; the cluster does not say."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause.

    Attributes:
        name: For programs, in kebab case.
        step: The step of the pod that it holds up, 1 to 9.
        state: What it makes of the step.
        heading: Its section of docs/operations.md.
        action: What to do next.
    """

    name: str
    step: int
    state: State
    heading: str
    action: str

    @property
    def see(self) -> str:
        """The link to its section."""
        return f"{PAGE}#{anchor(self.heading)}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause that holds for this pod.

    Attributes:
        cause: The cause.
        says: What is the matter, one line.
        evidence: What was seen.
    """

    cause: Cause
    says: str
    evidence: tuple[Evidence, ...] = ()


Findings = Iterable[Finding]
