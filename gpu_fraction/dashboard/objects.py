"""The parts of objects that the views read, decoded straight from the wire.

Only GPU pods and pods of the product keep their specification: a view of a large cluster would
otherwise hold every pod of it.
"""

from typing import Any, Final

import msgspec

from gpu_fraction.domain import keys, pod
from gpu_fraction.domain.backends import is_gpu
from gpu_fraction.domain.claim_template import claims_of
from gpu_fraction.domain.guard import VISIBLE
from gpu_fraction.kube.objects import Meta, OwnerReference, controller_of

PRODUCT: Final = ("app.kubernetes.io/name", "gpu-fraction")
"""Label and value of the product's own pods (deploy/)."""

COMPONENT: Final = "app.kubernetes.io/component"
"""Label of the product's own pods: ``webhook``, ``controller``, ``scheduler``, ``node-daemon``."""

FINISHED: Final = frozenset({"Succeeded", "Failed"})
"""Phases of pods whose containers can never run again. Source: core/v1 PodPhase."""


class ObjectMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """Identity, times, labels, annotations and owners; times are RFC 3339."""

    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    generate_name: str | None = None
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None

    @property
    def owner(self) -> OwnerReference | None:
        """The controller that made the object."""
        return controller_of(self.owner_references)


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A condition of a pod, a node or a quota."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class ContainerStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a container: one key of ``waiting``, ``running`` and ``terminated``."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    state: dict[str, dict[str, Any] | None] | None = None
    last_state: dict[str, dict[str, Any] | None] | None = None


class ClaimStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The ResourceClaim that was made for a claim of the pod."""

    name: str = ""
    resource_claim_name: str | None = None


class Gate(msgspec.Struct, frozen=True):
    """A scheduling gate."""

    name: str = ""


class PodSpec(pod.Spec, frozen=True, rename="camel"):
    """What the domain reads of a pod, and what people ask about."""

    service_account_name: str | None = None
    priority: int | None = None
    scheduling_gates: list[Gate] | None = None
    affinity: dict[str, Any] | None = None


class PodStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    nominated_node_name: str | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    resource_claim_statuses: list[ClaimStatus] | None = None


_NO_SPEC: Final = PodSpec()
_NO_STATUS: Final = PodStatus()


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod.

    Attributes:
        gpu: Whether it asks for GPUs or parts of them, on any stack, or carries an annotation
            that looks like ours, known or not.
        product: Whether it is one of the product's own.
        past_us: Whether a container may see GPUs without asking for one: it is privileged, or
            names ``NVIDIA_VISIBLE_DEVICES``.
    """

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = _NO_SPEC
    status: PodStatus = _NO_STATUS
    gpu: bool = False
    product: bool = False
    past_us: bool = False

    def __post_init__(self) -> None:
        label, value = PRODUCT
        gpu = _asks(self)
        product = (self.metadata.labels or {}).get(label) == value
        msgspec.structs.force_setattr(self, "gpu", gpu)
        past_us = not (gpu or product) and any(map(_sees_gpus, self.spec.containers))
        msgspec.structs.force_setattr(self, "product", product)
        msgspec.structs.force_setattr(self, "past_us", past_us)
        if not (gpu or product or past_us):
            meta = self.metadata
            bare = ObjectMeta(name=meta.name, namespace=meta.namespace, uid=meta.uid)
            msgspec.structs.force_setattr(self, "metadata", bare)
            msgspec.structs.force_setattr(self, "spec", _NO_SPEC)
            msgspec.structs.force_setattr(self, "status", _NO_STATUS)

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations, empty where there are none."""
        return self.metadata.annotations or {}

    @property
    def finished(self) -> bool:
        """True once the containers have ended for good, so that the pod holds no card."""
        return self.status.phase in FINISHED

    def condition(self, name: str) -> Condition | None:
        """A condition of the pod by its type, such as ``PodScheduled``."""
        return next((c for c in self.status.conditions or () if c.type == name), None)

    def domain(self) -> pod.Pod:
        """The pod as the domain knows it."""
        return pod.Pod(pod.Metadata(self.metadata.annotations, self.metadata.labels), self.spec)


def _asks(one: Pod) -> bool:
    if any(map(keys.is_ours, one.annotations)):
        return True
    seen = one.domain()
    return any(map(is_gpu, pod.resource_names(seen))) or any(claims_of(seen))


def _sees_gpus(container: pod.Container) -> bool:
    context = container.security_context
    if context is not None and context.privileged:
        return True
    given = (one.value for one in container.env or () if one.name == VISIBLE)
    return any(value not in {"", "void", "none"} for value in given)


class Taint(msgspec.Struct, frozen=True):
    """A taint of a node."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct, frozen=True):
    """Whether pods may be placed on the node."""

    unschedulable: bool = False
    taints: list[Taint] | None = None


class NodeInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Versions of a node."""

    kubelet_version: str = ""
    container_runtime_version: str = ""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Amounts and conditions of a node."""

    capacity: dict[str, str] | None = None
    allocatable: dict[str, str] | None = None
    conditions: list[Condition] | None = None
    node_info: NodeInfo = NodeInfo()


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node; its inventory of cards is the annotation ``gpu-fraction.dev/inventory``."""

    metadata: ObjectMeta = ObjectMeta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        """True while the kubelet reports that the node is ready."""
        found = (c.status for c in self.status.conditions or () if c.type == "Ready")
        return next(found, "") == "True"


class QuotaSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The limits of a GPUQuota as quantities, for all pods and for each, and what they do."""

    hard: dict[str, Any] | None = None
    per_pod: dict[str, Any] | None = None
    scope_selector: dict[str, Any] | None = None
    enforcement: str = "Deny"


class QuotaStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The counted use of a GPUQuota; ``used`` is None until it was counted."""

    hard: dict[str, Any] | None = None
    used: dict[str, Any] | None = None
    reserved: list[dict[str, Any]] | None = None
    conditions: list[Condition] | None = None
    observed_generation: int = 0


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A GPUQuota (deploy/crd/gpuquotas.yaml)."""

    metadata: ObjectMeta = ObjectMeta()
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class EventSource(msgspec.Struct, frozen=True):
    """The component that wrote an event."""

    component: str = ""


class EventSeries(msgspec.Struct, frozen=True, rename="camel"):
    """Of an Event that happens again and again (events.k8s.io)."""

    last_observed_time: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A core/v1 Event; of the times, those that the writer set."""

    metadata: ObjectMeta = ObjectMeta()
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    source: EventSource | None = None
    reporting_component: str = ""
    event_time: str | None = None
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    series: EventSeries | None = None

    @property
    def at(self) -> str:
        """When it happened last, RFC 3339; empty where unknown."""
        return (
            (self.series and self.series.last_observed_time)
            or self.last_timestamp
            or self.event_time
            or self.first_timestamp
            or self.metadata.creation_timestamp
            or ""
        )

    @property
    def writer(self) -> str:
        """The component that wrote it."""
        return self.reporting_component or (self.source.component if self.source else "")
