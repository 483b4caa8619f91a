"""Manifests of the contract tests."""

from typing import Any

from gpu_fraction.kube.resources import Resource

Manifest = dict[str, Any]


def to_node(node: str, name: str, **metadata: Any) -> Manifest:
    """A Binding of a pod."""
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, **metadata},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }


def lease(name: str, **spec: Any) -> Manifest:
    """A Lease."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": spec,
    }


def secret(name: str, **metadata: Any) -> Manifest:
    """An empty Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **metadata}}


def node(name: str) -> Manifest:
    """A Node, as a kubelet registers it."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def widget(resource: Resource, name: str, **fields: Any) -> Manifest:
    """A custom object."""
    return {
        "apiVersion": resource.api_version,
        "kind": "Widget",
        "metadata": {"name": name},
        **fields,
    }


def widget_definition(group: str) -> Manifest:
    """A CRD with a status subresource, conditions keyed by type and colours that select."""
    condition = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
    }
    conditions = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": condition,
    }
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {"color": {"type": "string"}},
                "x-kubernetes-preserve-unknown-fields": True,
            },
            "status": {
                "type": "object",
                "properties": {"conditions": conditions, "used": {"type": "integer"}},
            },
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "plural": "widgets",
                "singular": "widget",
                "kind": "Widget",
                "listKind": "WidgetList",
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                }
            ],
        },
    }
