"""What the server says about itself, for clients that look before they ask (kubectl)."""

from collections.abc import Iterable
from typing import Any, Final

from gpu_fraction.sandbox.apiserver.kinds import Kind

VERSION: Final = {"major": "1", "minor": "37", "gitVersion": "v1.37.2-sandbox", "platform": "any"}
"""Chosen: the release that the contract tests compare this server with."""

_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def document(path: str, kinds: Iterable[Kind]) -> dict[str, Any] | None:
    """The discovery document at a path, or None where there is none."""
    found: dict[str, Any] | None = None
    match path.strip("/").split("/"):
        case ["api"]:
            found = {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}
        case ["apis"]:
            found = _groups(kinds)
        case ["api", version]:
            found = _resources("", version, kinds)
        case ["apis", group, version]:
            found = _resources(group, version, kinds)
        case ["openapi", "v3"]:
            found = _schemas(kinds)
        case ["openapi", "v3", *rest]:
            found = _schema("/".join(rest), kinds)
    return found


def _group_path(kind: Kind) -> str:
    """Such as ``api/v1`` or ``apis/apps/v1``."""
    api_version = kind.resource.api_version
    return f"apis/{api_version}" if kind.resource.group else f"api/{api_version}"


def _schemas(kinds: Iterable[Kind]) -> dict[str, Any]:
    """Where each group's OpenAPI is."""
    paths = sorted({_group_path(kind) for kind in kinds})
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in paths}}


def _schema(path: str, kinds: Iterable[Kind]) -> dict[str, Any] | None:
    """As much OpenAPI as kubectl reads before it leaves the check of fields to the server.

    Source: cli-runtime pkg/resource/query_param_verifier_v3.go. Nothing checks them here.
    """
    validated = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths: dict[str, Any] = {}
    for kind in kinds:
        if _group_path(kind) == path:
            resource = kind.resource
            names = {"group": resource.group, "version": resource.version, "kind": resource.kind}
            patch = {"parameters": validated, "x-kubernetes-group-version-kind": names}
            paths[f"/{path}/{resource.plural}/{{name}}"] = {"patch": {**patch, "responses": {}}}
    if not paths:
        return None
    info = {"title": "sandbox", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths}


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
        if kind.scale:
            scale = {**entry, "name": f"{resource.plural}/scale", "shortNames": []}
            scale |= {"group": "autoscaling", "version": "v1", "kind": "Scale"}
            found.append({**scale, "verbs": ["get", "patch", "update"]})
    if not found:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": found,
    }
