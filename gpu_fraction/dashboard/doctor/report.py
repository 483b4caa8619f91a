"""Results as text, as commands, and for programs."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gpu_fraction.dashboard.doctor.finding import Finding, Level, Result, link
from gpu_fraction.dashboard.snapshot import Gap
from gpu_fraction.kube.access import VERSION

API_VERSION: Final = "cli.gpu-fraction.dev/v1"
"""As of every command's answer for programs; fields are added, never renamed or removed."""

KIND: Final = "DoctorReport"

COLOURS: Final = {"fail": "31", "warn": "33", "skipped": "36", "ok": "32"}
"""SGR codes of levels; the word is always there as well."""

WIDTH: Final = 100
"""Columns of what was seen; commands are not wrapped. Chosen, as the documentation."""

INDENT: Final = 8


def exit_code(results: Sequence[Result], *, strict: bool = False) -> int:
    """0 where nothing failed, else 1; with ``strict`` warnings count as well."""
    bad = {"fail", "warn"} if strict else {"fail"}
    return int(any(result.level in bad for result in results))


def text(results: Sequence[Result], *, every: bool = False, colour: bool = False) -> str:
    """What was found, for people.

    Args:
        results: Of all checks.
        every: Also those that found nothing.
        colour: With SGR codes.
    """
    lines: list[str] = []
    for result in results:
        if result.skipped:
            lines.append(f"{_word('skipped', colour)} {result.check.name}: {result.skipped}")
        elif not result.findings and every:
            lines.append(f"{_word('ok', colour)} {result.check.name}")
        for one in result.findings:
            lines += _finding(result, one, colour=colour)
    return "\n".join([*lines, summary(results)]) + "\n"


def summary(results: Sequence[Result]) -> str:
    """One line of numbers."""
    counts = Counter(result.level for result in results)
    words = {"ok": "ok", "warn": "with warnings", "fail": "failed", "skipped": "not examined"}
    parts = [f"{counts[level]} {words[level]}" for level in words if counts[level]]  # type: ignore[index]
    return f"{len(results)} checks: {', '.join(parts)}"


def _word(level: Level, colour: bool) -> str:  # noqa: FBT001 - a flag of the caller
    word = f"{level.upper():<7}"
    return f"\x1b[{COLOURS[level]}m{word}\x1b[0m" if colour else word


def _finding(result: Result, one: Finding, *, colour: bool) -> Iterator[str]:
    first, *more = one.fix.splitlines()
    text, width = f"{result.check.name}: {one.seen}", WIDTH - INDENT
    seen, *rest = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    yield f"{_word(one.level, colour)} {seen}"
    yield from (f"{'':{INDENT}}{line}" for line in rest)
    yield f"        why  {result.check.why}"
    yield f"        fix  {first}"
    yield from (f"             {line}" for line in more)
    yield f"        see  {link(result.check, one)}"


def fixes(results: Sequence[Result]) -> str:
    """The commands alone, each once, as a shell script for a person to choose from.

    What is no command, or belongs on a node, is a comment.
    """
    lines: list[str] = []
    seen = set()
    for result in results:
        for one in result.findings:
            if one.fix not in seen:
                seen.add(one.fix)
                lines += [f"# {result.check.name}: {one.seen}", *_script(one.fix), ""]
    return "\n".join(lines)


COMMANDS: Final = frozenset({"gcloud", "gpu-fraction", "kubectl", "oc"})
"""First words of lines that a shell can run here."""


def _script(fix: str) -> Iterator[str]:
    document = False
    for line in fix.splitlines():
        runs = line.split(" ", 1)[0] in COMMANDS
        yield line if document or runs else f"# {line}"
        document = line != "END" if document else runs and line.endswith("<<'END'")


def described(results: Sequence[Result], gaps: Sequence[Gap] = ()) -> dict[str, Any]:
    """For programs; fields are only added, never renamed."""
    counts = Counter(result.level for result in results)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "version": VERSION,
        "summary": {level: counts[level] for level in COLOURS},  # type: ignore[index]
        "notRead": [gap.text for gap in gaps],
        "checks": [
            {
                "number": result.check.number,
                "name": result.check.name,
                "level": result.level,
                "why": result.check.why,
                **({"skipped": result.skipped} if result.skipped else {}),
                "findings": [
                    {
                        "level": one.level,
                        "seen": one.seen,
                        "fix": one.fix,
                        "see": link(result.check, one),
                    }
                    for one in result.findings
                ],
            }
            for result in results
        ],
    }
