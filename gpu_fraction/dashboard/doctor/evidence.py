"""What the checks look at: one reading of a cluster, each part with what it lacks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal

from gpu_fraction.dashboard import cluster
from gpu_fraction.dashboard.cluster import Cluster, NodeView
from gpu_fraction.dashboard.doctor.objects import (
    Budget,
    ClusterPolicy,
    Configuration,
    Crd,
    Endpoints,
    Group,
    Lease,
    Namespace,
    RuntimeClass,
    Service,
    ServiceReference,
    Version,
    Warned,
    Webhook,
    Workload,
)
from gpu_fraction.dashboard.objects import COMPONENT, PRODUCT, Node, ObjectMeta, Pod
from gpu_fraction.dashboard.snapshot import Gap, Part, Snapshot
from gpu_fraction.domain import keys

HOOKS: Final = ("mutate.gpu-fraction.dev", "validate.gpu-fraction.dev", "changes.gpu-fraction.dev")
"""The names of our webhooks, which no installation changes (deploy/webhook)."""

MANAGER: Final = "gpu-fraction"
"""The beginning of the names under which our programs write fields."""

Outcome = Literal["rewritten", "unchanged", "refused", "failed"]
"""Of the trial pod: as it should be; our webhook was not called; a webhook or a rule of the
cluster said no; a webhook could not be called."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The answer to a pod that is created as a dry run.

    Attributes:
        namespace: Where.
        outcome: What happened.
        text: The server's words; empty where the pod was accepted.
    """

    namespace: str
    outcome: Outcome
    text: str = ""


@dataclass(frozen=True, slots=True)
class Right:
    """Whether an account of ours may do what its program does."""

    account: str
    verb: str
    resource: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class Scrape:
    """The metrics of one pod: the sum of each name's samples."""

    pod: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Evidence:
    """A cluster at about one time. Every part may lack something: ``Part.gap``.

    Attributes:
        at: The server's clock where it is known, else this machine's.
        skew_s: Seconds by which this machine's clock is ahead of the server's; None where unknown.
        snapshot: What every view reads.
        system: The namespace of the installation.
    """

    at: datetime
    skew_s: float | None = None
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(datetime.now(UTC)))
    system: str = keys.SYSTEM_NAMESPACE
    version: Part[Version] = field(default_factory=Part)
    groups: Part[Group] = field(default_factory=Part)
    mutating: Part[Configuration] = field(default_factory=Part)
    validating: Part[Configuration] = field(default_factory=Part)
    services: Part[Service] = field(default_factory=Part)
    endpoints: Part[Endpoints] = field(default_factory=Part)
    namespaces: Part[Namespace] = field(default_factory=Part)
    deployments: Part[Workload] = field(default_factory=Part)
    daemon_sets: Part[Workload] = field(default_factory=Part)
    leases: Part[Lease] = field(default_factory=Part)
    runtime_classes: Part[RuntimeClass] = field(default_factory=Part)
    crds: Part[Crd] = field(default_factory=Part)
    budgets: Part[Budget] = field(default_factory=Part)
    policies: Part[ClusterPolicy] = field(default_factory=Part)
    events: Part[Warned] = field(default_factory=Part)
    rights: Part[Right] = field(default_factory=Part)
    trials: Part[Trial] = field(default_factory=Part)
    metrics: Part[Scrape] = field(default_factory=Part)

    def gap(self, name: str) -> Gap | None:
        """Why a part says nothing; None where it can be used."""
        part: Part[Any] = getattr(self if hasattr(self, name) else self.snapshot, name)
        return None if part.read else part.gap

    @cached_property
    def cluster(self) -> Cluster:
        """The nodes with their cards, the pods and the quotas."""
        return cluster.view(self.snapshot)

    @cached_property
    def ours(self) -> tuple[tuple[Configuration, Webhook], ...]:
        """Our webhooks, with their configurations."""
        return tuple((c, w) for c, w in self.pod_webhooks if w.name in HOOKS)

    @cached_property
    def pod_webhooks(self) -> tuple[tuple[Configuration, Webhook], ...]:
        """All webhooks that pods reach."""
        found = (*self.mutating.items, *self.validating.items)
        return tuple((c, w) for c in found for w in c.webhooks or () if reaches_pods(w))

    @property
    def backend(self) -> str:
        """The stack that the webhook rewrites pods for, as far as its Deployment says it."""
        webhook = self.workload("webhook")
        return (webhook.setting("backend") if webhook else None) or keys.NATIVE

    @property
    def own_nodes(self) -> bool:
        """Whether nodes are ours to look after: not where another stack serves them."""
        return not self.installed or self.workload("node-daemon") is not None

    @property
    def installed(self) -> bool:
        """Whether anything of the product is there."""
        return bool(self.ours or self.own_pods)

    @property
    def own_pods(self) -> tuple[Pod, ...]:
        """The product's own pods; the label alone says nothing, because tenants write labels."""
        found = self.cluster.own_pods
        return tuple(pod for pod in found if pod.metadata.namespace == self.system)

    def component(self, name: str) -> tuple[Pod, ...]:
        """The product's pods of one component that have not ended."""
        found = self.own_pods
        return tuple(p for p in found if component_of(p.metadata) == name and not p.finished)

    def workload(self, name: str) -> Workload | None:
        """The Deployment or DaemonSet of one component."""
        found = (*self.deployments.items, *self.daemon_sets.items)
        return next(
            (w for w in found if is_ours(w.metadata) and component_of(w.metadata) == name), None
        )

    @property
    def selector(self) -> Mapping[str, str]:
        """The labels of nodes that the node daemon runs on; empty where it runs on all."""
        daemon = self.workload("node-daemon")
        return (daemon.spec.template.spec.node_selector or {}) if daemon else SELECTOR

    @cached_property
    def gpu_nodes(self) -> tuple[Node, ...]:
        """The nodes that the node daemon should run on."""
        wanted = self.selector.items()
        nodes = self.snapshot.nodes.items
        return tuple(node for node in nodes if wanted <= (node.metadata.labels or {}).items())

    @cached_property
    def native_nodes(self) -> tuple[NodeView, ...]:
        """The nodes with an inventory of cards."""
        return tuple(view for view in self.cluster.nodes if view.inventory is not None)

    def about(self, *texts: str) -> tuple[Warned, ...]:
        """Warnings of the last hour with one of these texts in reason or message, newest first."""
        lower = [text.lower() for text in texts]
        found = [
            event
            for event in self.events.items
            if any(text in f"{event.reason} {event.message}".lower() for text in lower)
        ]
        return tuple(sorted(found, key=lambda event: event.at, reverse=True))

    def age_s(self, text: str | None) -> float | None:
        """Seconds since a time of the API; None where there is none."""
        then = moment(text)
        return None if then is None else (self.at - then).total_seconds()


