"""The scale subresource of what has replicas, for ``kubectl scale``.

Source: autoscaling/v1 Scale; kubernetes pkg/registry/apps/deployment/storage/storage.go.
"""

from gpu_fraction.sandbox.apiserver.storage import Object

FIELDS = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def of(obj: Object) -> Object:
    """An object's scale."""
    metadata = {key: obj["metadata"][key] for key in FIELDS if key in obj["metadata"]}
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    status = obj.get("status") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }


def onto(obj: Object, wanted: Object) -> Object:
    """The object at the scale wanted."""
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    return {**obj, "spec": {**obj["spec"], "replicas": replicas}}
