"""What is special about pods: defaults, binding, what may change, time to stop."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from gpu_fraction.sandbox.apiserver.failures import conflict, invalid
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.storage import Object

_FIELDS_THAT_CHANGE: Final = frozenset({"activeDeadlineSeconds", "tolerations", "schedulingGates"})
"""Source: kubernetes pkg/apis/core/validation/validation.go, ValidatePodUpdate; images besides."""

_FIELDS_OF_GATED_PODS: Final = frozenset({"nodeSelector", "affinity"})
"""Change while a pod has scheduling gates. Source: as above."""


def default(pod: Object) -> None:
    """Fill a new pod's fields that were left out; its status begins anew."""
    spec = dict(pod.get("spec") or {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for group in ("containers", "initContainers"):
        if group in spec:
            spec[group] = [_default_container(container) for container in spec[group]]
    pod["spec"] = spec
    pod["status"] = {"phase": "Pending"}
    if spec.get("schedulingGates"):
        gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
        pod["status"]["conditions"] = [gated]


def _default_container(container: Object) -> Object:
    """Requests default to limits. Source: kubernetes pkg/apis/core/v1/defaults.go."""
    given = container.get("resources") or {}
    if not given.get("limits"):
        return {**container, "resources": given}
    requests = {**given["limits"], **(given.get("requests") or {})}
    return {**container, "resources": {**given, "requests": requests}}


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
    # What the preconditions leave is a conflict of the subresource.
    resource = replace(kind.resource, plural=f"{kind.resource.plural}/binding")
    node = (binding.get("target") or {}).get("name", "")
    if not node:
        raise invalid(kind.resource, name, "target.name", "Required value")
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict(
            resource, name, f"pod {name} is being deleted, cannot be assigned to a host"
        )
    if pod["spec"].get("nodeName"):
        assigned = pod["spec"]["nodeName"]
        raise conflict(resource, name, f'pod {name} is already assigned to node "{assigned}"')
    if pod["spec"].get("schedulingGates"):
        raise conflict(resource, name, f"pod {name} has non-empty .spec.schedulingGates")
    metadata = dict(pod["metadata"])
    for field in ("annotations", "labels"):
        if wanted.get(field):
            metadata[field] = {**(metadata.get(field) or {}), **wanted[field]}
    status = {k: v for k, v in pod["status"].items() if k != "nominatedNodeName"}
    conditions = [c for c in status.get("conditions", ()) if c["type"] != "PodScheduled"]
    conditions.append({"type": "PodScheduled", "status": "True"})
    return {
        **pod,
        "metadata": metadata,
        "spec": {**pod["spec"], "nodeName": node},
        "status": {**status, "conditions": conditions},
    }


def check_update(kind: Kind, old: Object, new: Object) -> None:
    """Refuse a change of what is fixed once a pod exists.

    Raises:
        ApiFailure: 422.
    """
    name = old["metadata"]["name"]
    gates = old["spec"].get("schedulingGates") or []
    for number, gate in enumerate(new["spec"].get("schedulingGates") or ()):
        if gate not in gates:
            why = f"only deletion is allowed, but found new scheduling gate '{gate['name']}'"
            field = f"spec.schedulingGates[{number}].name"
            raise invalid(kind.resource, name, field, f"Forbidden: {why}")
    free = _FIELDS_THAT_CHANGE | (_FIELDS_OF_GATED_PODS if gates else frozenset())

    def fixed(pod: Object) -> Object:
        spec = {k: v for k, v in pod["spec"].items() if k not in free}
        for group in ("containers", "initContainers"):
            spec[group] = [
                {k: v for k, v in container.items() if k != "image"}
                for container in spec.get(group, ())
            ]
        return spec

    if fixed(old) != fixed(new):
        raise invalid(
            kind.resource,
            name,
            "spec",
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only"
            " additions to existing tolerations),`spec.terminationGracePeriodSeconds`"
            " (allow it to be set to 1 if it was previously negative)",
        )


def grace_s(pod: Object, options: Mapping[str, Any]) -> int:
    """Seconds a pod gets to stop; only a pod on a node that has not ended gets any."""
    ended = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    if ended or not pod["spec"].get("nodeName"):
        return 0
    asked = options.get("gracePeriodSeconds")
    own: int = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return own if asked is None else int(asked)
