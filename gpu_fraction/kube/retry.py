"""Decides which failed requests are repeated, and when."""

import random
from dataclasses import dataclass, field

from gpu_fraction.kube import errors
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.requests import Request


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits between tries, and the time of one try.

    Attributes:
        backoff: waits between the tries, where the server does not name one.
        attempt_timeout_s: seconds for the answer to one try to begin, so that a hung
            connection leaves time for another.
    """

    backoff: Backoff = field(default_factory=lambda: Backoff(initial_s=0.1, cap_s=5.0))
    attempt_timeout_s: float = 10.0

    def wait_s(
        self, request: Request, error: errors.KubeError, failures: int, rng: random.Random
    ) -> float | None:
        """Seconds until the next try, at least a Retry-After plus jitter; None for no try."""
        if not may_repeat(request, error):
            return None
        wait_s = self.backoff.wait_s(failures, rng)
        if error.retry_after_s is None:
            return wait_s
        return error.retry_after_s + self.backoff.jitter * rng.random() * wait_s


def may_repeat(request: Request, error: errors.KubeError) -> bool:
    """True where repeating the request can help and does no harm.

    A Retry-After means that the server did not carry the request out, as in client-go
    (rest/with_retry.go, checkWait).
    """
    match error:
        case errors.TooManyRequestsError():
            return True
        case errors.UnavailableError():
            return request.idempotent or error.retry_after_s is not None
        case errors.TransportError():
            return request.idempotent or not error.started
        case errors.DeadlineError():
            return request.idempotent
        case _:
            return False


def failure_of(failures: list[errors.TransientError]) -> errors.TransientError:
    """The error to raise after one or more failed tries: the last, with its predecessor."""
    last = failures[-1]
    # The server may have started on a try before the last one.
    last.started = any(failure.started for failure in failures)
    if len(failures) == 1 or not isinstance(last, errors.DeadlineError):
        return last
    # Still a DeadlineError, because the server may have carried this try out.
    error = errors.DeadlineError(f"{last}; the try before: {failures[-2]}")
    error.__cause__ = failures[-2]
    return error
