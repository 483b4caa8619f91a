"""The fields of a Pod that decisions depend on.

msgspec decodes these Structs straight from the wire; a second copy of every pod would cost more
than the decoding (docs/adr/0001). Only fields that are read are declared: patches apply to the
raw object, so other fields stay untouched. ``None`` means missing or ``null``.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec


class Metadata(msgspec.Struct, frozen=True):
    """Annotations and labels; no decision depends on the pod's name."""

    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class KeyRef(msgspec.Struct, frozen=True):
    """One key of a ConfigMap in the pod's namespace."""

    name: str = ""
    key: str = ""


class EnvSource(msgspec.Struct, frozen=True, rename="camel"):
    """The source of a variable's value."""

    config_map_key_ref: KeyRef | None = None


class EnvVar(msgspec.Struct, frozen=True, rename="camel"):
    """One environment variable: a value, or its source."""

    name: str
    value: str | None = None
    value_from: EnvSource | None = None


class EnvFrom(msgspec.Struct, frozen=True):
    """A ConfigMap or Secret whose keys are all variables; none is read."""


class ClaimRef(msgspec.Struct, frozen=True):
    """A container's reference to one of the pod's claims."""

    name: str = ""


class Resources(msgspec.Struct, frozen=True):
    """Requests and limits by resource name, quantities as written, and claims of devices."""

    limits: dict[str, str] | None = None
    requests: dict[str, str] | None = None
    claims: list[ClaimRef] | None = None

    def of(self, name: str) -> str | None:
        """The amount asked of one resource: the limit, else the request."""
        for amounts in (self.limits, self.requests):
            if amounts and name in amounts:
                return amounts[name]
        return None

    def names(self) -> Iterable[str]:
        """Every resource named in limits or requests, once."""
        if not self.requests:
            return self.limits or ()
        return dict.fromkeys((*(self.limits or ()), *self.requests))


class SecurityContext(msgspec.Struct, frozen=True, rename="camel"):
    """The security context of a container; a pod has only the user fields."""

    privileged: bool | None = None
    run_as_user: int | None = None
    run_as_non_root: bool | None = None
    allow_privilege_escalation: bool | None = None


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container, init container or ephemeral container."""

    name: str
    env: list[EnvVar] | None = None
    resources: Resources | None = None
    restart_policy: str | None = None
    security_context: SecurityContext | None = None
    env_from: list[EnvFrom] | None = None

    def resource_names(self) -> Iterable[str]:
        """Every resource in limits or requests, once."""
        return self.resources.names() if self.resources is not None else ()


class HostPath(msgspec.Struct, frozen=True):
    """A folder of the node."""

    path: str


class Volume(msgspec.Struct, frozen=True, rename="camel"):
    """A volume; only folders of the node are read."""

    host_path: HostPath | None = None


class Toleration(msgspec.Struct, frozen=True, omit_defaults=True):
    """A toleration of node taints."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""

    def covers(self, other: "Toleration") -> bool:
        """True where every taint that the other tolerates is tolerated by this one."""
        wide = self.operator == "Exists" and self.key in ("", other.key)
        return self == other or (wide and self.effect in ("", other.effect))


class ResourceClaim(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A reference to a ResourceClaim or ResourceClaimTemplate of the namespace."""

    name: str = ""
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """The pod's specification."""

    containers: list[Container] = []
    init_containers: list[Container] | None = None
    ephemeral_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    node_name: str | None = None
    scheduler_name: str | None = None
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None
    resource_claims: list[ResourceClaim] | None = None
    security_context: SecurityContext | None = None


class Pod(msgspec.Struct, frozen=True):
    """A Pod, or the template of one."""

    metadata: Metadata = Metadata()
    spec: Spec = Spec()

    def annotations(self) -> Mapping[str, str]:
        """The annotations, empty where there are none."""
        return self.metadata.annotations or _NONE


_NONE: Final[Mapping[str, str]] = {}


class ContainerAt(msgspec.Struct, frozen=True):
    """A container and its position, for messages and patches."""

    kind: str  # containers, initContainers or ephemeralContainers
    index: int
    container: Container

    @property
    def path(self) -> str:
        """The field path as the API server writes it."""
        return f"spec.{self.kind}[{self.index}]"

    @property
    def pointer(self) -> str:
        """The JSON pointer (RFC 6901)."""
        return f"/spec/{self.kind}/{self.index}"


def containers(pod: Pod) -> list[ContainerAt]:
    """Every container of the pod: regular, init, ephemeral, in that order."""
    spec = pod.spec
    found = [ContainerAt("containers", i, c) for i, c in enumerate(spec.containers)]
    if spec.init_containers:
        found += [ContainerAt("initContainers", i, c) for i, c in enumerate(spec.init_containers)]
    if spec.ephemeral_containers:
        found += [
            ContainerAt("ephemeralContainers", i, c)
            for i, c in enumerate(spec.ephemeral_containers)
        ]
    return found


def resource_names(pod: Pod) -> set[str]:
    """Every resource that a container of the pod names."""
    return {name for at in containers(pod) for name in at.container.resource_names()}


def is_sidecar(at: ContainerAt) -> bool:
    """True for an init container that runs beside the others (KEP-753)."""
    return at.kind == "initContainers" and at.container.restart_policy == "Always"
