"""What the server itself changes or refuses when an object is created, updated or deleted."""

import re
import secrets
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from gpu_fraction.kube import resources
from gpu_fraction.sandbox.apiserver import pods
from gpu_fraction.sandbox.apiserver.failures import (
    ApiFailure,
    bad_request,
    conflict,
    forbidden,
    invalid,
)
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.storage import Object

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Source: apimachinery pkg/util/rand/rand.go: no vowels, no look-alikes."""

_KEPT_BY_UPDATE: Final = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
    "name",
    "generateName",
)


def utc(now: datetime) -> str:
    """A time as Kubernetes writes it in metadata: UTC, whole seconds."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def default(kind: Kind, body: Object, namespace: str) -> Object:
    """A new object as admission sees it: defaults applied, no identity yet.

    Raises:
        ApiFailure: 400 where it is no such object.
    """
    resource = kind.resource
    found = body.get("apiVersion"), body.get("kind")
    if found != (resource.api_version, resource.kind):
        raise bad_request(
            f"{found[1]} in version {found[0]!r} cannot be handled as a {resource.kind}"
        )
    metadata = dict(body.get("metadata") or {})
    if metadata.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if resource.namespaced:
        if metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the"
                " request"
            )
    else:
        metadata.pop("namespace", None)
    obj = {**body, "metadata": metadata}
    if kind.status and resource != resources.NODES:  # a kubelet registers with its status
        obj.pop("status", None)
    if resource == resources.PODS:
        pods.default(obj)
    return obj


def identify(kind: Kind, obj: Object, now: datetime) -> Object:
    """A new object with the identity it will be stored under.

    Raises:
        ApiFailure: 422 for a name that is none.
    """
    metadata = dict(obj["metadata"])
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
        metadata["name"] = metadata["generateName"] + suffix
    name = metadata.get("name", "")
    if not name:
        raise invalid(
            kind.resource, "", "metadata.name", "Required value: name or generateName is required"
        )
    if not _NAME.fullmatch(name):
        raise invalid(
            kind.resource,
            name,
            "metadata.name",
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case'
            " alphanumeric characters, '-' or '.', and must start and end with an alphanumeric"
            " character",
        )
    for absent in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        metadata.pop(absent, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = utc(now)
    if kind.generation:
        metadata["generation"] = 1
    return {**obj, "metadata": metadata}


def update(kind: Kind, old: Object, new: Object, subresource: str) -> Object:
    """The object that a write over ``old`` really makes.

    Raises:
        ApiFailure: 409 where the uid or resourceVersion is another's, 422 where the write
            changes what may not change.
    """
    metadata = dict(new.get("metadata") or {})
    _check_identity(kind, old["metadata"], metadata)
    for field in _KEPT_BY_UPDATE:
        metadata.pop(field, None)
        if field in old["metadata"]:
            metadata[field] = old["metadata"][field]
    written = {**new, "metadata": metadata}
    if subresource == "status":
        return _status_update(kind, old, written)
    if kind.status:
        written.pop("status", None)
        if "status" in old:
            written["status"] = old["status"]
    if kind.resource == resources.PODS:
        pods.check_update(kind, old, written)
    if kind.generation and _spec(old) != _spec(written):
        metadata["generation"] = old["metadata"].get("generation", 0) + 1
    return written


def deletion(
    kind: Kind, obj: Object, options: Mapping[str, Any], now: datetime
) -> tuple[Object, bool]:
    """The object once its deletion was asked for, and whether it stays for now.

    A pod that goes at once is marked first, so that watchers are told twice.

    Raises:
        ApiFailure: 409 where a precondition does not hold.
    """
    metadata = obj["metadata"]
    preconditions = options.get("preconditions") or {}
    for field, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if preconditions.get(field, metadata[field]) != metadata[field]:
            raise conflict(
                kind.resource,
                metadata["name"],
                f"the {title} in the precondition ({preconditions[field]}) does not match the"
                f" {title} in record ({metadata[field]}). The object might have been modified",
            )
    pod = kind.resource == resources.PODS
    grace_s = pods.grace_s(obj, options) if pod else 0
    stays = bool(grace_s or metadata.get("finalizers"))
    if not stays and not pod:
        return obj, False
    changed = dict(metadata)
    changed.setdefault("deletionTimestamp", utc(now))
    changed["deletionGracePeriodSeconds"] = grace_s
    if kind.generation and "deletionTimestamp" not in metadata:
        changed["generation"] = metadata.get("generation", 0) + 1
    return {**obj, "metadata": changed}, stays


def finished(obj: Object) -> bool:
    """True for an object whose deletion waited for finalizers that are now gone."""
    metadata = obj["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )


def check_namespace(kind: Kind, name: str, namespace: Object | None, namespace_name: str) -> None:
    """Refuse a new object in a namespace that does not exist or is going away.

    Raises:
        ApiFailure: 404 or 403.
    """
    if namespace is None:
        raise ApiFailure(404, "NotFound", f'namespaces "{namespace_name}" not found')
    if "deletionTimestamp" in namespace["metadata"]:
        raise forbidden(
            kind.resource,
            name,
            f"unable to create new content in namespace {namespace_name} because it is being"
            " terminated",
        )


def _check_identity(kind: Kind, old: Object, new: Object) -> None:
    name, uid = old["name"], old["uid"]
    if new.get("name", name) != name:
        raise bad_request(
            f"the name of the object ({new['name']}) does not match the name on the URL ({name})"
        )
    if new.get("uid", uid) != uid:
        raise conflict(
            kind.resource,
            name,
            f"Precondition failed: UID in precondition: {new['uid']}, UID in object meta: {uid}",
        )
    stamp = new.get("deletionTimestamp")
    if stamp is not None and stamp != old.get("deletionTimestamp"):
        raise invalid(
            kind.resource,
            name,
            "metadata.deletionTimestamp",
            f'Invalid value: "{stamp}": field is immutable',
        )


def _status_update(kind: Kind, old: Object, written: Object) -> Object:
    if not kind.custom:
        # Labels and annotations may ride along, as kubelets do on nodes/status.
        rest = {name: value for name, value in old.items() if name not in {"metadata", "status"}}
        return {**rest, "metadata": written["metadata"], "status": written.get("status", {})}
    updated = {**old, "status": written.get("status")}
    if updated["status"] is None:
        del updated["status"]
    return updated


def _spec(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in {"metadata", "status"}}


def without(value: Any, dropped: frozenset[str]) -> Any:
    """An object without the fields of these names."""
    if isinstance(value, dict):
        return {name: without(v, dropped) for name, v in value.items() if name not in dropped}
    return [without(item, dropped) for item in value] if isinstance(value, list) else value
