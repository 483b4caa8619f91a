"""Admission reviews: those recorded from a real API server, and new ones of the same form."""

import base64
import copy
import functools
import json
from pathlib import Path
from typing import Any

import msgspec

from gpu_fraction.settings import rewrite
from gpu_fraction.settings.option import load
from tests.builders.pods import Raw

FOLDER = Path(__file__).parents[2] / "examples" / "reviews"
RECORDED = sorted(path.stem for path in FOLDER.glob("*.json"))


@functools.cache
def _read(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def recorded(name: str) -> Raw:
    """One recorded review, as the API server posted it."""
    made: Raw = msgspec.json.decode(_read(name))["body"]
    return made


def body(review: Raw) -> bytes:
    """On the wire."""
    return msgspec.json.encode(review)


def review(
    new: Raw | None,
    old: Raw | None = None,
    *,
    operation: str = "CREATE",
    subresource: str | None = None,
    resource: str = "pods",
    user: str = "admin",
    **request: Any,
) -> Raw:
    """A review of a change from ``old`` to ``new``."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": operation,
            "resource": {"group": "", "version": "v1", "resource": resource},
            "subResource": subresource,
            "namespace": "team-a",
            "name": "p",
            "userInfo": {"username": user},
            "object": new,
            "oldObject": old,
            "dryRun": False,
            **request,
        },
    }


def patch_of(response: Raw) -> list[Raw]:
    """The JSON patch of an answer; empty where it has none."""
    if "patch" not in response:
        assert "patchType" not in response
        return []
    assert response["patchType"] == "JSONPatch"
    patch: list[Raw] = json.loads(base64.b64decode(response["patch"], validate=True))
    return patch


def rewriting(**flags: str) -> rewrite.RewriteSettings:
    """Settings as the command line makes them."""
    values = load(rewrite.OPTIONS, flags=flags, environ={}, file={})
    return rewrite.rewrite_settings(values)


def changed(raw: Raw, **at: Any) -> Raw:
    """A copy with fields of the request replaced."""
    made = copy.deepcopy(raw)
    made["request"].update(at)
    return made
