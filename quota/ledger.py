"""The ledger of one quota: what is used, and what is promised to admitted pods.

Pure functions on immutable values. Between two writes of a quota's status everything that
touches a budget is one of these functions, which is what ``tests/model`` checks in every order
that the writers can come in.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from gpu_fraction.quota.amounts import Amounts, add

PROMISE_S: Final = 45.0
"""Seconds that a promise lasts where its pod never appears. An API server can store a pod for 34 s
after its create began (apiserver endpoints/handlers/rest.go, requestTimeoutUpperBound), and etcd
can finish a write 7 s after that (etcd server/config, ReqTimeout). Chosen: 4 s of margin."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one admitted pod is promised until it is counted.

    Attributes:
        amounts: By key.
        expires: When it may be dropped, as an API timestamp; for people. The controller
            measures the time itself, so that no step of a clock drops a promise early.
        name: The pod's name; empty where it is not known.
        counted: What another pod of that name costs in ``used``.
    """

    amounts: Amounts
    expires: str = ""
    name: str = ""
    counted: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is taken of a budget.

    At most one pod of a name exists at a time, so that a name costs the most that any of its
    promises or its counted pod comes to, not their sum (docs/adr/0011).

    Attributes:
        used: The counted pods.
        reserved: Admitted pods by uid that are not counted yet.
        taken: What is used and what the promises add to it.
        by_name: What each name with a promise costs; some of it may be in ``used``.
    """

    used: Amounts
    reserved: Mapping[str, Reservation] = field(default_factory=dict)
    taken: Amounts = field(init=False)
    by_name: Mapping[str, Amounts] = field(init=False)

    def __post_init__(self) -> None:
        by_name: dict[str, Amounts] = {}
        for promise in self.reserved.values():
            if promise.name and promise.counted:
                by_name[promise.name] = promise.counted
        taken = dict(self.used)
        for promise in self.reserved.values():
            level = by_name.get(promise.name)
            more = promise.amounts if level is None else _above(level, promise.amounts)
            if promise.name:
                # Nearly every name has one promise, so that there is nothing to merge.
                by_name[promise.name] = add(level, more) if level else more
            for key, amount in more.items():
                taken[key] = taken.get(key, 0) + amount
        object.__setattr__(self, "taken", taken)
        object.__setattr__(self, "by_name", by_name)

    @property
    def promised(self) -> Amounts:
        """What the promises add to ``used``."""
        return _above(self.used, self.taken)


def _above(level: Amounts, amounts: Amounts) -> dict[str, int]:
    """By how much amounts are above a level, where they are."""
    return {key: more for key, n in amounts.items() if (more := n - level.get(key, 0)) > 0}


def exceeded(ledger: Ledger, hard: Amounts, wanted: Amounts, name: str = "") -> tuple[str, ...]:
    """The keys, sorted, in which a pod of that name does not fit; an exact fit fits.

    Keys that the demand does not use are not looked at: a budget that is overdrawn in another
    dimension blocks nobody (ResourceQuota does the same).
    """
    more = _above(ledger.by_name.get(name, {}), wanted)
    return tuple(
        sorted(
            key
            for key, limit in hard.items()
            if wanted.get(key, 0) > 0 and ledger.taken.get(key, 0) + more.get(key, 0) > limit
        )
    )


def reserve(ledger: Ledger, uid: str, promise: Reservation) -> Ledger:
    """Make a promise to a pod; a pod that has a promise keeps the one it has."""
    if uid in ledger.reserved:
        return ledger
    return Ledger(ledger.used, {**ledger.reserved, uid: promise})


def recount(
    reserved: Mapping[str, Reservation],
    used: Amounts,
    ended: Container[str],
    by_name: Mapping[str, Amounts],
) -> Ledger:
    """The ledger after a new count of the pods.

    Args:
        reserved: The promises as stored.
        used: The sum over all pods that were counted.
        ended: The pods whose promise is kept or void: they are counted, were there and are gone,
            or can never come.
        by_name: What counted pods cost, at least those whose names have promises.
    """
    kept = {
        uid: replace(promise, counted=by_name.get(promise.name, {}))
        for uid, promise in reserved.items()
        if uid not in ended
    }
    return Ledger(dict(used), kept)


def over(ledger: Ledger, hard: Amounts) -> tuple[str, ...]:
    """The keys, sorted, in which the counted pods alone are above the budget."""
    return tuple(sorted(k for k, limit in hard.items() if ledger.used.get(k, 0) > limit))


def near(ledger: Ledger, hard: Amounts, share_percent: int) -> tuple[str, ...]:
    """The keys, sorted, in which that part of the budget, or more, is taken."""
    return tuple(
        sorted(
            key
            for key, limit in hard.items()
            if limit and 100 * ledger.taken.get(key, 0) >= share_percent * limit
        )
    )
