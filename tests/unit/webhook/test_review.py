"""The review on the wire: what is read, what is answered, and the bounds of both."""

import base64
import json
from typing import Any

import pytest

from gpu_fraction.webhook.review import Answer, BadReview, decode, decode_pod, encode, encode_patch
from tests.builders.pods import pod
from tests.support.reviews import body, changed, review


def response(answer: Answer, uid: str = "u-1") -> dict[str, Any]:
    """The response as the API server reads it."""
    whole = json.loads(encode(uid, answer))
    assert (whole["apiVersion"], whole["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    made: dict[str, Any] = whole["response"]
    return made


def test_only_what_is_needed_is_required() -> None:
    """Unknown fields are other versions' business; absent ones have defaults."""
    asked = decode(
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","new":{},"request":{"uid":'
        b'"1","operation":"CREATE","resource":{"resource":"pods","version":"v9"},"newer":[1]}}'
    )
    assert (asked.uid, asked.operation, asked.sub_resource) == ("1", "CREATE", None)
    assert (asked.user_info.username, asked.dry_run, asked.namespace) == ("", None, None)


def test_nulls_are_absent() -> None:
    """Go writes both."""
    raw = changed(
        review(pod()), name=None, namespace=None, subResource=None, dryRun=None, oldObject=None
    )
    assert decode(body(raw)).dry_run is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'"AdmissionReview"', id="text"),
        pytest.param(b"\xff\xfe{\x00", id="utf-16"),
        pytest.param(b'{"kind":"\xff"}', id="no-utf-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"a":' * 100_000, id="deep-objects"),
        pytest.param(b"{}", id="no-fields"),
        pytest.param(body({**review(pod()), "kind": "Pod"}), id="kind"),
        pytest.param(
            body({**review(pod()), "apiVersion": "admission.k8s.io/v1beta1"}), id="version"
        ),
        pytest.param(body({**review(pod()), "request": None}), id="no-request"),
        pytest.param(body({**review(pod()), "request": []}), id="request-list"),
        pytest.param(body(changed(review(pod()), uid=None)), id="no-uid"),
        pytest.param(body(changed(review(pod()), uid=7)), id="uid-number"),
        pytest.param(body(changed(review(pod()), operation=None)), id="no-operation"),
        pytest.param(body(changed(review(pod()), resource=None)), id="no-resource"),
        pytest.param(body(changed(review(pod()), userInfo="me")), id="user-text"),
        pytest.param(body(review(pod())) + b"{}", id="two-objects"),
        pytest.param(body({**review(pod()), "kind": "x" * 1_000_000}), id="a-kind-of-a-megabyte"),
    ],
)
def test_what_is_no_review(text: bytes) -> None:
    """Is said to the caller, in few words."""
    with pytest.raises(BadReview) as bad:
        decode(text)
    assert str(bad.value).startswith("not an admission.k8s.io/v1 AdmissionReview: ")
    assert len(str(bad.value)) < 1000


def test_what_is_no_pod_is_said_without_its_content() -> None:
    """The place is told, the value is not: it may be a secret."""
    raw = review(
        {"spec": {"containers": [{"name": "a", "env": [{"name": "B", "value": {"s": 1}}]}]}}
    )
    with pytest.raises(BadReview) as bad:
        decode_pod(decode(body(raw)).object, "object")
    assert str(bad.value) == (
        "request.object is not a Pod: Expected `str | null`, got `object` - at "
        "`$.spec.containers[0].env[0].value`"
    )


def test_a_plain_yes() -> None:
    """Neither patch nor patchType, nor anything empty."""
    assert response(Answer(allowed=True), "the-uid") == {"uid": "the-uid", "allowed": True}


def test_a_patch() -> None:
    """Base64 of a JSON array, and its type."""
    made = response(
        Answer(allowed=True, patch=encode_patch([{"op": "add", "path": "/ü", "value": 1}]))
    )
    assert made["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(made["patch"])) == [{"op": "add", "path": "/ü", "value": 1}]


def test_a_no() -> None:
    """403 Forbidden: other codes hide the message or make clients try again."""
    assert response(Answer(allowed=False, message="because")) == {
        "uid": "u-1",
        "allowed": False,
        "status": {"status": "Failure", "reason": "Forbidden", "code": 403, "message": "because"},
    }


def test_a_long_message_is_cut() -> None:
    """It ends up in events and on terminals."""
    made = response(Answer(allowed=False, message="ü" * 10_000))
    assert made["status"]["message"] == "ü" * 2000


def test_warnings_stay_within_what_the_api_server_keeps() -> None:
    """It keeps 4096 characters in all, and cuts each to 256 beyond that."""
    made = response(Answer(allowed=True, warnings=["ü" * 1000] * 50))
    assert all(len(warning) <= 256 for warning in made["warnings"])
    assert sum(len(warning) for warning in made["warnings"]) <= 4096
    assert made["warnings"]


def test_audit_annotations_are_qualified_names() -> None:
    """The API server puts the webhook's name and a slash before each key."""
    made = response(Answer(allowed=True, audit={"decision": "kept"}))
    assert made["auditAnnotations"] == {"decision": "kept"}
