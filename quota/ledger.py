"""The ledger of one quota: what is used, and what is promised to admitted pods.

Pure functions on immutable values. Between two writes of a quota's status everything that
touches a budget is one of these functions, which is what ``tests/model`` checks in every order
that the writers can come in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quota.amounts import Amounts

__all__ = ["Ledger", "Reservation", "exceeded", "recount", "reserve"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one admitted pod is promised until it is counted.

    Attributes:
        amounts: By key.
        expires: When it may be dropped, as an API timestamp; for people. The controller
            measures the time itself, so that no step of a clock drops a promise early.
    """

    amounts: Amounts
    expires: str = ""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is taken of a budget.

    Attributes:
        used: The counted pods.
        reserved: Admitted pods by uid that are not counted yet.
        taken: The sum of both.
    """

    used: Amounts
    reserved: Mapping[str, Reservation] = field(default_factory=dict)
    taken: Amounts = field(init=False)

    def __post_init__(self) -> None:
        total = dict(self.used)
        for reservation in self.reserved.values():
            for key, amount in reservation.amounts.items():
                total[key] = total.get(key, 0) + amount
        object.__setattr__(self, "taken", total)


def exceeded(ledger: Ledger, hard: Amounts, wanted: Amounts) -> tuple[str, ...]:
    """The keys, sorted, in which the demand does not fit; an exact fit fits.

    Keys that the demand does not use are not looked at: a budget that is overdrawn in another
    dimension blocks nobody (ResourceQuota does the same).
    """
    return tuple(
        sorted(
            key
            for key, limit in hard.items()
            if (asked := wanted.get(key, 0)) > 0 and ledger.taken.get(key, 0) + asked > limit
        )
    )


def reserve(ledger: Ledger, uid: str, wanted: Amounts, expires: str = "") -> Ledger:
    """Promise the amounts to a pod; a pod that has a promise keeps the one it has."""
    if uid in ledger.reserved:
        return ledger
    return Ledger(ledger.used, {**ledger.reserved, uid: Reservation(dict(wanted), expires)})


def recount(ledger: Ledger, used: Amounts, settled: Callable[[str], bool]) -> Ledger:
    """Take over a new count of the pods.

    Args:
        ledger: The ledger as stored.
        used: The sum over all pods of the view.
        settled: Whether a pod's promise is kept or void: the pod is in the view, was in it,
            or can never appear in it any more.
    """
    kept = {uid: r for uid, r in ledger.reserved.items() if not settled(uid)}
    return Ledger(dict(used), kept)


def headroom(ledger: Ledger, hard: Amounts) -> dict[str, int]:
    """What is left by limited key; negative where the budget is overdrawn."""
    return {key: limit - ledger.taken.get(key, 0) for key, limit in hard.items()}


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
