"""The specification of a GPUQuota, parsed into integers and checked.

The API server checks kinds, scopes and enforcement (the CRD's schema and rules). This module
checks the rest: amounts that are too fine, too large or contradict each other, shares and models.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

from gpu_fraction.domain import amounts, units
from gpu_fraction.domain.amounts import Amounts
from gpu_fraction.domain.problems import Problem, quote
from gpu_fraction.quota.wire import AmountsWire, ModelAmounts, SpecWire

Enforcement = Literal["Deny", "Warn", "Audit"]
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]


@dataclass(frozen=True, slots=True)
class Scope:
    """One requirement on a pod's priority class.

    Source: ResourceQuota's scopeSelector (kubernetes pkg/quota/v1/evaluator/core/pods.go,
    podMatchesSelector).
    """

    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, priority_class: str | None) -> bool:
        """True where a pod of that class, or of none, is counted."""
        if self.operator == "Exists":
            return bool(priority_class)
        if self.operator == "DoesNotExist":
            return not priority_class
        return ((priority_class or "") in self.values) == (self.operator == "In")


@dataclass(frozen=True, slots=True)
class QuotaSpec:
    """A checked specification; amounts as in ``domain.amounts``.

    Attributes:
        hard: The budget; absent keys are not limited, 0 allows nothing.
        pod_max: Upper bounds of one pod.
        pod_min: Lower bounds of one pod.
        default_fraction: Share for pods with an annotation of ours but without a share.
        scopes: Requirements on the counted pods; all must hold.
        enforcement: Deny refuses a pod that does not fit, Warn and Audit admit it.
    """

    hard: Amounts = field(default_factory=dict)
    pod_max: Amounts = field(default_factory=dict)
    pod_min: Amounts = field(default_factory=dict)
    default_fraction: str | None = None
    scopes: tuple[Scope, ...] = ()
    enforcement: Enforcement = "Deny"

    def matches(self, priority_class: str | None) -> bool:
        """True where pods of that priority class are counted."""
        return all(scope.matches(priority_class) for scope in self.scopes)

    @property
    def models(self) -> tuple[str, ...]:
        """The GPU models with limits of their own, sorted."""
        return tuple(sorted({m for key in self.hard if (m := amounts.split_key(key)[0])}))


def parse_spec(wire: SpecWire) -> tuple[QuotaSpec, tuple[Problem, ...]]:
    """The specification and its faults; with faults it must not be used."""
    problems: list[Problem] = []
    hard = _read(wire.hard, "spec.hard", problems)
    problems += _bad_models(wire.hard)
    per_pod = wire.per_pod
    pod_max = _read(per_pod.max, "spec.perPod.max", problems) if per_pod else {}
    pod_min = _read(per_pod.min, "spec.perPod.min", problems) if per_pod else {}
    problems += _crossed(pod_min, pod_max)
    default = per_pod.default_fraction if per_pod else None
    problems += _bad_default(default)
    expressions = (wire.scope_selector.match_expressions if wire.scope_selector else None) or ()
    spec = QuotaSpec(
        hard=hard,
        pod_max=pod_max,
        pod_min=pod_min,
        default_fraction=default,
        scopes=tuple(
            Scope(cast("Operator", e.operator), frozenset(e.values or ())) for e in expressions
        ),
        enforcement=cast("Enforcement", wire.enforcement),
    )
    return spec, tuple(problems)


def _read(wire: ModelAmounts | None, path: str, problems: list[Problem]) -> dict[str, int]:
    found: dict[str, int] = {}
    for model, kind, value in wire.quantities() if wire else ():
        at = f"{path}.models[{quote(model)[1:-1]}]" if model else path
        try:
            found[amounts.model_key(model, kind)] = amounts.parse_amount(kind, value)
        except units.UnitError as e:
            given = quote(str(value))
            problems.append(
                Problem(f"{at}.{kind}", f"{given} is {e.reason}; allowed: {e.allowed}")
            )
    return found


def _bad_models(wire: AmountsWire) -> Iterator[Problem]:
    for model in wire.models or ():
        if not model.strip() or any(c in model for c in ",=\n"):
            yield Problem(
                f"spec.hard.models[{quote(model)[1:-1]}]",
                "not a GPU model; allowed: names such as A100, H100-80GB",
            )


def _crossed(low: Amounts, high: Amounts) -> Iterator[Problem]:
    for kind in sorted(low.keys() & high.keys()):
        if low[kind] > high[kind]:
            yield Problem(
                f"spec.perPod.min.{kind}",
                f"{amounts.format_amount(kind, low[kind])} is more than spec.perPod.max.{kind}, "
                f"{amounts.format_amount(kind, high[kind])}",
            )


def _bad_default(default: str | None) -> Iterator[Problem]:
    if default is None:
        return
    try:
        units.parse_fraction_milli(default)
    except units.UnitError as e:
        yield Problem(
            "spec.perPod.defaultFraction", f"{quote(default)} is {e.reason}; allowed: {e.allowed}"
        )
