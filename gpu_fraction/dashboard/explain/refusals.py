"""Why a pod was not created, or was created without a GPU: steps 1 to 4.

A refused pod does not exist. What is left of it are Events of its owner, for an hour, and the
owner's template, which is judged again by the webhook's own rules.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from gpu_fraction.dashboard.explain.causes import Finding, found
from gpu_fraction.dashboard.explain.facts import Evidence, Facts, Hook
from gpu_fraction.dashboard.explain.selectors import meets
from gpu_fraction.domain import keys
from gpu_fraction.domain.problems import nearest
from gpu_fraction.domain.request import Refused

OUR_HOOKS: Final = ("mutate.gpu-fraction.dev", "validate.gpu-fraction.dev")

REASONS: Final = ("FailedCreate", "GPUQuotaExceeded")
"""Reasons of an owner's Events: of Kubernetes' controllers (pkg/controller/controller_utils.go,
FailedCreatePodReason), and of our webhook."""

TEXTS: Final[Sequence[tuple[str, str]]] = (
    (r'failed calling webhook "(mutate|validate)\.gpu-fraction\.dev"', "webhook-down"),
    (r"not a known annotation", "annotation-misspelt"),
    (r"does not match its GPU annotations", "rewrite-undone"),
    (r"exceeded GPU quota", "quota-exceeded"),
    (r"failed GPU quota: [^,]*must specify", "quota-needs-size"),
    (r"failed GPU quota", "quota-unusable"),
    (r"GPU quota \S+ is invalid", "quota-unusable"),
    (r"outside GPU quota", "quota-per-pod"),
    (r"insufficient GPU quota", "quota-missing"),
    (r'"required" cannot be honoured', "isolation-refused"),
    (r"the largest eligible GPU has", "larger-than-any-card"),
    (r"metadata\.annotations\[[^\]]*\]: .* is .*; allowed: ", "value-out-of-range"),
    (r'admission webhook "validate\.gpu-fraction\.dev" denied', "webhook-refused"),
    (r"violates PodSecurity", "pod-security"),
    (r"is forbidden: (exceeded|failed) quota", "resource-quota"),
    (r"is forbidden: insufficient quota", "resource-quota"),
    (r"failed calling webhook|admission webhook \"|ValidatingAdmissionPolicy", "other-admission"),
)
"""Texts of refusals, the most telling first. Sources: our own messages; Kubernetes' in
apiserver pkg/admission/plugin/webhook/errors/statuserror.go, pod-security-admission
admission/admission.go and pkg/quota/v1 (run on 1.37.2)."""

_TEXTS: Final = tuple((re.compile(pattern), name) for pattern, name in TEXTS)
_WRAPPED: Final = re.compile(
    r'^Error creating: (?:pods? "[^"]*" is forbidden: )?|admission webhook "[^"]*" denied the '
    r"request: "
)


def cause_of(text: str) -> str:
    """The cause that a message of the API server states."""
    return next((name for pattern, name in _TEXTS if pattern.search(text)), "not-created")


def not_created(facts: Facts) -> Iterator[Finding]:
    """The owner could not create its pod: its last words, else the rules on its template."""
    if facts.exists:
        return
    if facts.idle:
        told = f"it makes no pods now: {facts.idle}"
        yield found("not-wanted", told, facts.seen(*facts.idle.split(" is ")))
        return
    last = next(iter(facts.told(*REASONS)), None)
    if last is not None:
        says = _WRAPPED.sub("", last.message)
        where = f"Event {last.reason} of {last.writer}"
        seen = Evidence(facts.subject, where, last.message, last.at)
        yield found(cause_of(last.message), says, seen)
        return
    yield from _judged(facts)


def problems(facts: Facts) -> tuple[str, ...]:
    """What the webhook's rules say of the pod as its author wrote it."""
    if facts.rewritten:
        return ()
    pod = facts.pod.pod.domain()
    # A scheduler has chosen the node since; its author did not.
    pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=None))
    try:
        facts.webhook.admit(pod)
    except Refused as e:
        return tuple(map(str, e.problems))
    return ()


