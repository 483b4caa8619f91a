"""AdmissionReview v1 on the wire: decoding of requests and encoding of answers.

Source: k8s.io/api/admission/v1; the answer's rules from
apiserver/pkg/admission/plugin/webhook/request/admissionreview.go.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec

from gpu_fraction.domain.pod import Pod

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"

MAX_WARNINGS: Final = 12
MAX_WARNING_CHARS: Final = 250
"""The API server cuts each to 256 and all to 4096 (apiserver endpoints/filters/warning.go)."""

MAX_MESSAGE_CHARS: Final = 2000
"""Chosen: refusals appear on terminals and in events, which hold 1024 characters."""

MAX_REASON_CHARS: Final = 300
"""Chosen: any client can call, and the faulty part may be megabytes long."""


T = TypeVar("T")


class BadReview(Exception):  # noqa: N818 - named for what it is about
    """The call is not a usable AdmissionReview; the caller is at fault, not the user."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:MAX_REASON_CHARS])


class UserInfo(msgspec.Struct, frozen=True):
    """The user of a request."""

    username: str = ""


class GroupResource(msgspec.Struct, frozen=True):
    """The resource of a request."""

    group: str = ""
    resource: str = ""


class AdmissionRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The request of a review; its objects are decoded on demand."""

    uid: str
    operation: str
    resource: GroupResource
    sub_resource: str | None = None
    name: str | None = None
    namespace: str | None = None
    user_info: UserInfo = UserInfo()
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")
    dry_run: bool | None = None


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: AdmissionRequest


class _BindingMetadata(msgspec.Struct, frozen=True):
    annotations: dict[str, str] | None = None


class BindingObject(msgspec.Struct, frozen=True):
    """A Binding; the API server merges its annotations into the pod."""

    metadata: _BindingMetadata = _BindingMetadata()


_REVIEW: Final = msgspec.json.Decoder(_Review)
_POD: Final = msgspec.json.Decoder(Pod)
_BINDING: Final = msgspec.json.Decoder(BindingObject)
_ENCODER: Final = msgspec.json.Encoder()


def decode(body: bytes) -> AdmissionRequest:
    """Decode the request of a review.

    Raises:
        BadReview: not JSON, another kind or version, or no request.
    """
    try:
        return _REVIEW.decode(body).request
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise BadReview(f"not an {API_VERSION} {KIND}: {e}") from e


def decode_pod(raw: msgspec.Raw, field: str) -> Pod:
    """Decode the pod in a field of a review.

    Raises:
        BadReview: the field is missing or is not a pod.
    """
    return _decode(_POD, raw, f"{field} is not a Pod")


def decode_binding(raw: msgspec.Raw) -> BindingObject:
    """Decode the Binding of a review.

    Raises:
        BadReview: the object is missing or is not a Binding.
    """
    return _decode(_BINDING, raw, "object is not a Binding")


def _decode(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw, fault: str) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise BadReview(f"request.{fault}: {e}") from e


class Answer(msgspec.Struct, frozen=True):
    """The answer to a review.

    Attributes:
        allowed: Whether the request is admitted.
        message: Why the request is refused.
        patch: The JSON patch in base64, from mutating calls only; empty for none.
        warnings: For the user.
        audit: Audit annotations.
    """

    allowed: bool
    message: str = ""
    patch: str = ""
    warnings: Sequence[str] = ()
    audit: Mapping[str, str] = {}


def encode_patch(operations: Sequence[Mapping[str, Any]]) -> str:
    """Encode a JSON patch in base64; empty for no operations."""
    return base64.b64encode(_ENCODER.encode(operations)).decode() if operations else ""


def encode(uid: str, answer: Answer) -> bytes:
    """Encode an answer as a review.

    A refusal is 403 Forbidden, like ResourceQuota's: kubectl hides the message of a 422, and
    clients retry after 429 and 409.
    """
    response: dict[str, Any] = {"uid": uid, "allowed": answer.allowed}
    if answer.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = answer.patch
    if answer.warnings:
        response["warnings"] = [w[:MAX_WARNING_CHARS] for w in answer.warnings[:MAX_WARNINGS]]
    if answer.audit:
        response["auditAnnotations"] = answer.audit
    if not answer.allowed:
        response["status"] = {
            "status": "Failure",
            "reason": "Forbidden",
            "code": 403,
            "message": answer.message[:MAX_MESSAGE_CHARS],
        }
    return _ENCODER.encode({"apiVersion": API_VERSION, "kind": KIND, "response": response})
