"""The resources the server knows and in what they differ."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gpu_fraction.kube import resources
from gpu_fraction.kube.resources import CRDS, Resource

# Resources that the product itself does not use.
RESOURCE_QUOTAS: Final = Resource("", "v1", "resourcequotas", "ResourceQuota")
PRIORITY_CLASSES: Final = Resource(
    "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False
)

CONDITIONS: Final = {"status.conditions": "type"}


@dataclass(frozen=True)
class Kind:
    """One resource.

    Attributes:
        resource: group, version, plural, kind, scope.
        short_names: for kubectl.
        status: has a status subresource, so that the two halves are written apart.
        scale: has a scale subresource, that is, ``spec.replicas``.
        generation: counts changes of everything but metadata and status.
        custom: comes from a CRD: its status subresource leaves metadata alone, it takes no
            strategic merge patch, and list items name their kind.
        unconditional_update: a PUT without resourceVersion is taken.
        field_labels: fields, besides metadata's name and namespace, for field selectors, and
            what an object counts as that lacks the field. Source: kubernetes
            pkg/apis/core/v1/conversion.go, addConversionFuncs.
        list_keys: path of each list that is merged item by item, and the field that names
            an item. Other lists are replaced as a whole.
        columns: of tables, by their titles: a path of fields with dots between.
        dropped: names of fields that are left out of what is written, wherever they stand: those
            of feature gates that are off.
    """

    resource: Resource
    short_names: tuple[str, ...] = ()
    status: bool = False
    scale: bool = False
    generation: bool = False
    custom: bool = False
    unconditional_update: bool = True
    field_labels: Mapping[str, str] = field(default_factory=dict)
    list_keys: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()


_WEBHOOK_KEYS: Final = {"webhooks": "name"}
_POD_KEYS: Final = {
    "spec.containers": "name",
    "spec.initContainers": "name",
    "spec.containers.env": "name",
    "spec.initContainers.env": "name",
    "spec.volumes": "name",
    "spec.schedulingGates": "name",
    "metadata.ownerReferences": "uid",
    **CONDITIONS,
}

BUILT_IN: Final = (
    Kind(
        resources.PODS,
        ("po",),
        status=True,
        generation=True,
        field_labels={
            "spec.nodeName": "",
            "spec.restartPolicy": "",
            "spec.schedulerName": "",
            "spec.serviceAccountName": "",
            "spec.hostNetwork": "false",
            "status.phase": "",
            "status.podIP": "",
            "status.nominatedNodeName": "",
        },
        list_keys=_POD_KEYS,
    ),
    Kind(
        resources.NODES,
        ("no",),
        status=True,
        field_labels={"spec.unschedulable": "false"},
        list_keys={"status.addresses": "type", "spec.taints": "key", **CONDITIONS},
    ),
    Kind(resources.NAMESPACES, ("ns",), status=True, field_labels={"status.phase": ""}),
    Kind(
        resources.EVENTS,
        ("ev",),
        field_labels={
            "involvedObject.kind": "",
            "involvedObject.namespace": "",
            "involvedObject.name": "",
            "involvedObject.uid": "",
            "involvedObject.apiVersion": "",
            "reason": "",
            "type": "",
        },
    ),
    Kind(resources.SECRETS, field_labels={"type": ""}),
    Kind(resources.SERVICES, ("svc",), status=True),
    Kind(resources.ENDPOINT_SLICES, generation=True),
    Kind(resources.DISRUPTION_BUDGETS, ("pdb",), status=True, generation=True),
    Kind(resources.RUNTIME_CLASSES),
    Kind(RESOURCE_QUOTAS, ("quota",), status=True),
    Kind(
        resources.REPLICA_SETS,
        ("rs",),
        status=True,
        scale=True,
        generation=True,
        list_keys=CONDITIONS,
    ),
    Kind(
        resources.DEPLOYMENTS,
        ("deploy",),
        status=True,
        scale=True,
        generation=True,
        list_keys=CONDITIONS,
    ),
    Kind(
        resources.STATEFUL_SETS,
        ("sts",),
        status=True,
        scale=True,
        generation=True,
        list_keys=CONDITIONS,
    ),
    Kind(resources.DAEMON_SETS, ("ds",), status=True, generation=True, list_keys=CONDITIONS),
    Kind(resources.JOBS, status=True, generation=True, list_keys=CONDITIONS),
    Kind(resources.CRON_JOBS, ("cj",), status=True, generation=True),
    Kind(resources.CLAIM_TEMPLATES, unconditional_update=False),
    Kind(resources.LEASES, unconditional_update=False),
    Kind(resources.DEVICE_CLASSES),
    Kind(resources.RESOURCE_CLAIMS, status=True),
    Kind(
        resources.RESOURCE_SLICES,
        generation=True,
        field_labels={"spec.nodeName": "", "spec.driver": "", "spec.pool.name": ""},
    ),
    Kind(
        resources.MUTATING_WEBHOOKS,
        generation=True,
        unconditional_update=False,
        list_keys=_WEBHOOK_KEYS,
    ),
    Kind(
        resources.VALIDATING_WEBHOOKS,
        generation=True,
        unconditional_update=False,
        list_keys=_WEBHOOK_KEYS,
    ),
    Kind(PRIORITY_CLASSES, ("pc",), generation=True),
    Kind(
        CRDS,
        ("crd",),
        status=True,
        generation=True,
        unconditional_update=False,
        list_keys=CONDITIONS,
    ),
)


def from_crd(crd: Mapping[str, Any]) -> Kind:
    """The kind that a CustomResourceDefinition defines, in its storage version.

    List keys are read from the schema; the schema itself is not enforced.
    """
    spec = crd["spec"]
    version = next(v for v in spec["versions"] if v.get("storage"))
    names = spec["names"]
    schema = version.get("schema", {}).get("openAPIV3Schema", {})
    return Kind(
        Resource(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            namespaced=spec["scope"] == "Namespaced",
        ),
        tuple(names.get("shortNames", ())),
        status="status" in version.get("subresources", {}),
        generation=True,
        custom=True,
        unconditional_update=False,
        field_labels={
            field["jsonPath"].lstrip("."): "" for field in version.get("selectableFields", ())
        },
        list_keys=dict(_list_keys(schema, ())),
    )


def _list_keys(schema: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if schema.get("x-kubernetes-list-type") == "map" and len(keys) == 1:
        found.append((".".join(path), keys[0]))
    for name, child in schema.get("properties", {}).items():
        found += _list_keys(child, (*path, name))
    if isinstance(schema.get("items"), dict):
        found += _list_keys(schema["items"], path)
    return found
