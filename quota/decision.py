"""Whether a pod fits into the quotas of its namespace. Pure: states in, verdict out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain.problems import join
from gpu_fraction.quota import amounts, ledger
from gpu_fraction.quota.amounts import Amounts
from gpu_fraction.quota.charge import Charge, PodFacts, charge
from gpu_fraction.quota.state import Quota
from gpu_fraction.quota.wire import SET_SIZES

ANY: Final = "any"
"""In ``Required.resources``: whatever it limits, some quota must count the pod."""


@dataclass(frozen=True, slots=True)
class Required:
    """What GPU pods may use only where a quota limits it.

    Source: ResourceQuota's limitedResources (kubernetes docs, "Limit Priority Class
    consumption by default").

    Attributes:
        resources: Keys of ``amounts.KEYS``, or ``ANY``; empty for nothing.
        priority_classes: Pods of these classes need a quota that selects the class.
    """

    resources: frozenset[str] = frozenset()
    priority_classes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod does not fit; ``quota`` is empty where there is none."""

    quota: str
    message: str


@dataclass(frozen=True, slots=True)
class Promise:
    """What must be written to a quota before the pod may be admitted."""

    quota: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on one pod.

    Attributes:
        refusals: Why it is refused; empty where it may be admitted.
        warnings: Of quotas that only warn.
        notes: Of quotas that only keep an audit trail.
        promises: What to write; empty where it is refused or has its promises already.
        uncounted: Quotas whose pods the controller has not counted yet.
    """

    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[Refusal, ...] = ()
    notes: tuple[Refusal, ...] = ()
    promises: tuple[Promise, ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """True where the pod may be admitted, which needs no fresh look."""
        return not (self.refusals or self.uncounted)


def decide(facts: PodFacts, quotas: Iterable[Quota], required: Required) -> Outcome:
    """The verdict on one pod against every quota of its namespace.

    All quotas that match must hold. A pod that asks for no GPU concerns no quota.
    """
    if not facts.demand:
        return Outcome()
    refusals: list[Refusal] = []
    # An enforcement that is not known is the strictest one.
    tolerated: dict[str, list[Refusal]] = {"Warn": [], "Audit": []}
    promises, uncounted = [], []
    matching = sorted(
        (q for q in quotas if q.spec.matches(facts.priority_class)), key=lambda q: q.name
    )
    for quota in matching:
        objections: Iterable[str] = ()
        if quota.problems:
            objections = (f"GPU quota {quota.name} is invalid: {join(quota.problems)}",)
        elif quota.ledger is None:
            uncounted.append(quota.name)
        elif facts.uid not in quota.ledger.reserved:  # else this is a repeated review
            cost = charge(facts, quota.spec.models)
            objections = _objections(facts, cost, quota, quota.ledger)
            promises.append(Promise(quota.name, cost.amounts))
        place = tolerated.get(quota.spec.enforcement, refusals)
        place += [Refusal(quota.name, message) for message in objections]
    refusals += _uncovered(facts, matching, required)
    return Outcome(
        refusals=tuple(refusals),
        warnings=tuple(tolerated["Warn"]),
        notes=tuple(tolerated["Audit"]),
        promises=() if refusals or uncounted else tuple(promises),
        uncounted=tuple(uncounted),
    )


def _objections(
    facts: PodFacts, cost: Charge, quota: Quota, state: ledger.Ledger
) -> Iterator[str]:
    spec = quota.spec
    if unspecified := sorted(cost.unknown & {*spec.hard, *spec.pod_max, *spec.pod_min}):
        names = ",".join(sorted(facts.containers)) or "the pod"
        missing = "; ".join(f"{key} for: {names}" for key in unspecified)
        yield (
            f"failed GPU quota: {quota.name}: must specify {missing} "
            "(no GPU's memory size is known; ask for gpu-memory)"
        )
        return
    # What no limit can express is refused also where it is not limited: a promise has every key.
    most = {**dict.fromkeys(cost.amounts, amounts.MAX_AMOUNT), **spec.pod_max}
    yield from _outside(cost.amounts, most, spec.pod_min, quota.name)
    if quota.memory_unknown and any(
        amounts.split_key(key)[1] == amounts.MEMORY and cost.amounts.get(key) for key in spec.hard
    ):
        yield (
            f"failed GPU quota: {quota.name}: the used memory is unknown, because the memory size "
            f"of GPUs in use is unknown to the controller; {SET_SIZES}"
        )
    if not (keys := ledger.exceeded(state, spec.hard, cost.amounts, facts.name)):
        return
    parts = [("requested", cost.amounts), ("used", state.used)]
    if any(state.promised.get(key) for key in keys):
        parts.append(("reserved", state.promised))
    parts.append(("limited", spec.hard))
    texts = (f"{word}: {amounts.format_list(of, keys)}" for word, of in parts)
    yield f"exceeded GPU quota: {quota.name}, {', '.join(texts)}"


def _outside(wanted: Amounts, most: Amounts, least: Amounts, name: str) -> Iterator[str]:
    above = [key for key, bound in most.items() if wanted.get(key, 0) > bound]
    below = [key for key, bound in least.items() if wanted.get(key, 0) < bound]
    for word, keys, bounds in (("maximum", above, most), ("minimum", below, least)):
        if keys:
            yield (
                f"outside GPU quota: {name}, requested: {amounts.format_list(wanted, keys)}, "
                f"{word} per pod: {amounts.format_list(bounds, keys)}"
            )


def _uncovered(facts: PodFacts, matching: list[Quota], required: Required) -> Iterator[Refusal]:
    """What the pod may only use under a quota, and uses without one."""
    if ANY in required.resources and not matching:
        yield Refusal(
            "", "insufficient GPU quota: no GPUQuota of the namespace counts this pod, one must"
        )
    wanted = charge(facts).amounts
    covered = {key for quota in matching for key in quota.spec.hard}
    missing = sorted(
        key for key in required.resources if wanted.get(key, 0) > 0 and key not in covered
    )
    if missing:
        yield Refusal("", f"insufficient GPU quota to consume: {','.join(missing)}")
    name = facts.priority_class
    if name in required.priority_classes and not any(_selects(q) for q in matching):
        yield Refusal(
            "", f"insufficient GPU quota to match these scopes: [{{PriorityClass In [{name}]}}]"
        )


def _selects(quota: Quota) -> bool:
    """Whether the quota, which matches, names priority classes rather than leaving some out."""
    return any(scope.operator in {"In", "Exists"} for scope in quota.spec.scopes)
