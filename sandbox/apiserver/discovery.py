"""What the server says about itself, for clients that look before they ask (kubectl)."""

from collections.abc import Iterable
from typing import Any, Final

from sandbox.apiserver.kinds import Kind

VERSION: Final = {"major": "1", "minor": "37", "gitVersion": "v1.37.2-sandbox", "platform": "any"}
"""Chosen: the release that the contract tests compare this server with."""

_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def document(path: str, kinds: Iterable[Kind]) -> dict[str, Any] | None:
    """The discovery document at a path, or None where there is none."""
    parts = path.strip("/").split("/")
    match parts:
        case ["api"]:
            return {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}
        case ["apis"]:
            return _groups(kinds)
        case ["api", version]:
            return _resources("", version, kinds)
        case ["apis", group, version]:
            return _resources(group, version, kinds)
        case _:
            return None


def _groups(kinds: Iterable[Kind]) -> dict[str, Any]:
    versions = {(k.resource.group, k.resource.version) for k in kinds if k.resource.group}
    groups = []
    for group, version in sorted(versions):
        entry = {"groupVersion": f"{group}/{version}", "version": version}
        groups.append({"name": group, "versions": [entry], "preferredVersion": entry})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _resources(group: str, version: str, kinds: Iterable[Kind]) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = []
    for kind in kinds:
        resource = kind.resource
        if (resource.group, resource.version) != (group, version):
            continue
        entry = {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "shortNames": list(kind.short_names),
        }
        found.append({**entry, "verbs": _VERBS})
        if kind.status:
            status = {**entry, "name": f"{resource.plural}/status", "shortNames": []}
            found.append({**status, "verbs": ["get", "patch", "update"]})
    if not found:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": found,
    }
