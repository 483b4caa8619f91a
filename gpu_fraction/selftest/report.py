"""The report of a self-test, in the form of docs/gpu-results.md."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from gpu_fraction.domain.inventory import Card
from gpu_fraction.kube.access import VERSION
from gpu_fraction.selftest.protocol import STEPS, Slice, Verdict

_HEAD: Final = ("step", "what", "promise", "measured", "outcome")


def table(verdicts: Sequence[Verdict]) -> str:
    """Promise against measurement, for a terminal."""
    rows = [tuple(word.upper() for word in _HEAD), *map(_cells, verdicts)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _cells(one: Verdict) -> tuple[str, ...]:
    return (one.step, one.what, one.promise, one.measured, one.outcome)


def markdown(
    slices: Sequence[Slice], verdicts: Sequence[Verdict], card: Card, driver: str, now: datetime
) -> str:
    """A section for docs/gpu-results.md.

    Args:
        slices: With their measurements.
        verdicts: Of them.
        card: As the node's inventory has it.
        driver: The driver's version, from the inventory.
        now: The date of the run.
    """
    kernel = next(
        (s.measured.kernel for s in slices if s.measured and s.measured.kernel), "unknown"
    )
    lines = [
        f"## {card.model}, driver {driver or 'unknown'}, kernel {kernel}, {now:%Y-%m-%d}",
        "",
        (
            f"`gpu-fraction selftest` {VERSION}, engine `{card.isolation}` (memory "
            f"{_enforced(card.enforces_memory)}, compute {_enforced(card.enforces_compute)})."
        ),
        "",
        f"| {' | '.join(_HEAD)} |",
        f"|{'---|' * len(_HEAD)}",
        *(f"| {' | '.join(_cells(one))} |" for one in verdicts),
        "",
    ]
    skipped = [s for s in slices if s.measured is None or s.measured.problem]
    if skipped:
        lines += ["Not measured:", ""]
        lines += [
            f"- `{s.step}`, {s.share_milli / 1000:g}: {s.problem or 'no answer'}" for s in skipped
        ]
        lines.append("")
    lines += ["```json", *(_line(s, card, driver) for s in slices if s.measured), "```", ""]
    return "\n".join(lines)


def _enforced(yes: bool) -> str:  # noqa: FBT001 - a word for a flag
    return "enforced" if yes else "not enforced"


def _line(one: Slice, card: Card, driver: str) -> str:
    """One line of JSON with test, driver and card, as ``make test-gpu`` records."""
    head: dict[str, Any] = {"test": f"selftest {one.step}", "driver": driver, "card": card.model}
    measured = msgspec.to_builtins(one.measured, str_keys=True)
    return json.dumps(
        {**head, "shareMilli": one.share_milli, "promiseMib": one.promise_mib, **measured}
    )


def plan() -> str:
    """The steps, for people."""
    return "".join(f"  {step.name:<9} {step.text}\n" for step in STEPS)
