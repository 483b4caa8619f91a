"""Answers of the API server become errors by what the caller can do about them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.kube import errors


def status_body(code: int, reason: str, message: str) -> bytes:
    """A Status object as the API server sends it."""
    return msgspec.json.encode(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    )


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", errors.BadRequestError),
        (401, "Unauthorized", errors.UnauthorizedError),
        (403, "Forbidden", errors.ForbiddenError),
        (404, "NotFound", errors.NotFoundError),
        (405, "MethodNotAllowed", errors.BadRequestError),
        (409, "Conflict", errors.ConflictError),
        (409, "AlreadyExists", errors.AlreadyExistsError),
        (410, "Expired", errors.GoneError),
        (410, "Gone", errors.GoneError),
        (422, "Invalid", errors.InvalidError),
        (429, "TooManyRequests", errors.TooManyRequestsError),
        (500, "InternalError", errors.ServerFaultError),
        (503, "ServiceUnavailable", errors.UnavailableError),
        (504, "Timeout", errors.UnavailableError),
        (599, "", errors.UnavailableError),
        (302, "", errors.MalformedAnswerError),
    ],
)
def test_the_status_decides_the_class(
    code: int, reason: str, expected: type[errors.KubeError]
) -> None:
    """Each HTTP status has one class; AlreadyExists is told from other conflicts."""
    error = errors.from_answer(code, {}, status_body(code, reason, "why"))
    assert (type(error), error.status, error.reason, str(error)) == (expected, code, reason, "why")


@given(st.binary(max_size=400), st.sampled_from([400, 401, 403, 404, 409, 500, 503]))
def test_a_body_that_is_no_status_never_shows(body: bytes, code: int) -> None:
    """Pages of proxies, Secrets and garbage stay out of messages."""
    error = errors.from_answer(code, {}, body)
    assert str(error) == f"the API server answered {code} without a Status object"


def test_another_object_is_no_status() -> None:
    """A Secret with a message field is not taken for a Status."""
    body = msgspec.json.encode({"kind": "Secret", "message": "hunter2", "code": 403})
    assert "hunter2" not in str(errors.from_answer(403, {}, body))


@given(st.text(max_size=2000))
def test_messages_are_one_short_line(message: str) -> None:
    """However long and wild the server's text, one line of at most 256 characters is kept."""
    text = str(errors.from_answer(403, {}, status_body(403, "Forbidden", message)))
    assert len(text) <= 256
    assert "\n" not in text


@pytest.mark.parametrize(
    ("header", "expected"),
    [("0", 0.0), ("7", 7.0), ("-1", None), ("soon", None), ("٣", None), ("9" * 99, None)],
)
def test_retry_after_is_whole_seconds(header: str, expected: float | None) -> None:
    """Only a number of seconds counts; dates and nonsense are ignored."""
    error = errors.from_answer(429, {"Retry-After": header}, b"")
    assert error.retry_after_s == expected


def test_a_fault_that_names_a_wait_is_unavailability() -> None:
    """500 with Retry-After is a server that is busy, not one that is broken."""
    assert type(errors.from_answer(500, {}, b"")) is errors.ServerFaultError
    assert type(errors.from_answer(500, {"Retry-After": "1"}, b"")) is errors.UnavailableError


def test_a_watch_error_has_its_code_in_the_status() -> None:
    """An ERROR event carries a Status; its code takes the place of the HTTP status."""
    status = errors.read_status(status_body(410, "Expired", "too old resource version"))
    assert isinstance(errors.from_status(status), errors.GoneError)
