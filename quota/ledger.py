"""The ledger of one quota: used amounts, and reservations for admitted pods.

Pure functions on immutable values. Only these functions change a budget, so ``tests/model`` can
check them in every order of the writers.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from gpu_fraction.domain.amounts import Amounts, add

RESERVATION_S: Final = 45.0
"""Seconds until a reservation without a pod expires. An API server can store a pod for 34 s
after its create began (apiserver endpoints/handlers/rest.go, requestTimeoutUpperBound), and etcd
can finish a write 7 s after that (etcd server/config, ReqTimeout). Chosen: 4 s of margin."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The amounts of one admitted pod until the pod is counted.

    Attributes:
        amounts: By key.
        expires: When it ends, as an API timestamp; for people. The controller measures the time
            with a steady clock, so that no step of the wall clock ends a reservation early.
        name: The pod's name; empty where it is not known.
        counted: What another pod of that name costs in ``used``.
    """

    amounts: Amounts
    expires: str = ""
    name: str = ""
    counted: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The part of a budget that is taken.

    At most one pod of a name exists at a time. So a name costs the maximum of its reservations
    and its counted pod, not their sum (docs/adr/0011).

    Attributes:
        used: The counted pods.
        reserved: Admitted pods by uid that are not counted yet.
        taken: ``used`` plus the amounts that reservations add.
        by_name: Cost of each name with a reservation; part of it may be in ``used``.
    """

    used: Amounts
    reserved: Mapping[str, Reservation] = field(default_factory=dict)
    taken: Amounts = field(init=False)
    by_name: Mapping[str, Amounts] = field(init=False)

    def __post_init__(self) -> None:
        by_name: dict[str, Amounts] = {}
        for reservation in self.reserved.values():
            if reservation.name and reservation.counted:
                by_name[reservation.name] = reservation.counted
        taken = dict(self.used)
        for reservation in self.reserved.values():
            level = by_name.get(reservation.name)
            more = reservation.amounts if level is None else _above(level, reservation.amounts)
            if reservation.name:
                # Nearly every name has one reservation, so that there is nothing to merge.
                by_name[reservation.name] = add(level, more) if level else more
            for key, amount in more.items():
                taken[key] = taken.get(key, 0) + amount
        object.__setattr__(self, "taken", taken)
        object.__setattr__(self, "by_name", by_name)

    @property
    def pending(self) -> Amounts:
        """The amounts that reservations add to ``used``."""
        return _above(self.used, self.taken)


def _above(level: Amounts, amounts: Amounts) -> dict[str, int]:
    """The positive differences between amounts and a level."""
    return {key: more for key, n in amounts.items() if (more := n - level.get(key, 0)) > 0}


def exceeded(ledger: Ledger, hard: Amounts, wanted: Amounts, name: str = "") -> tuple[str, ...]:
    """The keys, sorted, in which a pod of that name does not fit; an exact fit fits.

    Keys that the pod does not use are skipped: an overdrawn budget blocks no pod that needs
    nothing of it (ResourceQuota does the same).
    """
    more = _above(ledger.by_name.get(name, {}), wanted)
    return tuple(
        sorted(
            key
            for key, limit in hard.items()
            if wanted.get(key, 0) > 0 and ledger.taken.get(key, 0) + more.get(key, 0) > limit
        )
    )


def reserve(ledger: Ledger, uid: str, reservation: Reservation) -> Ledger:
    """Add a reservation for a pod; an existing one is kept."""
    if uid in ledger.reserved:
        return ledger
    return Ledger(ledger.used, {**ledger.reserved, uid: reservation})


def recount(
    reserved: Mapping[str, Reservation],
    used: Amounts,
    ended: Container[str],
    by_name: Mapping[str, Amounts],
) -> Ledger:
    """The ledger after a new count of the pods.

    Args:
        reserved: The reservations as stored.
        used: The sum over all pods that were counted.
        ended: The pods whose reservation ends: they are counted, deleted, or can never appear.
        by_name: Cost of counted pods by name, at least of the names with reservations.
    """
    kept = {
        uid: replace(reservation, counted=by_name.get(reservation.name, {}))
        for uid, reservation in reserved.items()
        if uid not in ended
    }
    return Ledger(dict(used), kept)


def over(ledger: Ledger, hard: Amounts) -> tuple[str, ...]:
    """The keys, sorted, in which the counted pods alone are above the budget."""
    return tuple(sorted(k for k, limit in hard.items() if ledger.used.get(k, 0) > limit))


def near(ledger: Ledger, hard: Amounts, share_percent: int) -> tuple[str, ...]:
    """The sorted keys that have at least that percentage of their budget taken."""
    return tuple(
        sorted(
            key
            for key, limit in hard.items()
            if limit and 100 * ledger.taken.get(key, 0) >= share_percent * limit
        )
    )
