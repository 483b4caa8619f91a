"""Waits for what comes true soon, as informers and controllers make it."""

import time
from collections.abc import Callable
from typing import TypeVar

TIMEOUT_S = 120
"""Chosen: beyond anything that still comes true on a machine with two busy processors."""
_POLL_S = 0.02
T = TypeVar("T")


def wait_for(condition: Callable[[], T | None]) -> T:
    """What the condition returns once it is true.

    Raises:
        TimeoutError: it stays false.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true after {TIMEOUT_S} s")
        time.sleep(_POLL_S)
    return found
