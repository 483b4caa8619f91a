"""The parts of objects that the checks read, beside those of every view."""

from typing import Any

import msgspec

from gpu_fraction.dashboard.objects import Condition, Event, ObjectMeta
from gpu_fraction.domain.pod import EnvVar, SecurityContext, Toleration


class ManagedField(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields that one writer owns, as a tree of ``f:name`` keys."""

    manager: str = ""
    fields_v1: dict[str, Any] | None = msgspec.field(default=None, name="fieldsV1")


class OwnedMeta(ObjectMeta, frozen=True, kw_only=True, rename="camel"):
    """Metadata with the owners of fields, and what holds a deletion."""

    managed_fields: list[ManagedField] | None = None
    finalizers: list[str] | None = None


class ServiceReference(msgspec.Struct, frozen=True, kw_only=True):
    """The Service behind a webhook."""

    name: str = ""
    namespace: str = ""
    port: int = 443


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The address of a webhook; msgspec decodes the base64 of the caBundle."""

    service: ServiceReference | None = None
    url: str | None = None
    ca_bundle: bytes | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The calls that reach a webhook."""

    operations: list[str] | None = None
    api_groups: list[str] | None = None
    resources: list[str] | None = None


class Webhook(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One webhook of a configuration, as the API server has it after its defaults."""

    name: str = ""
    client_config: ClientConfig = ClientConfig()
    failure_policy: str = "Fail"
    timeout_seconds: int = 10
    namespace_selector: dict[str, Any] | None = None
    object_selector: dict[str, Any] | None = None
    rules: list[Rule] | None = None
    match_conditions: list[dict[str, str]] | None = None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A mutating or validating webhook configuration."""

    metadata: OwnedMeta = OwnedMeta()
    webhooks: list[Webhook] | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of one pod; ``conditions.ready`` absent means ready."""

    addresses: list[str] | None = None
    conditions: dict[str, bool | None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes connections."""
        return (self.conditions or {}).get("ready") is not False


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """An EndpointSlice."""

    metadata: ObjectMeta = ObjectMeta()
    endpoints: list[Endpoint] | None = None


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The kind of a Service: one of type ExternalName has no endpoints."""

    type: str = "ClusterIP"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A Service."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace: its labels, and whether it is being deleted."""

    metadata: OwnedMeta = OwnedMeta()


class Container(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A container of a template."""

    name: str = ""
    image: str = ""
    args: list[str] | None = None
    env: list[EnvVar] | None = None
    security_context: SecurityContext | None = None


class TemplateSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The pods of a workload."""

    containers: list[Container] | None = None
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: list[Toleration] | None = None
    runtime_class_name: str | None = None
    service_account_name: str | None = None


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """The template of a workload's pods."""

    spec: TemplateSpec = TemplateSpec()


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Of a Deployment or DaemonSet."""

    replicas: int | None = None
    template: Template = Template()


class WorkloadStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of a Deployment (``ready_replicas``) or DaemonSet (the others)."""

    ready_replicas: int | None = None
    desired_number_scheduled: int | None = None
    number_ready: int | None = None


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A Deployment or DaemonSet."""

    metadata: ObjectMeta = ObjectMeta()
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()

    @property
    def containers(self) -> list[Container]:
        """The containers of its pods."""
        return self.spec.template.spec.containers or []

    def setting(self, name: str) -> str | None:
        """The value of a setting of ours, from flag or variable; None where neither is there."""
        flag = f"--{name.replace('_', '-')}="
        variable = f"GPU_FRACTION_{name.upper()}"
        for container in self.containers:
            for word in container.args or ():
                if word.startswith(flag):
                    return word.removeprefix(flag)
            for one in container.env or ():
                if one.name == variable:
                    return one.value or ""
        return None


class LeaseSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who holds a Lease, and since when it was not renewed."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A Lease."""

    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()


class RuntimeClass(msgspec.Struct, frozen=True, kw_only=True):
    """A RuntimeClass."""

    metadata: ObjectMeta = ObjectMeta()
    handler: str = ""


class CrdVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a custom resource."""

    name: str = ""
    served: bool = False


class CrdSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of a custom resource."""

    versions: list[CrdVersion] | None = None


class CrdStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a custom resource is served."""

    conditions: list[Condition] | None = None


class Crd(msgspec.Struct, frozen=True, kw_only=True):
    """A CustomResourceDefinition."""

    metadata: OwnedMeta = OwnedMeta()
    spec: CrdSpec = CrdSpec()
    status: CrdStatus = CrdStatus()


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many pods a PodDisruptionBudget lets go."""

    disruptions_allowed: int = 0
    current_healthy: int = 0
    expected_pods: int = 0


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A PodDisruptionBudget."""

    metadata: ObjectMeta = ObjectMeta()
    status: BudgetStatus = BudgetStatus()


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """A part of NVIDIA's GPU operator; absent means on."""

    enabled: bool | None = None


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The parts of NVIDIA's GPU operator."""

    device_plugin: Switch = Switch()


class ClusterPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of NVIDIA's GPU operator."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PolicySpec = PolicySpec()


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The object that an Event is about."""

    kind: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


class Warned(Event, frozen=True, kw_only=True, rename="camel"):
    """An Event with what it is about."""

    involved_object: Reference = Reference()


class Version(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """apimachinery's version.Info."""

    major: str = ""
    minor: str = ""
    git_version: str = ""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """An API group of the server."""

    name: str = ""
