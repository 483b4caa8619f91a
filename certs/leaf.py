"""Which leaf a replica serves: a pure function of what it sees.

A replica moves to another CA only when every caBundle that it sees trusts that CA; else it
keeps what works. It acts alone: its leaf key never leaves the process, and renewing a leaf
writes nothing that another process reads to decide anything.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certs.bundle import Bundle
from certs.certificate import Authority, Leaf
from certs.lifetimes import Lifetimes
from certs.state import CaState, Phase

__all__ = ["Sign", "choose_authority", "renew_at", "trusted_by_all"]


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign a new leaf.

    Attributes:
        authority: With this CA.
        why: For the log.
    """

    authority: Authority
    why: str


def renew_at(leaf: Leaf, replica: str, lifetimes: Lifetimes) -> datetime:
    """When this replica renews its leaf; differs a little from replica to replica."""
    digest = hashlib.sha256(f"{replica}/{leaf.certificate.fingerprint}".encode()).digest()
    early = int.from_bytes(digest[:4], "big") / 2**32 * lifetimes.leaf_jitter
    return leaf.certificate.renew_from(lifetimes.leaf_renew_at - early, lifetimes.backdate_s)


def choose_authority(
    now: datetime,
    state: CaState | None,
    bundles: Sequence[Bundle],
    leaf: Leaf | None,
    renew_from: datetime | None,
    lifetimes: Lifetimes,
    *,
    forced: bool = False,
) -> Sign | None:
    """The CA to sign a new leaf with; None to keep the present one.

    Args:
        now: The time, UTC.
        state: What the Secret holds; None while it does not exist.
        bundles: Every caBundle of every configuration of ours.
        leaf: What is being served; None before the first.
        renew_from: When that leaf is due (see ``renew_at``).
        lifetimes: For the life of a new leaf.
        forced: Somebody has asked for a new leaf.
    """
    if state is None:
        return None
    # The next CA may sign only in Switch: before, an API server may not have seen it yet.
    signing = (state.next, state.current) if state.phase is Phase.SWITCH else (state.current,)
    usable = [a for a in signing if a is not None and not a.certificate.expired(now)]
    trusted = [a for a in usable if trusted_by_all(a.fingerprint, bundles)]
    if leaf is None:
        first = next(iter(trusted or usable), None)
        return Sign(first, "there is none yet") if first is not None else None
    if leaf.certificate.expired(now) or not trusted_by_all(leaf.issuer, bundles):
        return _rescue(now, state, leaf, trusted, usable)
    if state.phase is Phase.SWITCH and trusted and trusted[0].fingerprint != leaf.issuer:
        return _move(state, leaf, trusted[0])
    due = forced or (renew_from is not None and now >= renew_from)
    return _renewal(now, state, leaf, lifetimes, forced=forced) if due else None


def _renewal(
    now: datetime, state: CaState, leaf: Leaf, lifetimes: Lifetimes, *, forced: bool
) -> Sign | None:
    """A successor of the same CA; the leaf of an unknown CA is replaced by a Switch."""
    authority = state.authority(leaf.issuer)
    if authority is None:
        return None
    if forced:
        return Sign(authority, "it was requested")
    until = min(now + timedelta(seconds=lifetimes.leaf_life_s), authority.certificate.not_after)
    # Where the CA itself ends, signing again and again would gain nothing.
    return Sign(authority, "it is due") if until > leaf.certificate.not_after else None


def trusted_by_all(fingerprint: str, bundles: Sequence[Bundle]) -> bool:
    """Whether every caBundle holds this CA; true where there is none."""
    return all(bundle.trusts(fingerprint) for bundle in bundles)


def _move(state: CaState, leaf: Leaf, best: Authority) -> Sign | None:
    """In Switch, to the next CA. A leaf that works is never moved in any other phase."""
    on_next = state.next is not None and leaf.issuer == state.next.fingerprint
    return None if on_next else Sign(best, "its CA is being replaced")


def _rescue(
    now: datetime,
    state: CaState,
    leaf: Leaf,
    trusted: Sequence[Authority],
    usable: Sequence[Authority],
) -> Sign | None:
    """The present leaf does not work; another one may."""
    if leaf.certificate.expired(now):
        best = next(iter(trusted or usable), None)
        return Sign(best, "it has expired") if best is not None else None
    if trusted:
        return Sign(trusted[0], "its CA is not trusted everywhere, another is")
    # Nothing is trusted everywhere: the lease holder is about to publish what is missing, so
    # a leaf of a stored CA is as good as any other.
    if state.authority(leaf.issuer) is None and usable:
        return Sign(usable[0], "its CA is unknown")
    return None
