"""What a check finds, and what a check is."""

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gpu_fraction.domain.pages import anchor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpu_fraction.dashboard.doctor.evidence import Evidence

Level = Literal["ok", "warn", "fail", "skipped"]
"""Nothing found; not right, but works; broken; not examined, with the reason."""

PAGE: Final = "docs/operations.md"
"""The page with a section for each finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        level: ``warn`` or ``fail``.
        seen: What was seen, with object and field, one line.
        fix: The command to run, or the value to change; one line a step.
        heading: The section of the page about it, where the check has several.
    """

    level: Level
    seen: str
    fix: str
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One question about a cluster.

    Attributes:
        number: Its number in the list of checks; stable, for programs.
        name: Its name, for programs and people; stable.
        heading: The section of docs/operations.md about what it finds.
        why: Why a finding matters, one line.
        find: The faults in the evidence; none where all is well.
        needs: The parts of the evidence without which it says nothing.
        before: Whether it makes sense before the installation.
    """

    number: int
    name: str
    heading: str
    why: str
    find: "Callable[[Evidence], Iterable[Finding]]"
    needs: tuple[str, ...] = ()
    before: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check.

    Attributes:
        check: The check.
        findings: The faults, worst first.
        skipped: Why it was not examined, and the missing right; empty where it was.
    """

    check: Check
    findings: tuple[Finding, ...] = ()
    skipped: str = ""

    @property
    def level(self) -> Level:
        """The worst finding's."""
        if self.skipped:
            return "skipped"
        return self.findings[0].level if self.findings else "ok"


def link(check: Check, finding: Finding | None = None) -> str:
    """The section of the page about a finding."""
    return f"{PAGE}#{anchor((finding.heading if finding else '') or check.heading)}"


def fail(seen: str, fix: str, heading: str = "") -> Finding:
    """A fault that breaks something."""
    return Finding("fail", _one_line(seen), fix, heading)


def warn(seen: str, fix: str, heading: str = "") -> Finding:
    """A fault that breaks nothing yet."""
    return Finding("warn", _one_line(seen), fix, heading)


def _one_line(text: str) -> str:
    """Without line breaks and control characters.

    Messages of Events are written by tenants, and ``--print-fixes`` puts this behind a ``#``.
    """
    words = " ".join(text.split())
    return "".join(c if unicodedata.category(c)[0] != "C" else "?" for c in words)
