"""The answer of ``gpu-fraction explain``."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gpu_fraction.cli import asking, printing, quota_check
from gpu_fraction.cli.asking import Asked
from gpu_fraction.cli.printing import API_VERSION, Style, clean, painted
from gpu_fraction.dashboard.explain import owners, reading
from gpu_fraction.dashboard.explain.causes import Finding
from gpu_fraction.dashboard.explain.facts import Evidence, Facts
from gpu_fraction.dashboard.explain.report import Report, report_of
from gpu_fraction.dashboard.explain.what_if import WhatIf, largest, what_if
from gpu_fraction.domain.problems import nearest
from gpu_fraction.kube.errors import NotFoundError
from gpu_fraction.kube.resources import PODS, Resource
from gpu_fraction.settings.option import SettingsError

WIDTH: Final = 100
"""Columns of wrapped text; chosen, as the documentation."""

LONGEST: Final = 160
"""Characters of a step's text; chosen: two lines. A cause has the whole text."""

STATE_END: Final = 14
"""Columns of a step's number and state, and of what separates them."""

_COLOURS: Final = {"done": "green", "waiting": "yellow", "refused": "red", "unknown": "dim"}
_WORDS: Final = {"unknown": "not known"}


@dataclass(frozen=True, slots=True)
class Target:
    """What is explained.

    Attributes:
        resource: Its kind.
        name: Its name.
    """

    resource: Resource
    name: str


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    look = printing.style(args, sys.stdout, environ)
    wanted, changes = target(args.object), changes_of(args.what_if)
    return asking.answer(
        args, environ, "explain", partial(_work, wanted, changes, args.output, look)
    )


def target(words: Sequence[str]) -> Target:
    """The object that the words name.

    Raises:
        SettingsError: they name none.
    """
    kind, slash, name = words[0].partition("/")
    if not slash:
        kind, name = ("pod", words[0]) if len(words) == 1 else (words[0], words[1])
    if len(words) != (1 if slash or len(words) == 1 else 2) or not name:
        told = f"{' '.join(words)} is not one object; allowed: KIND NAME, KIND/NAME or NAME"
        raise SettingsError([told])
    resource = owners.KINDS.get(kind.lower())
    if resource is None:
        kinds = sorted({one.kind.lower() for one in owners.KINDS.values()})
        told = f"{kind} cannot be explained{nearest(kind, kinds)}; allowed: {', '.join(kinds)}"
        raise SettingsError([told])
    return Target(resource, asking.checked_name(kind, name))


def changes_of(given: Sequence[str]) -> dict[str, str | None]:
    """Annotations to set, and, with None, to remove.

    Raises:
        SettingsError: one is neither ``KEY=VALUE`` nor ``KEY-``.
    """
    changes: dict[str, str | None] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals and text.endswith("-"):
            key, equals = text[:-1], "-"
        if not key or not equals:
            raise SettingsError([f"--what-if {text}: allowed: KEY=VALUE, or KEY- to remove it"])
        changes[key] = None if equals == "-" else value
    return changes


async def _work(
    wanted: Target, changes: Mapping[str, str | None], output: str, look: Style, asked: Asked
) -> int:
    client, namespace, timeout_s = asked.client, asked.namespace, asked.timeout_s
    try:
        facts = await reading.read(
            client, wanted.resource, namespace, wanted.name, timeout_s=timeout_s
        )
    except NotFoundError as e:
        sys.stderr.write(f"gpu-fraction explain: {e}\n")
        if wanted.resource is PODS:
            refused = await owners.refused_owners(client, namespace, timeout_s=timeout_s)
            for owner in refused[:3]:
                told = f"{owner} could not create its pods: gpu-fraction explain {owner}"
                printing.note(f"{told} -n {namespace}")
        return asking.COULD_NOT_ASK
    report = report_of(facts)
    answer = None
    if changes:
        costs = facts.webhook.settings.stacks.config
        check = await quota_check.read(client, namespace, costs, timeout_s=timeout_s)
        answer = what_if(facts, changes, check)
    if output == "table":
        lines = _told(answer, look) if answer else _explained(report, look)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        if not facts.webhook.source and (answer or not facts.rewritten):
            printing.note("the webhook's settings were not read: its rules are those by default")
        for gap in report.gaps:
            printing.note(f"not read: {gap}")
    else:
        sys.stdout.write(printing.document(record(report, facts, answer), output))
    if answer is not None:
        return 0 if answer.starts else 1
    return report.exit_code


