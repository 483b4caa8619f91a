"""Computes the status of a quota from a count, without I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from gpu_fraction.domain import amounts
from gpu_fraction.domain.problems import join
from gpu_fraction.quota import ledger
from gpu_fraction.quota.ledger import Ledger
from gpu_fraction.quota.state import Quota, amounts_wire, reservation_wire
from gpu_fraction.quota.usage import Usage
from gpu_fraction.quota.wire import AMOUNT_UNKNOWN, READY, SET_SIZES, Condition, StatusWire

NEAR_PERCENT: Final = 90
"""Percentage of a budget from which NearLimit is True: chosen, one GPU of ten is left."""

EXCEEDED, NEAR_LIMIT = "Exceeded", "NearLimit"


@dataclass(frozen=True, slots=True)
class Recount:
    """A new count of a quota's pods and claims.

    Attributes:
        usage: The sum.
        ledger: The ledger after the count.
        version: Resource version of the counted pods.
        now: The time of the count, as an API timestamp.
        claims_version: Resource version of the counted claims; empty where none are followed.
    """

    usage: Usage
    ledger: Ledger
    version: str
    now: str
    claims_version: str = ""


def status(quota: Quota, recount: Recount) -> StatusWire:
    """The status to store. A transition time changes only when its condition's status flips."""
    before = {c.type: c for c in quota.wire.status.conditions or ()}
    conditions = []
    for type_, holds, reason, message in _conditions(quota, recount):
        word = "True" if holds else "False"
        old = before.get(type_)
        since = old.last_transition_time if old and old.status == word else recount.now
        conditions.append(
            Condition(
                type=type_,
                status=word,
                reason=reason,
                message=message,
                last_transition_time=since,
                observed_generation=quota.wire.metadata.generation,
            )
        )
    columns = _columns(quota, recount.ledger)
    return StatusWire(
        hard=None if quota.problems else amounts_wire(quota.spec.hard),
        used=amounts_wire(recount.ledger.used),
        reserved=[reservation_wire(uid, r) for uid, r in recount.ledger.reserved.items()] or None,
        columns=columns,
        summary=", ".join(f"{key} {text}" for key, text in columns.items()),
        conditions=conditions,
        observed_generation=quota.wire.metadata.generation,
        pods_resource_version=recount.version,
        claims_resource_version=recount.claims_version,
    )


def same(first: StatusWire, second: StatusWire) -> bool:
    """True where only the versions of pods and claims differ."""
    versions = {"pods_resource_version": "", "claims_resource_version": ""}
    return bool(first.claims_resource_version) is bool(
        second.claims_resource_version
    ) and msgspec.structs.replace(first, **versions) == msgspec.structs.replace(second, **versions)


def _columns(quota: Quota, state: Ledger) -> dict[str, str]:
    """``used/hard`` by key; a key without a limit shows a dash."""
    hard = quota.spec.hard
    return {
        key: f"{amounts.format_amount(key, state.used[key])}/"
        + (amounts.format_amount(key, hard[key]) if key in hard else "-")
        for key in (*amounts.KEYS, *sorted(hard))
    }


def _conditions(quota: Quota, recount: Recount) -> Iterator[tuple[str, bool, str, str]]:
    hard = quota.spec.hard
    unknown = sorted(recount.usage.unknown & hard.keys())
    if quota.problems:
        yield READY, False, "InvalidSpec", join(quota.problems)
    elif unknown:
        yield (
            READY,
            False,
            AMOUNT_UNKNOWN,
            f"counted without {', '.join(unknown)}: the GPUs' memory size is unknown; {SET_SIZES}",
        )
    else:
        yield READY, True, "Counted", "every GPU pod is counted"
    over = () if quota.problems else ledger.over(recount.ledger, hard)
    if over:
        used, limited = (amounts.format_list(of, over) for of in (recount.ledger.used, hard))
        message = (
            f"used: {used}, limited: {limited}; running pods continue, new pods are refused "
            "until enough of them have ended"
        )
        yield EXCEEDED, True, "AboveHard", message
    else:
        yield EXCEEDED, False, "WithinHard", "the used amounts are within the budget"
    near = () if quota.problems else ledger.near(recount.ledger, hard, NEAR_PERCENT)
    yield (
        NEAR_LIMIT,
        bool(near),
        "AlmostFull" if near else "RoomLeft",
        f"{NEAR_PERCENT}% or more is taken of: {', '.join(near)}"
        if near
        else f"less than {NEAR_PERCENT}% is taken of every limit",
    )


def freed(quota: Quota, recount: Recount) -> bool:
    """True where refused pods may fit now."""
    if quota.ledger is None or (quota.memory_unknown and not recount.usage.unknown):
        return True
    was, now = quota.ledger.taken, recount.ledger.taken
    return any(now.get(key, 0) < was.get(key, 0) for key in quota.spec.hard)
