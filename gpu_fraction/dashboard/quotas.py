"""A GPUQuota as views show it: what is used, reserved, allowed and free."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_fraction.dashboard.objects import Condition, Quota
from gpu_fraction.domain import amounts, models, units
from gpu_fraction.domain.amounts import Amounts


@dataclass(frozen=True, slots=True)
class Reserved:
    """A pod that was admitted and is not counted yet.

    Attributes:
        uid: The pod's UID.
        name: Its name; empty where the reservation has none.
        expires: When it ends without the pod, RFC 3339.
        amounts: What it adds to the counted use.
    """

    uid: str
    name: str
    expires: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class QuotaView:
    """One GPUQuota; keys and units of amounts as in ``domain.amounts``.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        enforcement: ``Deny``, ``Warn`` or ``Audit``.
        hard: The limits; a missing key is not limited.
        pod_max: The limits of a single pod.
        used: The counted pods; empty until they were counted.
        reserved: Admitted pods that are not counted yet.
        counted: False until the controller has counted for this version of the limits.
        scoped: True where it counts pods of some priority classes only.
        conditions: Ready, Exceeded, NearLimit.
        problems: Amounts that cannot be read, one line each.
    """

    namespace: str
    name: str
    enforcement: str
    hard: Amounts
    pod_max: Amounts
    used: Amounts
    reserved: tuple[Reserved, ...]
    counted: bool
    scoped: bool
    conditions: tuple[Condition, ...]
    problems: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The limited and the used keys: those of all GPUs first, then by model."""
        wanted = self.hard.keys() | {key for key, amount in self.used.items() if amount}
        order = {kind: at for at, kind in enumerate(amounts.KEYS)}

        def place(key: str) -> tuple[str, int]:
            model, kind = amounts.split_key(key)
            return model, order.get(kind, len(order))

        return tuple(sorted(wanted, key=place))

    def pending(self, key: str) -> int:
        """The amount that reservations add."""
        return sum(one.amounts.get(key, 0) for one in self.reserved)

    def taken(self, key: str) -> int:
        """The amount that no other pod can have: used and reserved."""
        return self.used.get(key, 0) + self.pending(key)

    def free(self, key: str) -> int | None:
        """The amount that is left, 0 or more; None where the key is not limited."""
        limit = self.hard.get(key)
        return None if limit is None else max(0, limit - self.taken(key))

    def full_milli(self, key: str) -> int | None:
        """Thousandths of the limit that are taken, may be above 1000; None without a limit."""
        limit, taken = self.hard.get(key), self.taken(key)
        if limit is None:
            return None
        return taken * units.MILLI // limit if limit else units.MILLI * bool(taken)


def quota_view(quota: Quota) -> QuotaView:
    """Read a GPUQuota; never raises, because a status may hold anything."""
    status, problems = quota.status, list[str]()
    hard = _amounts(quota.spec.hard, "spec.hard", problems)
    return QuotaView(
        namespace=quota.metadata.namespace,
        name=quota.metadata.name,
        enforcement=quota.spec.enforcement,
        hard=hard,
        pod_max=_amounts((quota.spec.per_pod or {}).get("max"), "spec.perPod.max", problems),
        used=_amounts(status.used, "status.used", problems),
        reserved=tuple(_reserved(status.reserved or (), problems)),
        counted=status.used is not None
        and status.observed_generation == quota.metadata.generation,
        scoped=bool(quota.spec.scope_selector),
        conditions=tuple(status.conditions or ()),
        problems=tuple(problems),
    )


def _reserved(wire: Iterable[Mapping[str, Any]], problems: list[str]) -> Iterator[Reserved]:
    for at, one in enumerate(wire):
        path = f"status.reserved[{at}]"
        found = _amounts(one, path, problems)
        # Another pod of that name is in ``used`` already; only one of the two exists.
        known = _amounts(one.get("counted"), f"{path}.counted", problems)
        more = {key: max(0, amount - known.get(key, 0)) for key, amount in found.items()}
        uid, name, expires = (str(one.get(k) or "") for k in ("podUID", "podName", "expires"))
        yield Reserved(uid, name, expires, more)


def _amounts(wire: object, path: str, problems: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    if not isinstance(wire, Mapping):
        return found
    models_of = wire.get("models")
    parts = [("", wire), *(models_of.items() if isinstance(models_of, Mapping) else ())]
    for model, part in parts:
        for kind in amounts.KEYS if isinstance(part, Mapping) else ():
            if (value := part.get(kind)) is None:
                continue
            try:
                found[amounts.model_key(model, kind)] = amounts.parse_taken(kind, value)
            except units.UnitError as e:
                problems.append(f"{path}.{amounts.model_key(model, kind)}: {e}")
    return found


def largest_share(quotas: Iterable[QuotaView], model: str, memory_mib: int) -> tuple[int, str]:
    """The largest share of one card that all of these quotas still allow.

    Args:
        quotas: Those of the pod's namespace; a quota of some priority classes counts as well.
        model: The card's product name.
        memory_mib: The card's memory, 1 or more.

    Returns:
        Thousandths, 0 to 1000, and what bounds them: ``QUOTA: KEY``; empty for 1000.
    """
    share, bound = units.MILLI, ""
    for quota in quotas:
        if quota.enforcement != "Deny":
            continue
        bounds = [(key, quota.free(key) or 0) for key in quota.hard]
        bounds += [(f"perPod.max.{key}", amount) for key, amount in quota.pod_max.items()]
        for key, amount in bounds:
            of, kind = amounts.split_key(key.removeprefix("perPod.max."))
            if of and not models.matches(of, model):
                continue
            fits = {
                amounts.CORES: amount,
                amounts.MEMORY: amount * units.MILLI // max(1, memory_mib),
            }.get(kind, units.MILLI * amount)
            if fits < share:
                share, bound = fits, f"{quota.name}: {key}"
    return share, bound
