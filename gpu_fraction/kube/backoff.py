"""Waits between tries, and limits of a rate."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow by a factor up to a cap, each spread at random.

    Attributes:
        initial_s: the first wait in seconds.
        cap_s: the longest wait in seconds.
        factor: growth from one wait to the next.
        jitter: random share of each wait, 0 to 1, so that clients that failed together do not
            retry together.
    """

    initial_s: float = 0.2
    cap_s: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5

    def wait_s(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after that many failures in a row, 1 or more."""
        # The exponent is bounded because a float overflows long before the count does.
        grown = self.initial_s * self.factor ** min(failures - 1, 64)
        return min(grown, self.cap_s) * (1 - self.jitter * rng.random())

    def waits_s(self, rng: random.Random) -> Iterator[float]:
        """The endless series of waits."""
        failures = 0
        while True:
            failures += 1
            yield self.wait_s(failures, rng)


@dataclass(slots=True)
class TokenBucket:
    """Limits a rate: it starts full, and each use takes a token.

    Attributes:
        burst: tokens at most, 1 or more.
        per_s: tokens gained per second, above 0.
    """

    burst: int
    per_s: float
    _tokens: float = field(init=False)
    _counted_at_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Fill the bucket."""
        self._tokens = self.burst

    def take(self, now_s: float) -> float:
        """Take a token at a monotonic time in seconds.

        Returns:
            0 if a token was taken; else the seconds until there is one.
        """
        gained = (now_s - self._counted_at_s) * self.per_s
        self._tokens, self._counted_at_s = min(self._tokens + gained, self.burst), now_s
        if self._tokens < 1:
            return (1 - self._tokens) / self.per_s
        self._tokens -= 1
        return 0.0
