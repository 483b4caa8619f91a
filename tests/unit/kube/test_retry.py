"""Requests are repeated only where that can help and cannot do harm."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.backoff import Backoff, TokenBucket
from gpu_fraction.kube.resources import PODS
from gpu_fraction.kube.retry import RetryPolicy, may_repeat

READ = requests.get(PODS.at("p", namespace="a"))
CREATE = requests.create(PODS.at(namespace="a"), {})


@pytest.mark.parametrize(
    ("error", "read", "create"),
    [
        (errors.TooManyRequestsError("x"), True, True),
        (errors.UnavailableError("x"), True, False),
        (errors.UnavailableError("x", retry_after_s=1), True, True),
        (errors.TransportError("refused", sent=False), True, True),
        (errors.TransportError("reset", sent=True), True, False),
        (errors.DeadlineError("x"), True, False),
        (errors.ServerFaultError("x"), False, False),
        (errors.ConflictError("x"), False, False),
        (errors.AlreadyExistsError("x"), False, False),
        (errors.NotFoundError("x"), False, False),
        (errors.ForbiddenError("x"), False, False),
        (errors.GoneError("x"), False, False),
        (errors.MalformedAnswerError("x"), False, False),
    ],
)
def test_what_is_repeated(error: errors.KubeError, *, read: bool, create: bool) -> None:
    """A create is repeated only where the server certainly did not carry it out."""
    assert (may_repeat(READ, error), may_repeat(CREATE, error)) == (read, create)


@given(st.integers(0, 60), st.integers(1, 50), st.integers())
def test_a_named_wait_is_waited_in_full(retry_after_s: int, failures: int, seed: int) -> None:
    """Jitter comes on top of Retry-After, never off it."""
    error = errors.TooManyRequestsError("x", retry_after_s=retry_after_s)
    policy = RetryPolicy()
    wait_s = policy.wait_s(READ, error, failures, random.Random(seed))
    assert wait_s is not None
    assert retry_after_s <= wait_s <= retry_after_s + policy.backoff.cap_s


@given(st.integers(0, 60), st.integers(1, 50), st.lists(st.integers(), min_size=9, unique=True))
def test_clients_that_were_told_one_wait_do_not_come_back_together(
    retry_after_s: int, failures: int, seeds: list[int]
) -> None:
    """A server that turned many away names the same wait to all of them."""
    error = errors.TooManyRequestsError("x", retry_after_s=retry_after_s)
    policy = RetryPolicy()
    waits = {policy.wait_s(READ, error, failures, random.Random(seed)) for seed in seeds}
    assert len(waits) > 1


@given(
    st.floats(0.001, 10),
    st.floats(10, 600),
    st.floats(1, 10),
    st.floats(0, 1),
    st.integers(1, 10_000),
    st.integers(),
)
def test_waits_stay_between_their_bounds(
    initial_s: float, cap_s: float, factor: float, jitter: float, failures: int, seed: int
) -> None:
    """No number of failures overflows the wait or lifts it above the cap."""
    backoff = Backoff(initial_s, cap_s, factor, jitter)
    wait_s = backoff.wait_s(failures, random.Random(seed))
    assert initial_s * (1 - jitter) <= wait_s <= cap_s


def test_waits_grow_to_the_cap() -> None:
    """Without jitter the series is exact."""
    backoff = Backoff(initial_s=0.5, cap_s=3.0, factor=2.0, jitter=0.0)
    waits = backoff.waits_s(random.Random(0))
    assert [next(waits) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_token_bucket_says_how_long_to_wait() -> None:
    """The burst passes at once; then the wait is exact, and a refused use takes nothing."""
    bucket = TokenBucket(burst=2, per_s=0.5)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 2.0]
    assert bucket.take(101.0) == 1.0
    assert bucket.take(102.0) == 0.0
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 2.0]
