"""What is known about one pod, or about the owner of pods that were refused. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec

from gpu_fraction.dashboard.cluster import Cluster, view
from gpu_fraction.dashboard.objects import Event, Pod
from gpu_fraction.dashboard.pods import PodView
from gpu_fraction.dashboard.snapshot import Gap, Snapshot
from gpu_fraction.domain import admission, keys
from gpu_fraction.domain import pod as domain
from gpu_fraction.domain.asks import Ask, as_written
from gpu_fraction.domain.claim_template import claims_of
from gpu_fraction.settings.rewrite import RewriteSettings

DRA: Final = "dra"
"""The backend whose cards kube-scheduler gives out by claims."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that was seen.

    Attributes:
        object: ``Kind namespace/name``.
        field: The path in it.
        text: Its value, or what follows from it.
        at: When, RFC 3339; empty where the object does not say.
    """

    object: str
    field: str
    text: str
    at: str = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """One of the product's webhooks as it is registered.

    Attributes:
        name: Such as ``mutate.gpu-fraction.dev``.
        configuration: Name of the object.
        selector: Its ``namespaceSelector``.
    """

    name: str
    configuration: str
    selector: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Webhook:
    """The settings of the cluster's webhook, for one namespace.

    Attributes:
        settings: What it was started with; the defaults where that was not read.
        label: The namespace's choice of a backend; None for none.
        source: The object with the settings; empty for the defaults.
    """

    settings: RewriteSettings = field(default_factory=RewriteSettings)
    label: str | None = None
    source: str = ""

    def admit(self, pod: domain.Pod) -> admission.Verdict:
        """What it does with a pod as its author wrote it.

        Raises:
            Refused: with every problem.
        """
        backend = self.settings.backend_of(pod, self.label)
        return admission.admit(pod, backend, self.settings.rules)

    def leaves(self, pod: domain.Pod) -> bool:
        """True for a pod of another system's scheduler."""
        return self.settings.rules.leaves(pod, self.settings.backend_for(self.label))


@dataclass(frozen=True)
class Facts:
    """What is known.

    Attributes:
        snapshot: The cluster.
        kind: What was asked about: ``Pod``, or an owner such as ``Deployment``.
        namespace: Its namespace.
        name: Its name.
        raw: The pod as JSON; for an owner without pods, the pod that its template makes.
        exists: Whether that pod exists.
        events: Events of the pod and, where it does not exist, of its owners; oldest first.
        node_events: Events of the pod's node, oldest first.
        labels: The namespace's labels; None where they were not read.
        hooks: The product's webhooks; None where they were not read.
        templates: Names of the namespace's claim templates; None where they were not read.
        webhook: The webhook's settings.
        gaps: What could not be read, beside the snapshot's.
        idle: The field by which an owner wants no pods now; empty where it wants some.
    """

    snapshot: Snapshot
    kind: str
    namespace: str
    name: str
    raw: Mapping[str, Any]
    exists: bool = True
    events: tuple[Event, ...] = ()
    node_events: tuple[Event, ...] = ()
    labels: Mapping[str, str] | None = None
    hooks: tuple[Hook, ...] | None = None
    templates: frozenset[str] | None = None
    webhook: Webhook = field(default_factory=Webhook)
    gaps: tuple[Gap, ...] = ()
    idle: str = ""

    @property
    def subject(self) -> str:
        """``Kind namespace/name``."""
        return f"{self.kind} {self.namespace}/{self.name}"

    @cached_property
    def cluster(self) -> Cluster:
        """The view of the cluster."""
        return view(self.snapshot)

    @cached_property
    def pod(self) -> PodView:
        """The pod, with its slices."""
        found = self.cluster.pod(self.namespace, self.name) if self.exists else None
        pod = as_pod(self.raw)
        return PodView(pod, found.slices if found and pod.metadata.uid else ())

    @cached_property
    def asks(self) -> tuple[Ask, ...]:
        """What each container asks of cards that the cluster's objects show; else none."""
        return asks_of_cards(self.pod)

    @property
    def annotations(self) -> Mapping[str, str]:
        """All annotations of the pod."""
        return (self.raw.get("metadata") or {}).get("annotations") or {}

    @property
    def rewritten(self) -> bool:
        """Whether the webhook has written the pod."""
        return keys.REQUEST in self.annotations

    @property
    def wanted(self) -> bool:
        """Whether the user's annotations ask for a GPU."""
        return any(keys.is_ours(key) and key not in keys.SYSTEM_KEYS for key in self.annotations)

    @property
    def backend(self) -> str:
        """The stack that the pod is written for; empty where it names none."""
        found = self.pod.rendered
        return found.backend if found else next(iter(self.pod.backends), "")

    def seen(self, path: str, text: str, at: str = "") -> Evidence:
        """Evidence in the pod, or in the owner's template."""
        return Evidence(self.subject, path, text, at)

    def told(self, *reasons: str) -> Iterable[Event]:
        """Events with one of these reasons, the latest first."""
        return (event for event in reversed(self.events) if event.reason in reasons)


class _Whole(Pod, frozen=True, kw_only=True):
    """A pod that keeps all that is read, whether it asks for a GPU or not."""

    def __post_init__(self) -> None:
        """Without what ``Pod`` does to save memory."""


def as_pod(raw: Mapping[str, Any]) -> Pod:
    """The decoded pod; an empty one where it cannot be decoded."""
    try:
        return msgspec.convert(raw, _Whole, strict=False)
    except msgspec.ValidationError:
        return Pod()


def asks_of_cards(pod: PodView) -> tuple[Ask, ...]:
    """The asks of a pod of our own stacks; none for other stacks."""
    if pod.asks:
        return pod.asks
    rendered = pod.rendered
    if rendered and rendered.backend == DRA:
        return tuple(as_written(rendered).values())
    shapes = (shape.share for _, _, shape in claims_of(pod.pod.domain()))
    return tuple(
        Ask(f"claim-{at}", s.cards, s.core_milli, s.memory_mib, s.memory_milli)
        for at, s in enumerate(shapes)
    )
