"""How long certificates live, when they are renewed, and how long each step waits."""

from dataclasses import dataclass, fields
from typing import Final

from certs.errors import LifetimeError

__all__ = ["Lifetimes"]

MINUTE_S: Final = 60.0
HOUR_S: Final = 60 * MINUTE_S
DAY_S: Final = 24 * HOUR_S

# Chosen: long enough that a cluster whose controller is down for months still works; short
# enough that rotation is exercised. Trust anchors of 90 days have caused outages, anchors of
# 100 years are never replaced and nobody knows how.
CA_LIFE_S: Final = 365 * DAY_S
# Chosen: half a life is left to notice and repair whatever stops a rotation.
CA_RENEW_AT: Final = 0.5
# Chosen: a leaf key never leaves its process, so a leaf is cheap; a month bounds the use of
# a stolen one, because webhook clients check no revocation lists.
LEAF_LIFE_S: Final = 30 * DAY_S
# Chosen: two thirds, as cert-manager does; ten days are left for repair.
LEAF_RENEW_AT: Final = 2 / 3
# Chosen: replicas that were started together do not renew together.
LEAF_JITTER: Final = 0.05
# notBefore lies in the past so that an API server whose clock is behind accepts the
# certificate. Chosen: one hour, what most certificate controllers of the field use.
BACKDATE_S: Final = HOUR_S
# Every API server learns of a new caBundle through its own watch and acknowledges nothing.
# Measured on one server: 13 ms median, 64 ms at most. Chosen: a thousand times that, which
# also covers a watch that has to be opened again.
SETTLE_S: Final = MINUTE_S
# Chosen: a day in which the old CA stays trusted although nobody serves it, for a process
# that was stopped, suspended or restored with it.
RETIRE_S: Final = DAY_S
# A replica renews its Lease this often ...
PRESENCE_S: Final = 10.0
# ... and one that has not for this long no longer holds up a rotation; a replica that cannot
# reach the API reports itself not ready before that. Chosen: what Kubernetes gives a Node.
REPLICA_GONE_S: Final = 40.0
# Chosen: nothing here needs to be noticed sooner than a watch event tells.
CHECK_S: Final = HOUR_S
# A replica whose leaf is this close to its end reports itself not ready.
NOT_READY_BELOW_S: Final = 10 * MINUTE_S
# Warnings when this share of a certificate's life is left. Renewal happens well before both,
# so a warning always means that something stopped it.
WARN_AT: Final = (0.25, 0.10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Lifetimes, renewal points and waits; all times in seconds, all points shares of a life.

    Attributes:
        ca_life_s: Life of a CA certificate.
        ca_renew_at: Share of a CA's life after which its successor is staged.
        leaf_life_s: Life of a serving certificate; never beyond its CA's.
        leaf_renew_at: Share of a leaf's life after which it is signed anew.
        leaf_jitter: Up to this share of a leaf's life earlier, different for each replica.
        backdate_s: How far notBefore lies in the past.
        settle_s: Between "every caBundle has the new CA" and the first leaf signed by it.
        retire_s: Between "no replica serves the old CA" and its removal from the caBundles.
        presence_s: How often a replica says what it serves.
        replica_gone_s: Silence after which a replica no longer counts.
        check_s: At most this long between two looks at everything.
        not_ready_below_s: Remaining life below which a replica is not ready.
        warn_at: Shares of life left at which a warning is given, highest first.

    Raises:
        LifetimeError: a value is out of its range, or two contradict each other.
    """

    ca_life_s: float = CA_LIFE_S
    ca_renew_at: float = CA_RENEW_AT
    leaf_life_s: float = LEAF_LIFE_S
    leaf_renew_at: float = LEAF_RENEW_AT
    leaf_jitter: float = LEAF_JITTER
    backdate_s: float = BACKDATE_S
    settle_s: float = SETTLE_S
    retire_s: float = RETIRE_S
    presence_s: float = PRESENCE_S
    replica_gone_s: float = REPLICA_GONE_S
    check_s: float = CHECK_S
    not_ready_below_s: float = NOT_READY_BELOW_S
    warn_at: tuple[float, ...] = WARN_AT

    def __post_init__(self) -> None:
        """Refuse what could never work, with the field, the value and what is allowed."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_s") and value < 0:
                raise LifetimeError(f"{field.name}={value}: a time is at least 0")
            if field.name.endswith("_at") and field.name != "warn_at" and not 0 < value < 1:
                raise LifetimeError(f"{field.name}={value}: a share of a life is in (0, 1)")
        if any(not 0 < share < 1 for share in self.warn_at):
            raise LifetimeError(f"warn_at={self.warn_at}: shares of a life are in (0, 1)")
        if not 0 <= self.leaf_jitter < self.leaf_renew_at:
            raise LifetimeError(
                f"leaf_jitter={self.leaf_jitter}: allowed is 0 up to leaf_renew_at"
                f" ({self.leaf_renew_at})"
            )
        if self.leaf_life_s > self.ca_life_s:
            raise LifetimeError(
                f"leaf_life_s={self.leaf_life_s}: at most ca_life_s ({self.ca_life_s})"
            )
        left_s = self.ca_life_s * (1 - self.ca_renew_at)
        if self.settle_s >= left_s:
            raise LifetimeError(
                f"settle_s={self.settle_s}: below the {left_s:g} s that a CA has left when its"
                " successor is staged"
            )
        if self.presence_s * 2 > self.replica_gone_s:
            raise LifetimeError(
                f"presence_s={self.presence_s}: at most half of replica_gone_s"
                f" ({self.replica_gone_s}), so that one lost renewal is forgiven"
            )
        left_s = self.leaf_life_s * (1 - self.leaf_renew_at)
        if self.not_ready_below_s >= left_s:
            raise LifetimeError(
                f"not_ready_below_s={self.not_ready_below_s}: below the {left_s:g} s that a leaf"
                " has left when it is renewed"
            )
