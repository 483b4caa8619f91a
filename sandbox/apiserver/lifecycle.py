"""What the server itself changes or refuses when an object is created, updated or deleted."""

import re
import secrets
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from gpu_fraction.kube import resources
from sandbox.apiserver.failures import ApiFailure, bad_request, conflict, forbidden, invalid
from sandbox.apiserver.kinds import Kind
from sandbox.apiserver.storage import Object

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
_POD_FIELDS_THAT_CHANGE: Final = (
    "activeDeadlineSeconds",
    "tolerations",
    "terminationGracePeriodSeconds",
    "schedulingGates",
    "nodeSelector",
    "affinity",
)
"""Source: kubernetes pkg/apis/core/validation/validation.go, ValidatePodUpdate; images besides."""


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
        _default_pod(obj)
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
    name = old["metadata"]["name"]
    metadata = dict(new.get("metadata") or {})
    if metadata.get("name", name) != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL"
            f" ({name})"
        )
    uid = old["metadata"]["uid"]
    if metadata.get("uid", uid) != uid:
        raise conflict(
            kind.resource,
            name,
            f"Precondition failed: UID in precondition: {metadata['uid']},"
            f" UID in object meta: {uid}",
        )
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
        _check_pod_update(kind, old, written)
    if kind.generation and _spec(old) != _spec(written):
        metadata["generation"] = old["metadata"].get("generation", 0) + 1
    return written


def bind(kind: Kind, pod: Object, binding: Object) -> Object:
    """A pod after a Binding was posted to it.

    Source: kubernetes pkg/registry/core/pod/storage/storage.go, setPodNodeAndMetadata.

    Raises:
        ApiFailure: 409 where the pod is bound, being deleted, gated or another pod.
    """
    name = pod["metadata"]["name"]
    wanted = binding.get("metadata") or {}
    for field, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field, pod["metadata"][field]) != pod["metadata"][field]:
            raise conflict(
                kind.resource,
                name,
                f"Precondition failed: {title} in precondition: {wanted[field]},"
                f" {title} in object meta: {pod['metadata'][field]}",
            )
    node = (binding.get("target") or {}).get("name", "")
    if not node:
        raise invalid(kind.resource, name, "target.name", "Required value")
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict(
            kind.resource, name, f"pod {name} is being deleted, cannot be assigned to a host"
        )
    if pod["spec"].get("nodeName"):
        raise conflict(
            kind.resource,
            name,
            f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"',
        )
    if pod["spec"].get("schedulingGates"):
        raise conflict(kind.resource, name, f"pod {name} has non-empty .spec.schedulingGates")
    metadata = dict(pod["metadata"])
    for field in ("annotations", "labels"):
        if wanted.get(field):
            metadata[field] = {**(metadata.get(field) or {}), **wanted[field]}
    conditions = [c for c in pod["status"].get("conditions", ()) if c["type"] != "PodScheduled"]
    conditions.append({"type": "PodScheduled", "status": "True"})
    return {
        **pod,
        "metadata": metadata,
        "spec": {**pod["spec"], "nodeName": node},
        "status": {**pod["status"], "conditions": conditions},
    }


def deletion(kind: Kind, obj: Object, options: Mapping[str, Any], now: datetime) -> Object | None:
    """The object while it is being deleted, or None where it goes at once.

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
                f"Precondition failed: {title} in precondition: {preconditions[field]},"
                f" {title} in object meta: {metadata[field]}",
            )
    grace_s = _grace_s(kind, obj, options)
    if not grace_s and not metadata.get("finalizers"):
        return None
    changed = dict(metadata)
    changed.setdefault("deletionTimestamp", utc(now))
    changed["deletionGracePeriodSeconds"] = grace_s
    if kind.generation and "deletionTimestamp" not in metadata:
        changed["generation"] = metadata.get("generation", 0) + 1
    return {**obj, "metadata": changed}


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


def _default_pod(pod: Object) -> None:
    spec = dict(pod.get("spec") or {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for group in ("containers", "initContainers"):
        if group in spec:
            spec[group] = [_default_container(container) for container in spec[group]]
    pod["spec"] = spec
    pod["status"] = {"phase": "Pending"}


def _default_container(container: Object) -> Object:
    """Requests default to limits. Source: kubernetes pkg/apis/core/v1/defaults.go."""
    given = container.get("resources") or {}
    if not given.get("limits"):
        return {**container, "resources": given}
    requests = {**given["limits"], **(given.get("requests") or {})}
    return {**container, "resources": {**given, "requests": requests}}


def _status_update(kind: Kind, old: Object, written: Object) -> Object:
    if not kind.custom:
        # Labels and annotations may ride along, as kubelets do on nodes/status.
        rest = {name: value for name, value in old.items() if name not in {"metadata", "status"}}
        return {**rest, "metadata": written["metadata"], "status": written.get("status", {})}
    updated = {**old, "status": written.get("status")}
    if updated["status"] is None:
        del updated["status"]
    return updated


def _check_pod_update(kind: Kind, old: Object, new: Object) -> None:
    def fixed(pod: Object) -> Object:
        spec = {k: v for k, v in pod["spec"].items() if k not in _POD_FIELDS_THAT_CHANGE}
        for group in ("containers", "initContainers"):
            spec[group] = [
                {k: v for k, v in container.items() if k != "image"}
                for container in spec.get(group, ())
            ]
        return spec

    if fixed(old) != fixed(new):
        raise invalid(
            kind.resource,
            old["metadata"]["name"],
            "spec",
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only"
            " additions to existing tolerations),`spec.terminationGracePeriodSeconds`"
            " (allow it to be set to 1 if it was previously negative)",
        )


def _grace_s(kind: Kind, obj: Object, options: Mapping[str, Any]) -> int:
    """Seconds a pod gets to stop; only a pod on a node that has not ended gets any."""
    if kind.resource != resources.PODS:
        return 0
    ended = obj.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    if ended or not obj["spec"].get("nodeName"):
        return 0
    asked = options.get("gracePeriodSeconds")
    own: int = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return own if asked is None else int(asked)


def _spec(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in {"metadata", "status"}}
