"""Lifetimes of certificates, their renewal times, and the wait of each step."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from gpu_fraction.certs.certificate import Certificate
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import seconds

MINUTE_S: Final = 60.0
HOUR_S: Final = 60 * MINUTE_S
DAY_S: Final = 24 * HOUR_S
_YEARS_S: Final = 20 * 365 * DAY_S

CA_RENEW_AT: Final = 0.5
"""Share of a CA's life after which its successor is made. Chosen: half a life is left to notice
and fix a rotation that fails."""

LEAF_RENEW_AT: Final = 2 / 3
"""Share of a leaf's life after which it is renewed. Source: cert-manager's default; of 30
days, ten are left for repair."""

LEAF_JITTER: Final = 0.05
"""Largest share of a leaf's life by which a replica renews earlier. Chosen: replicas that start
together do not renew together."""

BACKDATE_S: Final = HOUR_S
"""How far notBefore lies in the past, so that an API server whose clock is behind accepts the
certificate. Source: cert-controller's default, as most certificate controllers have it."""

NOT_READY_BELOW_S: Final = 10 * MINUTE_S
"""A replica whose leaf ends sooner is not ready. Chosen: renewal comes days before."""

CHECK_S: Final = HOUR_S
"""Longest time between two steps of the lease holder. Chosen: the watches deliver every change, so
this finds only changes that a watch lost."""

GONE_AFTER: Final = 4
"""A rotation no longer waits for a replica that misses so many heartbeats; a replica that cannot
reach the API becomes unready before that. Source: Kubernetes' node monitor, 10 s and 40 s."""


class LifetimeError(ValueError):
    """A lifetime or wait is out of its range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Lifetimes and waits, all in seconds and at least 0.

    Attributes:
        ca_life_s: Life of a CA certificate. Chosen: long enough that a cluster whose controller
            is down for months still works; short enough that rotation is exercised.
        leaf_life_s: Life of a serving certificate; never beyond its CA's. Chosen: webhook
            clients check no revocation lists, so a month bounds the use of a stolen key.
        settle_s: Between "every caBundle has the new CA" and the first leaf signed by it. An API
            server receives a caBundle by a watch and does not acknowledge it. Measured on one
            server: 13 ms median, 64 ms at most. Chosen: a thousand times that.
        retire_s: Between "no replica serves the old CA" and its removal from the caBundles.
            Chosen: a day, for a process that was suspended or restored with the old CA.
        heartbeat_s: Time between two reports of a replica; no option, tests shorten it.

    Raises:
        LifetimeError: a value is out of its range, or two contradict each other.
    """

    ca_life_s: float = setting(seconds(10, _YEARS_S), 365 * DAY_S, "life of a CA")
    leaf_life_s: float = setting(seconds(5, _YEARS_S), 30 * DAY_S, "life of a leaf")
    settle_s: float = setting(
        seconds(1, 86400), MINUTE_S, "how long a new CA is trusted before it is used"
    )
    retire_s: float = setting(
        seconds(1, _YEARS_S), DAY_S, "how long an old CA is trusted after its last use"
    )
    heartbeat_s: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0:
                raise LifetimeError(f"{field.name}={value}: a time is at least 0")
        if self.leaf_life_s > self.ca_life_s:
            raise LifetimeError(
                f"leaf_life_s={self.leaf_life_s}: at most ca_life_s ({self.ca_life_s})"
            )
        left_s = self.ca_life_s * (1 - CA_RENEW_AT)
        if self.settle_s >= left_s:
            raise LifetimeError(
                f"settle_s={self.settle_s}: below the {left_s:g} s that a CA has left when its"
                " successor is made"
            )

    @property
    def backdate_s(self) -> float:
        """How far notBefore lies in the past; at most a hundredth of a CA's life."""
        return min(BACKDATE_S, self.ca_life_s / 100)

    @property
    def not_ready_below_s(self) -> float:
        """Life left below which a leaf is not served; at most a twentieth of its life."""
        return min(NOT_READY_BELOW_S, self.leaf_life_s / 20)

    @property
    def replica_gone_s(self) -> float:
        """Seconds without a heartbeat after which a replica no longer counts."""
        return GONE_AFTER * self.heartbeat_s

    def ca_due(self, ca: Certificate) -> datetime:
        """When the successor of a CA is made, UTC."""
        return ca.renew_from(CA_RENEW_AT, self.backdate_s)