def _judged(facts: Facts) -> Iterator[Finding]:
    for text in problems(facts):
        path, _, told = text.partition(": ")
        name = cause_of(text)
        name = "webhook-refused" if name == "not-created" else name
        yield found(name, text, facts.seen(path, told))


def never_rewritten(facts: Facts) -> Iterator[Finding]:
    """The pod asks by annotations, and exists without the webhook's work."""
    if not facts.exists or facts.rewritten:
        return
    if not facts.wanted:
        yield from _misspelt(facts)
        return
    scheduler = facts.pod.pod.spec.scheduler_name or ""
    if facts.webhook.leaves(facts.pod.pod.domain()):
        told = f"gpu-fraction does not change pods that {scheduler} schedules"
        yield found("left-to-scheduler", told, facts.seen("spec.schedulerName", scheduler))
        return
    wanted = sorted(key for key in facts.annotations if keys.is_ours(key))
    missing = facts.seen(
        "metadata.annotations", f"has {', '.join(wanted)}, but not {keys.REQUEST}", _created(facts)
    )
    yield from _judged(facts)
    for hook in facts.hooks or ():
        if hook.name in OUR_HOOKS and (why := _excluded(hook, facts.labels)):
            seen = Evidence(
                f"MutatingWebhookConfiguration {hook.configuration}",
                f"webhooks[{hook.name}].namespaceSelector",
                why,
            )
            told = f"the webhook does not look at namespace {facts.namespace}: {why}"
            yield found("namespace-excluded", told, seen, missing)
            return
    told = "the pod has GPU annotations, but the webhook has never seen it"
    if facts.hooks is not None and not facts.hooks:
        told = "no webhook of gpu-fraction is registered: is it installed?"
    yield found("never-rewritten", told, missing)


def _misspelt(facts: Facts) -> Iterator[Finding]:
    """Keys that nobody reads and that look like ours: underscores, a domain, labels."""
    if facts.backend:
        return
    known = (*keys.USER_KEYS, keys.CONTAINER_PREFIX + "<name>")
    meta = facts.raw.get("metadata") or {}
    for place in ("annotations", "labels"):
        for key in meta.get(place) or {}:
            meant = "" if "gpu" not in key.lower() else _like_ours(key, known)
            if meant:
                told = f"metadata.{place}[{key}] is not an annotation of gpu-fraction; {meant}"
                yield found("annotation-misspelt", told, facts.seen(f"metadata.{place}", key))


def _like_ours(key: str, known: Sequence[str]) -> str:
    if key in known:
        return "it has to be an annotation, not a label"
    return nearest(key.rpartition("/")[2].replace("_", "-"), known).removeprefix("; ")


def _created(facts: Facts) -> str:
    return str((facts.raw.get("metadata") or {}).get("creationTimestamp") or "")


def _excluded(hook: Hook, labels: Mapping[str, str] | None) -> str:
    """The requirement that a namespace does not meet; empty where it meets all, or is unknown."""
    if labels is None:
        return ""
    for key, value in (hook.selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return f"{key}={value} is required, the namespace has {labels.get(key, 'none')}"
    for one in hook.selector.get("matchExpressions") or ():
        if not meets(one, labels):
            values = ", ".join(one.get("values") or ())
            return f"{one.get('key')} {one.get('operator')} ({values})".replace(" ()", "")
    return ""


def not_counted(facts: Facts) -> Iterator[Finding]:
    """The pod is admitted, and its quota's controller has not counted it yet."""
    uid = facts.pod.pod.metadata.uid
    for quota in facts.cluster.quotas_of(facts.namespace):
        for one in quota.reserved:
            if uid and one.uid == uid:
                about = f"GPUQuota {facts.namespace}/{quota.name}"
                told = f"{quota.name} holds a reservation for the pod until {one.expires}"
                yield found(
                    "not-counted", told, Evidence(about, "status.reserved", one.uid, one.expires)
                )


RULES: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    not_created,
    never_rewritten,
    not_counted,
)