SELECTOR: Final = {"nvidia.com/gpu.present": "true"}
"""The label of nodes with GPUs (deploy/node-daemon)."""


def moment(text: str | None) -> datetime | None:
    """A time of the API; None where it is absent or unreadable."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ready(pod: Pod) -> bool:
    """Whether all containers of a pod are ready."""
    found = pod.condition("Ready")
    return found is not None and found.status == "True"


def is_ours(metadata: ObjectMeta) -> bool:
    """Whether an object belongs to the product."""
    label, value = PRODUCT
    return (metadata.labels or {}).get(label) == value


def component_of(metadata: ObjectMeta) -> str:
    """The component that an object of the product belongs to."""
    return (metadata.labels or {}).get(COMPONENT, "")


def reaches_pods(webhook: Webhook) -> bool:
    """Whether creations or changes of pods reach a webhook."""
    return any(
        {"", "*"} & {*(rule.api_groups or ())}
        and any(name.split("/")[0] in {"pods", "*"} for name in rule.resources or ())
        for rule in webhook.rules or ()
    )


def services_of(webhooks: Iterable[Webhook]) -> tuple[ServiceReference, ...]:
    """The Services behind webhooks, each once."""
    found = (one.client_config.service for one in webhooks)
    return tuple({(s.namespace, s.name): s for s in found if s is not None}.values())
