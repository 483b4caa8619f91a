"""Decides whether a pod fits into the quotas of its namespace, without I/O."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gpu_fraction.domain import amounts
from gpu_fraction.domain.amounts import Amounts
from gpu_fraction.domain.problems import join
from gpu_fraction.quota import ledger
from gpu_fraction.quota.charge import Charge, PodFacts, charge
from gpu_fraction.quota.state import Quota
from gpu_fraction.quota.wire import SET_SIZES

ANY: Final = "any"
"""In ``Required.resources``: some quota must count the pod, whatever that quota limits."""


@dataclass(frozen=True, slots=True)
class Required:
    """Resources and priority classes that GPU pods may use only under a quota.

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


class NotReadyError(Exception):
    """No decision can be made now; another try, or another replica, can make it.

    Attributes:
        retry_after_s: Whole seconds after which to ask again.
    """

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """The decision on one pod.

    Attributes:
        refusals: Why it is refused; empty where it may be admitted.
        warnings: Refusals by quotas with enforcement Warn, which refuse nothing.
        notes: Refusals by quotas with enforcement Audit, which refuse nothing.
        reservations: Amounts to reserve, by quota, before the pod is admitted; empty where it is
            refused or has its reservations already.
        uncounted: Quotas whose pods the controller has not counted yet.
    """

    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[Refusal, ...] = ()
    notes: tuple[Refusal, ...] = ()
    reservations: Mapping[str, Amounts] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """True where the pod may be admitted; anything else needs a fresh read first."""
        return not (self.refusals or self.uncounted)


def decide(facts: PodFacts, quotas: Iterable[Quota], required: Required) -> Outcome:
    """The decision on one pod; it must fit into every matching quota of its namespace.

    No quota counts a pod that asks for no GPU.
    """
    if not facts.demand:
        return Outcome()
    refusals: list[Refusal] = []
    # An unknown enforcement counts as Deny.
    tolerated: dict[str, list[Refusal]] = {"Warn": [], "Audit": []}
    reservations: dict[str, Amounts] = {}
    uncounted = []
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
            reservations[quota.name] = cost.amounts
        place = tolerated.get(quota.spec.enforcement, refusals)
        place += [Refusal(quota.name, message) for message in objections]
    refusals += _uncovered(facts, matching, required)
    return Outcome(
        refusals=tuple(refusals),
        warnings=tuple(tolerated["Warn"]),
        notes=tuple(tolerated["Audit"]),
        reservations={} if refusals or uncounted else reservations,
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
    # A reservation has every key, so an amount above every possible limit is always refused.
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
    if any(state.pending.get(key) for key in keys):
        parts.append(("reserved", state.pending))
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
    """Refusals for resources that need a quota and have none."""
    if ANY in required.resources and not matching:
        yield Refusal(
            "",
            "insufficient GPU quota: no GPUQuota of the namespace counts this pod; one must",
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
    """True where a matching quota selects priority classes rather than excluding some."""
    return any(scope.operator in {"In", "Exists"} for scope in quota.spec.scopes)
