"""Why a pod is on no node, as far as the scheduler and the API server show it: step 5."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from gpu_fraction.dashboard.explain import nodes
from gpu_fraction.dashboard.explain.causes import Finding, found
from gpu_fraction.dashboard.explain.facts import DRA, Evidence, Facts
from gpu_fraction.domain import keys
from gpu_fraction.domain.backends import STACKS, is_gpu
from gpu_fraction.domain.pod import resource_names

PLACED_HERE: Final = frozenset({keys.NATIVE, DRA})
"""Backends whose cards the cluster's own objects show."""

SILENT_S: Final = 10
"""Seconds after which a pod that no scheduler has looked at is not looked at. Chosen: schedulers
look within milliseconds, and the clocks of two machines differ by less."""

_EXTENDER: Final = re.compile(r'Post "https?://[^"]*/(filter|prioritize|bind|preempt)"')
_BINDING: Final = re.compile(r"binding to \S+: ")
"""Of the extender (gpu_fraction/scheduler/binding.py): the node is chosen, the Binding fails."""
_NO_CLASS: Final = re.compile(r"device class \S+ does not exist", re.IGNORECASE)


def waits(facts: Facts) -> bool:
    """Whether the pod exists and is on no node."""
    return facts.exists and facts.pod.state == "waiting"


def gated(facts: Facts) -> Iterator[Finding]:
    """Somebody holds the pod back from the scheduler."""
    gates = facts.pod.pod.spec.scheduling_gates or ()
    if waits(facts) and gates:
        names = ", ".join(gate.name for gate in gates)
        yield found(
            "gated", f"the pod is held back by {names}", facts.seen("spec.schedulingGates", names)
        )


def claim_missing(facts: Facts) -> Iterator[Finding]:
    """A template or a claim that the pod names is not there."""
    if not waits(facts):
        return
    event = next(iter(facts.told("FailedResourceClaimCreation")), None)
    made = {s.name for s in facts.pod.pod.status.resource_claim_statuses or ()}
    for at, one in enumerate(facts.pod.pod.spec.resource_claims or ()):
        where = f"spec.resourceClaims[{at}]"
        template = one.resource_claim_template_name
        absent = facts.templates is not None and template not in facts.templates
        if template and one.name not in made and (absent or event is not None):
            seen = [facts.seen(f"{where}.resourceClaimTemplateName", template)]
            if event is not None:
                seen.append(_event(facts, event.reason, event.message, event.at))
            told = f"the ResourceClaimTemplate {template} is not there"
            yield found("claim-missing", told, *seen)
        claims = facts.snapshot.claims
        if (name := one.resource_claim_name) and claims.whole and not _is_there(facts, name):
            told = f"the ResourceClaim {name} is not there"
            yield found("claim-missing", told, facts.seen(f"{where}.resourceClaimName", name))


def _is_there(facts: Facts, claim: str) -> bool:
    return any(
        (one.metadata.namespace, one.metadata.name) == (facts.namespace, claim)
        for one in facts.snapshot.claims.items
    )


def scheduler_down(facts: Facts) -> Iterator[Finding]:
    """Nobody has looked at the pod."""
    pod = facts.pod
    if not waits(facts) or pod.scheduled is not None or pod.pod.spec.scheduling_gates:
        return
    created = pod.pod.metadata.creation_timestamp or ""
    age_s = _age_s(created, facts.snapshot.at)
    if age_s is None or age_s < SILENT_S or any(facts.told("FailedResourceClaimCreation")):
        return
    name = pod.pod.spec.scheduler_name or "default-scheduler"
    seen = [facts.seen("status.conditions[PodScheduled]", "absent", created)]
    for one in facts.cluster.own_pods if name == keys.SCHEDULER else ():
        labels = one.metadata.labels or {}
        if labels.get("app.kubernetes.io/component") == "scheduler":
            ready = one.condition("Ready")
            seen.append(
                Evidence(
                    f"Pod {one.metadata.namespace}/{one.metadata.name}",
                    "status.conditions[Ready]",
                    ready.status if ready else one.status.phase,
                )
            )
    yield found("scheduler-down", f"{name} has not looked at the pod in {age_s:.0f} s", *seen)


def _age_s(text: str, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(text)).total_seconds()
    except (ValueError, TypeError):
        return None


def messages(facts: Facts) -> Iterator[Evidence]:
    """What the scheduler has said of the pod, the latest first."""
    if (word := facts.pod.scheduled) is not None and word.status != "True":
        yield facts.seen(
            "status.conditions[PodScheduled].message",
            word.message or word.reason,
            word.last_transition_time or "",
        )
    for event in facts.told("FailedScheduling"):
        yield _event(facts, event.reason, event.message, event.at)


def _event(facts: Facts, reason: str, message: str, at: str) -> Evidence:
    return Evidence(facts.subject, f"Event {reason}", message, at)


def scheduler_stuck(facts: Facts) -> Iterator[Finding]:
    """The scheduler looks, but something that it needs does not answer or is not there."""
    last = next(iter(messages(facts)), None) if waits(facts) else None
    if last is None:
        return
    if _EXTENDER.search(last.text):
        yield found("extender-down", "the scheduler cannot reach the extender", last)
    if _BINDING.match(last.text):
        yield found("binding-refused", last.text, last)
    if match := _NO_CLASS.search(last.text):
        yield found("device-class-missing", match[0], last)


def not_offered(facts: Facts) -> Iterator[Finding]:
    """No node offers what the pod names, on another stack."""
    if not waits(facts) or facts.backend in PLACED_HERE or not facts.snapshot.nodes.read:
        return
    wanted = sorted(filter(is_gpu, resource_names(facts.pod.pod.domain())))
    for name in wanted:
        offers = [
            node
            for node in facts.snapshot.nodes.items
            if nodes.positive((node.status.allocatable or {}).get(name))
        ]
        if offers:
            continue
        stack = STACKS.get(facts.backend)
        title = stack.about.title if stack else "the stack"
        told = f"no node offers {name}: is the device plugin of {title} running?"
        seen = Evidence("Nodes", f"status.allocatable[{name}]", "0 or absent on every node")
        yield found("resource-not-offered", told, seen, *last_word(facts))


def last_word(facts: Facts) -> Sequence[Evidence]:
    """The latest of it; none where there is none."""
    return [*messages(facts)][:1]


def scheduler_refuses(facts: Facts) -> Iterator[Finding]:
    """What the scheduler says, where nothing else explains it."""
    if waits(facts):
        said = [*messages(facts)]
        if said:
            yield found("scheduler-refuses", said[0].text, *said[:2])


RULES: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    gated,
    claim_missing,
    scheduler_down,
    scheduler_stuck,
    not_offered,
)
"""``scheduler_refuses`` is asked where none of these finds anything."""
