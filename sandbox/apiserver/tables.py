"""Tables, as kubectl asks for them: what ``kubectl get`` shows, in the columns that matter here.

Source: meta.k8s.io/v1 Table; kubernetes pkg/printers/internalversion/printers.go.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from gpu_fraction.kube import resources
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.storage import Object

Cell = Callable[[Object, datetime], str | int]

ASKED: Final = "as=Table"
"""Part of the Accept header of a client that prefers tables."""


def answer(
    kind: Kind, found: Sequence[Object], metadata: Mapping[str, Any], now: datetime
) -> bytes:
    """The objects as a table.

    Args:
        kind: Of all of them.
        found: The rows.
        metadata: Of the list.
        now: For ages, UTC.
    """
    columns = _columns(kind)
    return msgspec.json.encode(
        {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": [
                {"name": name, "type": "string", "format": "", "description": "", "priority": 0}
                for name in columns
            ],
            "rows": [
                {
                    "cells": [cell(one, now) for cell in columns.values()],
                    "object": {
                        "kind": "PartialObjectMetadata",
                        "apiVersion": "meta.k8s.io/v1",
                        "metadata": one["metadata"],
                    },
                }
                for one in found
            ],
        }
    )


def _columns(kind: Kind) -> Mapping[str, Cell]:
    if kind.resource == resources.EVENTS:
        return _OF_EVENTS
    own = _BUILT_IN.get(kind.resource.qualified)
    if own is None:
        own = {name: _field(*path.split(".")) for name, path in kind.columns.items()}
    return {"Name": _name, **own, "Age": _age}


def _field(*path: str) -> Cell:
    """What stands at a path; empty where nothing does."""

    def cell(one: Object, _now: datetime) -> str | int:
        value: Any = one
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, str | int) else ""

    return cell


def _of(part: str, whole: str) -> Cell:
    """``ready/wanted``."""

    def cell(one: Object, now: datetime) -> str:
        shown = [_field(*path.split("."))(one, now) or 0 for path in (part, whole)]
        return f"{shown[0]}/{shown[1]}"

    return cell


def _name(one: Object, _now: datetime) -> str:
    return str(one["metadata"]["name"])


def _pod_ready(pod: Object, _now: datetime) -> str:
    states = (pod.get("status") or {}).get("containerStatuses") or ()
    ready = sum(bool(state.get("ready")) for state in states)
    return f"{ready}/{len(pod['spec'].get('containers', ()))}"


def _pod_status(pod: Object, _now: datetime) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    status = pod.get("status") or {}
    return str(status.get("reason") or status.get("phase", ""))


def _node_status(node: Object, _now: datetime) -> str:
    conditions = (node.get("status") or {}).get("conditions", ())
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    cordoned = ",SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else ""
    return ("Ready" if ready else "NotReady") + cordoned


def _event_object(event: Object, _now: datetime) -> str:
    about = event.get("involvedObject") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _age(one: Object, now: datetime) -> str:
    return _span(one["metadata"].get("creationTimestamp", ""), now)


def _last_seen(event: Object, now: datetime) -> str:
    return _span(event.get("lastTimestamp") or event.get("eventTime") or "", now)


def _span(since: str, now: datetime) -> str:
    """A time ago in its largest unit. Source: apimachinery pkg/util/duration, HumanDuration."""
    try:
        seconds = int((now - datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


_OF_EVENTS: Final[Mapping[str, Cell]] = {
    "Last Seen": _last_seen,
    "Type": _field("type"),
    "Reason": _field("reason"),
    "Object": _event_object,
    "Message": _field("message"),
}

_BUILT_IN: Final[Mapping[str, Mapping[str, Cell]]] = {
    resources.PODS.qualified: {
        "Ready": _pod_ready,
        "Status": _pod_status,
        "Node": _field("spec", "nodeName"),
    },
    resources.NODES.qualified: {
        "Status": _node_status,
        "Version": _field("status", "nodeInfo", "kubeletVersion"),
    },
    resources.DEPLOYMENTS.qualified: {"Ready": _of("status.readyReplicas", "spec.replicas")},
    resources.REPLICA_SETS.qualified: {"Ready": _of("status.readyReplicas", "spec.replicas")},
}
