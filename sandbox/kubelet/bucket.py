"""The rate limit of the kubelet's PodResources service."""

import time
from collections.abc import Callable


class TokenBucket:
    """100 calls a second, ten in reserve.

    Source: kubernetes pkg/kubelet/apis/podresources/constants.go.
    """

    def __init__(
        self,
        per_second: float = 100.0,
        burst: float = 10.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._now_s = now_s
        self._left = burst
        self._at = now_s()
        self.rejected = 0

    def take(self) -> bool:
        """True where a call may pass."""
        now = self._now_s()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            self.rejected += 1
            return False
        self._left -= 1
        return True