def record(report: Report, facts: Facts, answer: WhatIf | None) -> dict[str, Any]:
    """For programs."""
    rules = facts.webhook.source or "defaults"
    head = {"apiVersion": API_VERSION, "kind": "Explanation", "rulesFrom": rules}
    more = {} if answer is None else {"whatIf": answer.record()}
    return {**head, **report.record(), **more}


def _explained(report: Report, look: Style) -> Iterator[str]:
    yield from _wrapped(clean(f"{report.subject} {report.verdict}"), "")
    yield ""
    for step in report.steps:
        word = _WORDS.get(step.state, step.state)
        text = f"{step.name}: {_short(step.text)}" if step.text else step.name
        first, *more = _wrapped(text, " " * STATE_END)
        state = painted(f"{word:<9}", _COLOURS[step.state], look)
        yield f"{step.number}  {state}  {first[STATE_END:]}"
        yield from more
    if report.findings:
        yield ""
    for finding in report.findings:
        yield from _cause(finding, look)


def _short(text: str) -> str:
    text = clean(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _cause(finding: Finding, look: Style) -> Iterator[str]:
    cause = finding.cause
    yield painted(cause.name, _COLOURS[cause.state], look)
    yield from _wrapped(clean(finding.says), "  why  ")
    for one in finding.evidence:
        yield from _wrapped(_line(one), "  seen ")
    yield from _wrapped(cause.action, "  do   ")
    yield f"  see  {cause.see}"


def _line(one: Evidence) -> str:
    when = f" at {one.at}" if one.at else ""
    return clean(f"{one.object}, {one.field}{when}: {one.text}")


def _wrapped(given: str, first: str) -> Sequence[str]:
    # Escape codes are our own; what objects say has been cleaned.
    return textwrap.wrap(
        given,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _told(answer: WhatIf, look: Style) -> Iterator[str]:
    given = ", ".join(f"{key}={value}" for key, value in answer.annotations.items())
    yield from _wrapped(clean(f"with {given or 'no annotations'}:"), "")
    if answer.problems:
        for problem in answer.problems:
            yield from _wrapped(f"{_bad('refuses', look)} {clean(problem)}", "webhook  ")
        return
    yield from _wrapped(f"accepts: {answer.gets or 'no GPU is asked for'}", "webhook  ")
    for warning in answer.warnings:
        yield from _wrapped(f"warns: {clean(warning)}", "webhook  ")
    yield from _quota(answer, look)
    yield from _cards(answer, look)


def _quota(answer: WhatIf, look: Style) -> Iterator[str]:
    for refusal in answer.quota.refusals:
        yield from _wrapped(f"{_bad('refuses', look)} {clean(refusal)}", "quota    ")
    for remark in answer.quota.remarks:
        yield from _wrapped(f"warns: {clean(remark)}", "quota    ")
    if not answer.quota.refusals:
        yield "quota    " + ("has room" if answer.quota.known else "not known")


def _cards(answer: WhatIf, look: Style) -> Iterator[str]:
    if answer.placed:
        yield from _wrapped(clean(f"room on {answer.placed}, as far as GPUs go"), "cards    ")
    for finding in answer.findings:
        yield from _wrapped(f"{_bad('would wait', look)} {clean(finding.says)}", "cards    ")
    if not answer.whole:
        yield "cards    as far as other pods could be read; more may be taken"
    if not answer.sure:
        yield "cards    not known: another system hands them out"
    if share := largest(answer):
        yield f"largest  {share} of one card would start now"


def _bad(word: str, look: Style) -> str:
    return painted(f"{word}:", "red", look)
