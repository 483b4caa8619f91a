"""The nine steps of a pod, with what holds it up."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from gpu_fraction.dashboard.explain import placing, refusals, starting, waiting
from gpu_fraction.dashboard.explain.causes import ORDER, Finding, State
from gpu_fraction.dashboard.explain.facts import Evidence, Facts
from gpu_fraction.domain import units
from gpu_fraction.domain.amounts import format_amount
from gpu_fraction.domain.request import Request

STEPS: Final = (
    "API server asks the webhook",
    "webhook rewrites the pod",
    "webhook checks the pod and its quota",
    "controller counts the pod",
    "scheduler chooses node and card",
    "kubelet reserves the slice",
    "node daemon prepares the slice",
    "container starts",
    "pod ends, its slice is free again",
)
"""What happens to a pod, from the API server to its end (docs/architecture.md)."""

_RULES: Final = (*refusals.RULES, *waiting.RULES, *placing.RULES, *starting.RULES)


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        number: 1 to 9.
        state: How far it is.
        text: What was done, or what it waits for.
    """

    number: int
    state: State
    text: str

    @property
    def name(self) -> str:
        """What happens in it."""
        return STEPS[self.number - 1]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer.

    Attributes:
        subject: ``Kind namespace/name``.
        verdict: One line.
        runs: Whether the pod runs, or has ended well, and nothing is wrong with it.
        steps: All nine.
        findings: Causes, the first is the one to look at first.
        gaps: What could not be read, one line each.
    """

    subject: str
    verdict: str
    runs: bool
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for a pod that runs, 1 for one that waits or was refused."""
        return 0 if self.runs else 1

    def record(self) -> dict[str, Any]:
        """For programs; fields are added, never renamed or removed."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "running": self.runs,
            "steps": [
                {"step": s.number, "name": s.name, "state": s.state, "text": s.text}
                for s in self.steps
            ],
            "causes": [
                {
                    "cause": one.cause.name,
                    "step": one.cause.step,
                    "state": one.cause.state,
                    "says": one.says,
                    "evidence": [
                        {"object": e.object, "field": e.field, "text": e.text, "time": e.at}
                        for e in one.evidence
                    ],
                    "action": one.cause.action,
                    "see": one.cause.see,
                }
                for one in self.findings
            ],
            "notRead": list(self.gaps),
        }


def report_of(facts: Facts) -> Report:
    """Steps and causes; never raises, because annotations and statuses may hold anything."""
    findings = [one for rule in _RULES for one in rule(facts)]
    if not any(one.cause.step == 5 for one in findings):
        findings += waiting.scheduler_refuses(facts)
    findings.sort(key=lambda one: (one.cause.state == "unknown", ORDER[one.cause.name]))
    steps = tuple(_steps(facts, findings))
    # A pod that is not counted yet runs all the same.
    stops = [one for one in findings if one.cause.state != "unknown" and one.cause.step != 4]
    phase = facts.pod.pod.status.phase
    runs = facts.exists and phase in ("Running", "Succeeded") and not stops
    gaps = [*facts.snapshot.gaps, *facts.gaps]
    return Report(
        subject=facts.subject,
        verdict=_verdict(facts, steps, stops, runs=runs),
        runs=runs,
        steps=steps,
        findings=tuple(findings),
        gaps=tuple(f"{gap.what}: {gap.text}" for gap in gaps),
    )


def _verdict(facts: Facts, steps: Iterable[Step], stops: list[Finding], *, runs: bool) -> str:
    if runs:
        state = "has ended well" if facts.pod.state == "finished" else "runs"
        return f"{state}, {_holding(facts)}"
    if stops:
        state = "is refused" if stops[0].cause.state == "refused" else "waits"
        number = stops[0].cause.step
        return f"{state} at step {number} ({STEPS[number - 1]}): {stops[0].says}"
    if not facts.exists:
        return "has no pod, and no event says why"
    if facts.pod.state == "leaving":
        return "is being deleted"
    open_steps = [step for step in steps if step.state != "done"]
    first = next((step for step in open_steps if step.state == "waiting"), open_steps[0])
    return f"waits at step {first.number} ({first.name}); nothing is wrong so far"


def _holding(facts: Facts) -> str:
    cards = [f"{one.uuid} of {one.node}" for one in facts.pod.slices]
    if cards:
        return f"with {', '.join(cards)}"
    return f"on node {facts.pod.node}" if facts.backend else "without a GPU: it asks for none"


def _steps(facts: Facts, findings: Iterable[Finding]) -> Iterable[Step]:
    held: dict[int, Finding] = {}
    for one in findings:
        held.setdefault(one.cause.step, one)
    blocked = 0
    for number in range(1, 10):
        state, text = _progress(facts, number)
        finding = held.get(number)
        if finding is not None:
            state, text = finding.cause.state, finding.says
        elif blocked:
            state, text = "waiting", f"after step {blocked}"
        if not blocked and state in ("waiting", "refused") and number != 4:
            blocked = number
        yield Step(number, state, text)


def _progress(facts: Facts, number: int) -> tuple[State, str]:
    """How far a step is where no rule has found anything about it."""
    if number <= 4:
        return _admission(facts, number)
    return _life(facts, number) if facts.exists else ("unknown", "")


def _life(facts: Facts, number: int) -> tuple[State, str]:
    """How far a step of a pod that exists is."""
    pod = facts.pod
    if number == 5:
        return ("done", _placed(facts)) if pod.node else ("waiting", "no node yet")
    if number == 9:
        ended = pod.state == "finished"
        text = f"phase {pod.pod.status.phase}" if ended else "it holds its slice until then"
        return ("done" if ended else "waiting"), text
    if pod.pod.status.phase in ("Running", "Succeeded", "Failed"):
        since = pod.pod.status.start_time or ""
        return "done", f"accepted by the kubelet at {since}" if number == 6 and since else ""
    if number == 8:
        return "waiting", "the container has not started"
    return "unknown", "the API does not show it until the container starts"


def _admission(facts: Facts, number: int) -> tuple[State, str]:
    if number == 4:
        return _counted(facts)
    if not facts.exists:
        silent = not (facts.idle or any(facts.told(*refusals.REASONS)))
        return "unknown", "the pod does not exist" + ", and no Event says why" * silent
    if facts.rewritten:
        rendered = facts.pod.rendered
        told = "its request cannot be read" if rendered is None else asked(rendered.request)
        written = f"for backend {rendered.backend}: {told}" if rendered else told
        return "done", {1: "", 2: written}.get(number, "the pod is admitted")
    if facts.backend:
        return "done", {2: "nothing: the pod names the stack's own resources"}.get(number, "")
    return "done", "the pod asks for no GPU" if number == 2 else ""


def asked(request: Request) -> str:
    """What each container gets, one line."""
    parts = []
    for one in request.slices:
        memory = f"{one.memory_mib} MiB"
        if one.memory_mib is None:
            memory = f"{units.format_percent(one.memory_milli or 0)} of the memory"
        count = f"{one.cards} GPUs, each " if one.cards > 1 else ""
        core = (
            "" if one.core_milli is None else f"{units.format_percent(one.core_milli)} compute, "
        )
        parts.append(f"{one.container} gets {count}{core}{memory}")
    return "; ".join(parts)


def _counted(facts: Facts) -> tuple[State, str]:
    quotas = facts.cluster.quotas_of(facts.namespace)
    if not facts.snapshot.quotas.read:
        return "unknown", "GPUQuotas were not read"
    if not quotas:
        return "done", "no GPUQuota in the namespace"
    if not facts.exists:
        return "unknown", ""
    late = [quota.name for quota in quotas if not quota.counted]
    if late:
        return "unknown", f"{', '.join(late)} is not counted yet"
    used = "; ".join(_used(facts, quota.name) for quota in quotas)
    return "done", used


def _used(facts: Facts, name: str) -> str:
    quota = next(one for one in facts.cluster.quotas_of(facts.namespace) if one.name == name)
    parts = (
        f"{key} {format_amount(key, quota.taken(key))} of {format_amount(key, quota.hard[key])}"
        for key in quota.keys
        if key in quota.hard
    )
    return f"{name}: {', '.join(parts) or 'no limits'}"


def _placed(facts: Facts) -> str:
    pod = facts.pod
    cards = ", ".join(dict.fromkeys(one.uuid for one in pod.slices))
    return f"node {pod.node}" + (f", {cards}" if cards else "")


def evidence_line(one: Evidence) -> str:
    """One line for people."""
    when = f" ({one.at})" if one.at else ""
    return f"{one.object} {one.field}{when}: {one.text}"
