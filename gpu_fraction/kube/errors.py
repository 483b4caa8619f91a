"""Errors of requests to the API server, grouped by the caller's remedy.

::

    KubeError
    ├── TransientError            the same request may succeed later
    │   ├── TooManyRequestsError  429; the server did not start on it
    │   ├── UnavailableError      502, 503, 504, or any 5xx that names a Retry-After
    │   ├── ServerFaultError      500: also a webhook that failed; not retried
    │   ├── TransportError        no answer: refused, reset, TLS, name resolution
    │   └── DeadlineError         no answer in the caller's time
    ├── ConflictError             409: another client wrote first; read again
    ├── AlreadyExistsError        409 on create
    ├── GoneError                 410: the version or continuation is too old; list again
    ├── NotFoundError             404
    ├── RefusedError              the request is wrong; repeating it is pointless
    │   ├── UnauthorizedError     401
    │   ├── ForbiddenError        403: RBAC, quota or a webhook refused
    │   ├── InvalidError          422: the object breaks its schema or a rule
    │   └── BadRequestError       any other 4xx
    └── MalformedAnswerError      2xx, but not the requested JSON
    LeaseLostError                another replica leads, or may soon

This package raises no exceptions of aiohttp. Only the text of a ``Status`` object gets into a
message, cut to 256 characters, because any other body may be a proxy's page or a Secret.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

MESSAGE_LIMIT: Final = 256
"""Characters kept of a server's message. Chosen: a sentence fits, a dumped object does not."""


class KubeError(Exception):
    """Any failure of a request to the API server.

    Attributes:
        status: HTTP status, or 0 where there was no answer.
        reason: the machine-readable word of the Status object, such as ``NotFound``.
        retry_after_s: seconds the server asked to wait, where it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(shorten(message))
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class TransientError(KubeError):
    """The same request may succeed later.

    Attributes:
        started: False where the server certainly did not start on any try of the request.
    """

    started = True


class TooManyRequestsError(TransientError):
    """429: the server refused to start on the request."""

    started = False


class UnavailableError(TransientError):
    """The server, or a proxy before it, cannot answer now."""


class ServerFaultError(TransientError):
    """500: a fault in the server or in a webhook it called."""


class TransportError(TransientError):
    """No answer arrived."""

    def __init__(self, message: str, *, sent: bool) -> None:
        """``sent`` is False where the request certainly never left, so repeating it is safe."""
        super().__init__(message)
        self.started = sent


class DeadlineError(TransientError):
    """No answer within the caller's time; the request may or may not have been carried out."""


class ConflictError(KubeError):
    """409: the object changed since it was read, or a precondition does not hold."""


class AlreadyExistsError(KubeError):
    """409 on create: the name is taken."""


class GoneError(KubeError):
    """410: the resource version or the continuation token is older than the server's history."""


class NotFoundError(KubeError):
    """404: the object, or its resource, does not exist on this server."""


class RefusedError(KubeError):
    """Repeating the same request is pointless."""


class UnauthorizedError(RefusedError):
    """401: the credentials are missing, wrong or expired."""


class ForbiddenError(RefusedError):
    """403: RBAC, an admission plugin or a webhook refused."""


class InvalidError(RefusedError):
    """422: the object breaks its schema or a validation rule."""


class BadRequestError(RefusedError):
    """Any other 4xx."""


class MalformedAnswerError(KubeError):
    """A 2xx answer, or a watch line, that is not the requested JSON."""


class LeaseLostError(Exception):
    """Another replica leads, or may soon: this one must stop its work."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of metav1.Status that are read; anything else in an answer is ignored."""

    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0


_BY_STATUS: Final[dict[int, type[KubeError]]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
    500: ServerFaultError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}

_STATUS_DECODER: Final = msgspec.json.Decoder(Status)


def shorten(message: str) -> str:
    """The message on one line, cut to 256 characters.

    The middle is left out: the cause stands at the end, as in "failed calling webhook: ... EOF".
    """
    line = " ".join(message.split())
    half = (MESSAGE_LIMIT - 5) // 2
    return line if len(line) <= MESSAGE_LIMIT else f"{line[:half]} ... {line[-half:]}"


def from_answer(http_status: int, headers: Mapping[str, str], body: bytes) -> KubeError:
    """The error for an answer whose HTTP status is not 2xx."""
    return from_status(
        read_status(body),
        http_status=http_status,
        retry_after_s=_retry_after_s(headers),
    )


def from_status(
    status: Status, *, http_status: int = 0, retry_after_s: float | None = None
) -> KubeError:
    """The error for a Status object; in a watch it is an event, without an HTTP status."""
    code = http_status or status.code
    kind = _BY_STATUS.get(code)
    if kind is None:
        kind = _by_class(code)
    if kind is ConflictError and status.reason == "AlreadyExists":
        kind = AlreadyExistsError
    elif kind is ServerFaultError and retry_after_s is not None:
        kind = UnavailableError
    return kind(
        status.message or f"the API server answered {code} without a Status object",
        status=code,
        reason=status.reason,
        retry_after_s=retry_after_s,
    )


def _by_class(code: int) -> type[KubeError]:
    if code >= 500:
        return UnavailableError
    return BadRequestError if code >= 400 else MalformedAnswerError


def read_status(body: bytes) -> Status:
    """The Status object in a body, or an empty one where the body is anything else."""
    try:
        status = _STATUS_DECODER.decode(body)
    except msgspec.MsgspecError:
        return Status()
    return status if status.kind == "Status" else Status()


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The Retry-After header in seconds.

    The API server sends whole seconds only (apiserver/pkg/endpoints/handlers/responsewriters);
    the date form of RFC 9110 is a proxy's and is ignored.
    """
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) <= 5 else None
