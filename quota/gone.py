"""The uids of objects that were seen and then deleted, for a while."""

from collections.abc import Callable


class Gone:
    """Deleted objects; their reservations end."""

    def __init__(self, clock: Callable[[], float], remember_s: float) -> None:
        """None yet.

        Args:
            clock: Steady seconds.
            remember_s: Seconds for which a uid is kept.
        """
        self._clock = clock
        self._remember_s = remember_s
        self._since_s: dict[str, float] = {}

    def add(self, uid: str) -> None:
        """Remember an object that was deleted now."""
        now_s = self._clock()
        self._since_s[uid] = now_s
        # The oldest come first.
        for other, since_s in list(self._since_s.items()):
            if now_s - since_s <= self._remember_s:
                break
            del self._since_s[other]

    def __contains__(self, uid: str) -> bool:
        return uid in self._since_s
