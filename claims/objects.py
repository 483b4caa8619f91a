"""The objects that need templates, with the fields that say which.

A watch keeps one record for each workload of the cluster. So decoding drops everything that names
no template.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from gpu_fraction.domain import claim_template, keys, user_annotations
from gpu_fraction.domain.pod import Pod, ResourceClaim
from gpu_fraction.kube import resources
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.resources import Resource

FINISHED: Final = frozenset({"Succeeded", "Failed"})
"""Phases of pods whose containers never run again."""


class _AnnotatedMeta(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def annotations(self) -> dict[str, str] | None: ...


class _ClaimingSpec(Protocol):
    @property
    def resource_claims(self) -> list[ResourceClaim] | None: ...


class _Status(Protocol):
    @property
    def phase(self) -> str | None: ...


class ClaimingPod(Protocol):
    """The fields of a pod that tell its templates; who watches pods gives them."""

    @property
    def metadata(self) -> _AnnotatedMeta:
        """Identity, and the request annotation."""

    @property
    def spec(self) -> _ClaimingSpec:
        """Its claims."""

    @property
    def status(self) -> _Status | None:
        """Its phase."""


class _JobSpec(msgspec.Struct, frozen=True, rename="camel"):
    template: Pod | None = None


class _Job(msgspec.Struct, frozen=True, rename="camel"):
    spec: _JobSpec = _JobSpec()


class _ReplicatedJob(msgspec.Struct, frozen=True, rename="camel"):
    template: _Job = _Job()


class _Group(msgspec.Struct, frozen=True, rename="camel"):
    leader_template: Pod | None = None
    worker_template: Pod | None = None


class _WorkloadSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Where each kind has its pod templates."""

    template: Pod | None = None
    job_template: _Job | None = None
    replicated_jobs: list[_ReplicatedJob] | None = None
    leader_worker_template: _Group | None = None

    def pods(self) -> list[Pod]:
        jobs = [job.template for job in self.replicated_jobs or ()]
        jobs += [self.job_template] if self.job_template else []
        group = self.leader_worker_template or _Group()
        found = (
            self.template,
            *(job.spec.template for job in jobs),
            group.leader_template,
            group.worker_template,
        )
        return [pod for pod in found if pod is not None]


class WorkloadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A workload with the pod templates that have GPU annotations.

    Attributes:
        asking: Those templates.
    """

    metadata: Meta = Meta()
    spec: _WorkloadSpec = _WorkloadSpec()
    asking: tuple[Pod, ...] = ()

    def __post_init__(self) -> None:
        found = (p for p in self.spec.pods() if user_annotations.asks(p.annotations()))
        msgspec.structs.force_setattr(self, "asking", tuple(found))
        msgspec.structs.force_setattr(self, "spec", _WorkloadSpec())


class _LabelledMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    labels: dict[str, str] | None = None


class NamespaceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace with its choice of backend."""

    metadata: _LabelledMeta = _LabelledMeta()

    @property
    def backend(self) -> str | None:
        """The label's value."""
        return (self.metadata.labels or {}).get(keys.LABEL_BACKEND)


_NO_SPEC: Final = msgspec.Raw(b"null")


class TemplateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A ResourceClaimTemplate.

    Attributes:
        intact: Its specification is the one whose hash its name holds.
    """

    metadata: _LabelledMeta = _LabelledMeta()
    spec: msgspec.Raw = _NO_SPEC
    intact: bool = False

    def __post_init__(self) -> None:
        intact = claim_template.proves(self.metadata.name, msgspec.json.decode(self.spec))
        msgspec.structs.force_setattr(self, "intact", intact)
        msgspec.structs.force_setattr(self, "spec", _NO_SPEC)

    @property
    def ours(self) -> bool:
        """Whether it has our label."""
        labels = self.metadata.labels or {}
        return MANAGED.items() <= labels.items()


MANAGED: Final = {"app.kubernetes.io/managed-by": "gpu-fraction"}
"""Label of the templates that were made here."""


@dataclass(frozen=True, slots=True)
class Workloads:
    """A kind of workload.

    Attributes:
        resource: Its resource.
        optional: Its API comes with an extension, so that a cluster may lack it.
    """

    resource: Resource
    optional: bool = False


WORKLOADS: Final = (
    Workloads(resources.DEPLOYMENTS),
    Workloads(resources.STATEFUL_SETS),
    Workloads(resources.JOBS),
    Workloads(resources.CRON_JOBS),
    Workloads(Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet"), optional=True),
    Workloads(
        Resource("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet"),
        optional=True,
    ),
)
