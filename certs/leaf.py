"""Chooses the leaf that a replica serves, from the Secret, the caBundles and the time.

A replica moves to another CA only when every caBundle that it sees trusts that CA. It needs no
coordination: its leaf key never leaves the process, and no other process depends on a renewal.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpu_fraction.certs.bundle import Bundle
from gpu_fraction.certs.certificate import Authority, Leaf
from gpu_fraction.certs.lifetimes import LEAF_JITTER, LEAF_RENEW_AT, Lifetimes
from gpu_fraction.certs.state import CaState, Phase


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that serves, as it reports itself.

    Attributes:
        name: Its name.
        issuer: Fingerprint of the CA that signed its leaf; empty before the first leaf.
        leaf_not_after: The end of that leaf, UTC.
    """

    name: str
    issuer: str = ""
    leaf_not_after: datetime | None = None

    def serves(self, now: datetime) -> bool:
        """Whether it serves a leaf that has not expired."""
        return bool(self.issuer) and self.leaf_not_after is not None and now < self.leaf_not_after


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign a new leaf.

    Attributes:
        authority: The CA that signs.
        why: The reason, for the log.
    """

    authority: Authority
    why: str


def renew_at(leaf: Leaf, replica: str, lifetimes: Lifetimes) -> datetime:
    """When this replica renews its leaf; slightly different for each replica."""
    digest = hashlib.sha256(f"{replica}/{leaf.certificate.fingerprint}".encode()).digest()
    early = int.from_bytes(digest[:4], "big") / 2**32 * LEAF_JITTER
    return leaf.certificate.renew_from(LEAF_RENEW_AT - early, lifetimes.backdate_s)


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
    """The CA to sign a new leaf with; None to keep the current leaf.

    Args:
        now: The time, UTC.
        state: The content of the Secret; None while it does not exist.
        bundles: Every caBundle of every configuration of ours.
        leaf: The leaf that is served; None before the first.
        renew_from: When that leaf is due (see ``renew_at``).
        lifetimes: For the life of a new leaf.
        forced: True where a person requested a new leaf.
    """
    if state is None:
        return None
    # The next CA signs only in Switch, because before that an API server may not trust it yet.
    signing = (state.next, state.current) if state.phase is Phase.SWITCH else (state.current,)
    usable = [a for a in signing if a is not None and not a.certificate.expired(now)]
    trusted = [a for a in usable if _trusted_by_all(a.fingerprint, bundles)]
    best = next(iter(trusted or usable), None)
    if leaf is None or leaf.certificate.expired(now):
        why = "there is none yet" if leaf is None else "it has expired"
        return Sign(best, why) if best is not None else None
    if not _trusted_by_all(leaf.issuer, bundles):
        return _rescue(state, leaf, trusted, usable)
    # A leaf that works moves to another CA only in Switch, and stays on the next one.
    on_next = state.next is not None and leaf.issuer == state.next.fingerprint
    if state.phase is Phase.SWITCH and trusted and trusted[0].fingerprint != leaf.issuer:
        return None if on_next else Sign(trusted[0], "its CA is being replaced")
    due = forced or (renew_from is not None and now >= renew_from)
    return _renewal(now, state, leaf, lifetimes, forced=forced) if due else None


def _renewal(
    now: datetime, state: CaState, leaf: Leaf, lifetimes: Lifetimes, *, forced: bool
) -> Sign | None:
    """A new leaf of the same CA; a Switch replaces the leaf of an unknown CA."""
    authority = state.authority(leaf.issuer)
    if authority is None:
        return None
    if forced:
        return Sign(authority, "it was requested")
    until = min(now + timedelta(seconds=lifetimes.leaf_life_s), authority.certificate.not_after)
    # A new leaf that ends with its CA would end no later than this one.
    return Sign(authority, "it is due") if until > leaf.certificate.not_after else None


def _rescue(
    state: CaState, leaf: Leaf, trusted: Sequence[Authority], usable: Sequence[Authority]
) -> Sign | None:
    """A leaf of another CA, where the current leaf is not trusted everywhere."""
    if trusted:
        return Sign(trusted[0], "its CA is not trusted everywhere, another is")
    # No CA is trusted everywhere. The lease holder is about to publish the stored CAs, so a leaf
    # of any of them will do.
    if state.authority(leaf.issuer) is None and usable:
        return Sign(usable[0], "its CA is unknown")
    return None


def _trusted_by_all(fingerprint: str, bundles: Sequence[Bundle]) -> bool:
    """Whether every caBundle holds this CA; true where there is none."""
    return all(bundle.trusts(fingerprint) for bundle in bundles)
