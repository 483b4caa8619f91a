"""Refusals of the API server: an HTTP status with a ``Status`` object as its body."""

from http import HTTPStatus
from typing import Any

from gpu_fraction.kube.resources import Resource


class ApiFailure(Exception):  # noqa: N818 - an answer, not a fault of this program
    """An answer other than 2xx.

    Attributes:
        code: HTTP status.
        reason: the Status object's machine-readable word.
        retry_after_s: value of the Retry-After header, or None.
        details: the Status object's details.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        """The Status object."""
        details = dict(self.details)
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": details} if details else {}),
            "code": self.code,
        }


def _details(resource: Resource, name: str) -> dict[str, Any]:
    details = {"name": name, "kind": resource.plural}
    return {**details, "group": resource.group} if resource.group else details


def not_found(resource: Resource, name: str) -> ApiFailure:
    """No such object."""
    return ApiFailure(
        404,
        "NotFound",
        f'{resource.qualified} "{name}" not found',
        details=_details(resource, name),
    )


def no_such_path() -> ApiFailure:
    """No such resource on this server."""
    return ApiFailure(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: Resource, name: str) -> ApiFailure:
    """The name is taken."""
    return ApiFailure(
        409,
        "AlreadyExists",
        f'{resource.qualified} "{name}" already exists',
        details=_details(resource, name),
    )


def conflict(resource: Resource, name: str, why: str) -> ApiFailure:
    """The object is not in the state the caller believes."""
    return ApiFailure(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}',
        details=_details(resource, name),
    )


def changed_meanwhile(resource: Resource, name: str) -> ApiFailure:
    """The resourceVersion is not the current one."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try"
        " again",
    )


def invalid(resource: Resource, name: str, field: str, why: str) -> ApiFailure:
    """A field breaks a rule."""
    return ApiFailure(
        422,
        "Invalid",
        f'{resource.kind}{f".{resource.group}" if resource.group else ""} "{name}" is invalid:'
        f" {field}: {why}",
        details={
            "name": name,
            "kind": resource.kind,
            "causes": [{"reason": "FieldValueInvalid", "message": why, "field": field}],
        },
    )


def invalid_option(options: str, field: str, why: str) -> ApiFailure:
    """A query parameter breaks a rule; ``options`` is the type that parameters are read into."""
    return ApiFailure(422, "Invalid", f'{options}.meta.k8s.io "" is invalid: {field}: {why}')


def forbidden(resource: Resource, name: str, why: str) -> ApiFailure:
    """Not allowed."""
    return ApiFailure(
        403,
        "Forbidden",
        f'{resource.qualified} "{name}" is forbidden: {why}',
        details=_details(resource, name),
    )


def too_new(revision: int, current: int) -> ApiFailure:
    """The version is not there yet."""
    return ApiFailure(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {revision}, current: {current}",
        retry_after_s=1,
        details={"causes": [{"reason": "ResourceVersionTooLarge"}]},
    )


def expired(message: str) -> ApiFailure:
    """The version is older than the history."""
    return ApiFailure(410, "Expired", message)


def bad_request(message: str) -> ApiFailure:
    """The request cannot be understood."""
    return ApiFailure(400, "BadRequest", message)


def of_code(code: int, message: str = "", *, retry_after_s: int | None = None) -> ApiFailure:
    """Any status, with the reason Kubernetes gives it.

    Source: apimachinery pkg/apis/meta/v1/types.go, StatusReason.
    """
    reasons = {
        400: "BadRequest",
        401: "Unauthorized",
        403: "Forbidden",
        404: "NotFound",
        409: "Conflict",
        410: "Expired",
        413: "RequestEntityTooLarge",
        415: "UnsupportedMediaType",
        422: "Invalid",
        429: "TooManyRequests",
        500: "InternalError",
        503: "ServiceUnavailable",
        504: "Timeout",
    }
    text = message or HTTPStatus(code).phrase
    return ApiFailure(code, reasons.get(code, ""), text, retry_after_s=retry_after_s)
