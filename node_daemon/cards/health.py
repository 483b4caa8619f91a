"""The health of the cards as a state machine: events in, a new state out.

Pure: time comes in with each event, and threads, NVML and the Node object are elsewhere.

- A card turns sick at once when it reports a fault, and when it could not be read twice.
- It turns healthy after several good polls in a row: it answers, asks for no recovery action and
  has no repair pending. Each relapse within an hour doubles their number.
- After some faults a reset must have been seen as well: the card was gone or asked for a
  recovery action and then no longer, or its error counters fell.
- ``Clear`` makes it healthy by hand; a fault that lasts makes it sick again at the next poll.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from gpu_fraction.node_daemon.cards.health_events import (
    RECOVERY_ACTIONS,
    Clear,
    Event,
    Fault,
    Poll,
    Target,
    Xid,
    XidClass,
    classify,
)

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
SAVED_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Condition:
    """One reason why a card is sick. ``until_reset``: good polls alone do not end it."""

    text: str
    since_s: float
    until_reset: bool = False


@dataclass(frozen=True, slots=True)
class CardHealth:
    """One card; healthy where it has no conditions.

    Attributes:
        conditions: By cause, oldest first.
        good_polls: In a row, up to now.
        failed_polls: In a row, up to now.
        was_down: The last poll that got an answer found it gone or asking for recovery.
        reset_seen: A reset was seen since the last fault that needs one.
        uncorrected_ecc: As last polled, None where it never was.
        relapses: Times it turned sick soon after it had recovered.
        recovered_s: Time of its last recovery, None where it never was sick.
    """

    conditions: Mapping[str, Condition] = field(default_factory=dict)
    good_polls: int = 0
    failed_polls: int = 0
    was_down: bool = False
    reset_seen: bool = False
    uncorrected_ecc: int | None = None
    relapses: int = 0
    recovered_s: float | None = None

    @property
    def healthy(self) -> bool:
        """True where the card has no conditions."""
        return not self.conditions

    @property
    def reason(self) -> str:
        """All conditions in one line, empty where healthy."""
        return "; ".join(condition.text for condition in self.conditions.values())


@dataclass(frozen=True, slots=True)
class Health:
    """The cards of the node and their health."""

    targets: tuple[Target, ...] = ()
    cards: Mapping[str, CardHealth] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The polls after which a card counts as sick or healthy.

    Attributes:
        good_polls: Needed in a row to recover, 1 or more.
        failed_polls: In a row that make a card sick, 1 or more.
        relapse_window_s: A fault this soon after a recovery is a relapse.
        max_doublings: Relapses that still double the number of good polls.
    """

    good_polls: int = 3
    failed_polls: int = 2
    relapse_window_s: float = 3600.0
    max_doublings: int = 3


@dataclass(frozen=True, slots=True)
class Change:
    """A card that turned sick or healthy, or is sick for another reason than before."""

    uuid: str
    healthy: bool
    reason: str


def watching(state: Health, targets: Iterable[Target]) -> Health:
    """The state for these cards: new ones are healthy, those that are gone are forgotten."""
    kept = tuple(targets)
    return Health(kept, {t.uuid: state.cards.get(t.uuid, CardHealth()) for t in kept})


def step(state: Health, event: Event, now_s: float, policy: HealthPolicy) -> Health:
    """The state after an event at a monotonic time; events of unknown cards change nothing."""
    cards = dict(state.cards)
    for target in state.targets:
        if _concerns(event, target, state.targets):
            before = cards[target.uuid]
            cards[target.uuid] = _relapse(
                before, _react(before, event, now_s, policy), now_s, policy
            )
    return Health(state.targets, cards)


def sick(state: Health) -> dict[str, str]:
    """The sick cards and why."""
    return {uuid: card.reason for uuid, card in state.cards.items() if not card.healthy}


def changes(before: Health, after: Health) -> tuple[Change, ...]:
    """The cards whose health or reason differs, without cards that are new or gone."""
    return tuple(
        Change(uuid, card.healthy, card.reason)
        for uuid, card in after.cards.items()
        if uuid in before.cards and before.cards[uuid].reason != card.reason
    )


def _concerns(event: Event, target: Target, targets: tuple[Target, ...]) -> bool:
    match event:
        case Clear(None):
            return True
        case Clear(frozenset() as uuids):
            return target.uuid in uuids or target.physical in uuids
        case Xid(uuid, _, int(), _) if target.physical == uuid:
            # An instance that is not known here: its error may concern any of them.
            return _same_instance(event, target) or not any(
                t.physical == uuid and _same_instance(event, t) for t in targets
            )
        case Xid(uuid) | Fault(uuid) | Poll(uuid):
            return target.physical == uuid
    return False


