"""Resources of the API server and the addresses of their objects."""

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from gpu_fraction.domain import keys


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object the API server stores.

    Attributes:
        group: API group; empty for the core group.
        version: such as ``v1``.
        plural: the name in URLs, lower case.
        kind: the name in objects.
        namespaced: False for cluster-wide objects.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apiVersion`` of the objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """``plural.group``, as RBAC, CRDs and metrics labels write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def at(self, name: str = "", *, namespace: str = "", subresource: str = "") -> "Address":
        """An object of this resource, or without a name the collection.

        A namespaced resource without a namespace addresses all namespaces.

        Raises:
            ValueError: a name that cannot stand in a URL, a namespace on a cluster-wide
                resource, or an object of a namespaced resource without its namespace.
        """
        return Address(self, name, namespace, subresource)


@dataclass(frozen=True, slots=True)
class Address:
    """One object, a subresource of it, or a collection."""

    resource: Resource
    name: str = ""
    namespace: str = ""
    subresource: str = ""

    def __post_init__(self) -> None:
        if self.namespace and not self.resource.namespaced:
            raise ValueError(f"{self.resource.qualified} has no namespaces: {self.namespace!r}")
        if self.name and self.resource.namespaced and not self.namespace:
            raise ValueError(f"{self.resource.qualified} {self.name!r}: a namespace is needed")
        if self.subresource and not self.name:
            raise ValueError(f"{self.resource.qualified}/{self.subresource}: a name is needed")
        for segment in (self.name, self.namespace):
            if segment in {".", ".."} or "/" in segment or "%" in segment:
                # Source: apimachinery pkg/api/validation/path, IsValidPathSegmentName.
                raise ValueError(f"{segment!r} may not be '.' or '..' nor hold '/' or '%'")

    @property
    def qualified(self) -> str:
        """``plural.group``, with the subresource if there is one; for metrics labels."""
        suffix = f"/{self.subresource}" if self.subresource else ""
        return self.resource.qualified + suffix

    @property
    def path(self) -> str:
        """The URL path, escaped."""
        resource = self.resource
        prefix = f"/apis/{resource.group}" if resource.group else "/api"
        parts = [prefix, resource.version]
        if self.namespace:
            parts += ["namespaces", quote(self.namespace, safe="")]
        parts.append(resource.plural)
        if self.name:
            parts.append(quote(self.name, safe=""))
        if self.subresource:
            parts.append(self.subresource)
        return "/".join(parts)

    def sub(self, subresource: str) -> "Address":
        """A subresource of the object, such as ``status``."""
        return replace(self, subresource=subresource)

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.qualified} {where}{self.name}".rstrip()


PODS: Final = Resource("", "v1", "pods", "Pod")
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
EVENTS: Final = Resource("", "v1", "events", "Event")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
JOBS: Final = Resource("batch", "v1", "jobs", "Job")
SERVICES: Final = Resource("", "v1", "services", "Service")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
RUNTIME_CLASSES: Final = Resource(
    "node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False
)
ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
CLUSTER_POLICIES: Final = Resource(
    "nvidia.com", "v1", "clusterpolicies", "ClusterPolicy", namespaced=False
)
"""Of NVIDIA's GPU operator."""
CRON_JOBS: Final = Resource("batch", "v1", "cronjobs", "CronJob")
CLAIM_TEMPLATES: Final = Resource(
    "resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate"
)
DEVICE_CLASSES: Final = Resource(
    "resource.k8s.io", "v1", "deviceclasses", "DeviceClass", namespaced=False
)
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
RESOURCE_CLAIMS: Final = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
RESOURCE_SLICES: Final = Resource(
    "resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False
)
CRDS: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
MUTATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)
GPU_QUOTAS: Final = Resource(keys.GROUP, "v1alpha1", "gpuquotas", "GPUQuota")