def _same_instance(event: Xid, target: Target) -> bool:
    return event.gpu_instance == target.gpu_instance and (
        event.compute_instance in {None, target.compute_instance}
    )


def _react(card: CardHealth, event: Event, now_s: float, policy: HealthPolicy) -> CardHealth:
    match event:
        case Clear():
            return replace(card, conditions={}, failed_polls=0, reset_seen=False)
        case Fault(_, text):
            return _worse(card, text, text, now_s)
        case Poll():
            return _polled(card, event, now_s, policy)
        case Xid(_, xid):
            kind = classify(xid)
            if kind in {XidClass.IGNORED, XidClass.ASK}:
                return card
            return _worse(
                card, f"xid-{xid}", f"XID {xid}", now_s, until_reset=kind is XidClass.UNTIL_RESET
            )


def _worse(
    card: CardHealth, cause: str, text: str, now_s: float, *, until_reset: bool = False
) -> CardHealth:
    old = card.conditions.get(cause)
    condition = Condition(text, old.since_s if old else now_s, until_reset)
    return replace(
        card,
        conditions={**card.conditions, cause: condition},
        good_polls=0,
        reset_seen=card.reset_seen and not until_reset,
    )


def _polled(card: CardHealth, poll: Poll, now_s: float, policy: HealthPolicy) -> CardHealth:
    if poll.error and not poll.lost:
        if not poll.regular:
            return card
        card = replace(card, failed_polls=card.failed_polls + 1, good_polls=0)
        if card.failed_polls < policy.failed_polls:
            return card
        return _worse(card, "unreadable", f"cannot be read: {poll.error}", now_s)
    card = _reset_evidence(replace(card, failed_polls=0), poll)
    standing = tuple(_standing_faults(poll))
    for cause, text in standing:
        card = _worse(card, cause, text, now_s)
    if standing or poll.repair_pending:
        return replace(card, good_polls=0)
    if not poll.regular:
        return card
    return _recovering(replace(card, good_polls=card.good_polls + 1), now_s, policy)


def _standing_faults(poll: Poll) -> Iterator[tuple[str, str]]:
    """Faults that the card shows for as long as they last."""
    if poll.lost:
        yield "lost", f"lost: {poll.lost}"
    if poll.recovery_action:
        action = RECOVERY_ACTIONS.get(poll.recovery_action, f"action {poll.recovery_action}")
        yield "recovery-action", f"the driver requests: {action}"
    if poll.repair_failed:
        yield "repair-failed", "a row remap failed; replace the card"


def _reset_evidence(card: CardHealth, poll: Poll) -> CardHealth:
    down = bool(poll.lost or poll.recovery_action)
    fell = (
        poll.uncorrected_ecc is not None
        and card.uncorrected_ecc is not None
        and poll.uncorrected_ecc < card.uncorrected_ecc
    )
    return replace(
        card,
        was_down=down,
        reset_seen=card.reset_seen or fell or (card.was_down and not down),
        uncorrected_ecc=(
            card.uncorrected_ecc if poll.uncorrected_ecc is None else poll.uncorrected_ecc
        ),
    )


def _recovering(card: CardHealth, now_s: float, policy: HealthPolicy) -> CardHealth:
    needed = policy.good_polls << min(card.relapses, policy.max_doublings)
    if card.healthy or card.good_polls < needed:
        return card
    left = {c: k for c, k in card.conditions.items() if k.until_reset and not card.reset_seen}
    return replace(card, conditions=left, recovered_s=card.recovered_s if left else now_s)


def _relapse(
    before: CardHealth, after: CardHealth, now_s: float, policy: HealthPolicy
) -> CardHealth:
    if not before.healthy or after.healthy or before.recovered_s is None:
        return after
    soon = now_s - before.recovered_s <= policy.relapse_window_s
    return replace(after, relapses=after.relapses + 1 if soon else 0)


class _Saved(msgspec.Struct, frozen=True):
    v: int
    boot: str
    health: Health


_DECODER: Final = msgspec.json.Decoder(_Saved)


def dump(state: Health, boot_id: str) -> bytes:
    """The state as a file's content; its times are monotonic, so they hold within one boot."""
    return msgspec.json.encode(_Saved(v=SAVED_VERSION, boot=boot_id, health=state))


def load(content: bytes, boot_id: str) -> Health:
    """The state kept before; empty where there is none, of another boot, or it is unreadable."""
    try:
        saved = _DECODER.decode(content)
    except msgspec.MsgspecError:
        return Health()
    return saved.health if (saved.v, saved.boot) == (SAVED_VERSION, boot_id) else Health()
