"""Namespaces and pods, as ``gpu-fraction status`` lists them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gpu_fraction.cli.printing import Column, Listing, Style, load_colour
from gpu_fraction.cli.status_cards import slice_record
from gpu_fraction.cli.words import age, age_s, memory, share, short_model
from gpu_fraction.dashboard.cluster import Cluster
from gpu_fraction.dashboard.pods import PodView, Slice
from gpu_fraction.dashboard.quotas import QuotaView


@dataclass(frozen=True, slots=True)
class Team:
    """A namespace with GPU pods or quotas.

    Attributes:
        name: The namespace.
        pods: Its pods that have not ended.
        slices: What they hold.
        quotas: Its quotas.
    """

    name: str
    pods: tuple[PodView, ...]
    slices: tuple[Slice, ...]
    quotas: tuple[QuotaView, ...]

    @property
    def waiting(self) -> int:
        """Pods that are on no node."""
        return sum(pod.state == "waiting" for pod in self.pods)

    @property
    def full_milli(self) -> int:
        """Thousandths that are taken of the limit that is closest to its end."""
        found = (quota.full_milli(key) for quota in self.quotas for key in quota.hard)
        return max((milli for milli in found if milli is not None), default=0)


@dataclass(frozen=True, slots=True)
class Part:
    """A slice with its pod, or a pod that holds none.

    Attributes:
        pod: The pod; None where it may not be read.
        slice: What it holds; None for nothing.
        model: Product name of the card; empty where unknown.
    """

    pod: PodView | None
    slice: Slice | None
    model: str = ""

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return self.pod.namespace if self.pod else self.slice.namespace if self.slice else ""

    @property
    def created(self) -> str | None:
        """When the pod was created; None where it may not be read."""
        return self.pod.pod.metadata.creation_timestamp if self.pod else None

    @property
    def name(self) -> str:
        """The pod's name, else the claim's."""
        if self.pod:
            return self.pod.name
        return (self.slice.pod or self.slice.claim) if self.slice else ""


def teams(look: Style) -> Listing[Team]:
    """Namespaces, with what their pods hold."""

    def cores(team: Team) -> int:
        return sum(one.core_milli for one in team.slices)

    def mib(team: Team) -> int:
        return sum(one.memory_mib for one in team.slices)

    def gpus(team: Team) -> int:
        return len({(one.node, one.uuid) for one in team.slices})

    def full(team: Team) -> str:
        return look.bar(team.full_milli) if any(q.hard for q in team.quotas) else "-"

    return Listing(
        "Namespace",
        (
            Column("NAMESPACE", lambda t: t.name),
            Column("PODS", lambda t: str(len(t.pods)), lambda t: len(t.pods)),
            Column("WAITING", lambda t: str(t.waiting), lambda t: t.waiting),
            Column("GPUS", lambda t: str(gpus(t)), gpus),
            Column("COMPUTE", lambda t: share(cores(t)), cores),
            Column("MEMORY", lambda t: memory(mib(t)), mib),
            Column("QUOTA", full, lambda t: t.full_milli, lambda t: load_colour(t.full_milli)),
        ),
        lambda t: {
            "name": t.name,
            "pods": len(t.pods),
            "waiting": t.waiting,
            "gpus": gpus(t),
            "coreMilli": cores(t),
            "memoryMib": mib(t),
            "fullestQuotaMilli": t.full_milli,
        },
        lambda t: f"namespace/{t.name}",
    )


def by_namespace(cluster: Cluster) -> list[Team]:
    """The namespaces with GPU pods or quotas."""
    pods = [view for view in cluster.pods if view.state != "finished"]
    slices: Sequence[Slice] = (*cluster.slices, *cluster.strays)
    holders = (pods, slices, cluster.quotas)
    names = {one.namespace for found in holders for one in found}
    return [
        Team(
            name,
            tuple(view for view in pods if view.namespace == name),
            tuple(one for one in slices if one.namespace == name),
            cluster.quotas_of(name),
        )
        for name in sorted(names)
    ]


def parts(now: datetime, index: Mapping[tuple[str, str], int]) -> Listing[Part]:
    """Pods, one line for each part of a card.

    Args:
        now: For ages.
        index: The number of each card, by node and UUID.
    """

    def cores(part: Part) -> int:
        if part.slice:
            return part.slice.core_milli
        return part.pod.demand.core_milli if part.pod else 0

    def held(part: Part) -> str:
        return share(cores(part)) if cores(part) else "any" if part.slice else "-"

    def node(part: Part) -> str:
        return (part.slice.node if part.slice else part.pod.node if part.pod else "") or "-"

    def gpu(part: Part) -> str:
        found = part.slice
        return str(index.get((found.node, found.uuid), "?")) if found else "-"

    def mib(part: Part) -> int:
        return part.slice.memory_mib if part.slice else 0

    def state(part: Part) -> str:
        return part.pod.state if part.pod else "-"

    return Listing(
        "Pod",
        (
            Column("NAMESPACE", lambda p: p.namespace),
            Column("POD", lambda p: p.name),
            Column("CONTAINER", lambda p: (p.slice.container if p.slice else "") or "-"),
            Column("STATE", state, paint=lambda p: "yellow" if state(p) == "waiting" else ""),
            Column("SHARE", held, cores),
            Column("MEMORY", lambda p: memory(mib(p)) if p.slice else "-", mib),
            Column("NODE", node),
            Column("GPU", gpu),
            Column("AGE", lambda p: age(p.created, now), lambda p: age_s(p.created, now)),
            Column("MODEL", lambda p: short_model(p.model), wide=True),
            Column("UUID", lambda p: p.slice.uuid if p.slice else "-", wide=True),
            Column("BACKEND", lambda p: ",".join(p.pod.backends) if p.pod else "-", wide=True),
            Column("OWNER", lambda p: (p.pod.owner if p.pod else "") or "-", wide=True),
        ),
        lambda p: {
            "namespace": p.namespace,
            "pod": p.name,
            "state": state(p),
            "node": "" if node(p) == "-" else node(p),
            "owner": p.pod.owner if p.pod else "",
            "backends": list(p.pod.backends) if p.pod else [],
            "model": p.model,
            "slice": {"uuid": p.slice.uuid, **slice_record(p.slice)} if p.slice else None,
        },
        lambda p: f"pod/{p.name}",
    )


def by_pod(cluster: Cluster) -> list[Part]:
    """The pods that have not ended, with their slices; then slices of unknown pods."""
    models_of = {(view.node, view.card.uuid): view.card.model for view in cluster.cards}

    def part(pod: PodView | None, one: Slice | None) -> Part:
        return Part(pod, one, models_of.get((one.node, one.uuid), "") if one else "")

    found: list[Part] = []
    known: set[str] = set()
    for pod in cluster.pods:
        known.add(pod.pod.metadata.uid)
        if pod.state != "finished":
            found += [part(pod, one) for one in pod.slices] or [part(pod, None)]
    every: Sequence[Slice] = (*cluster.slices, *cluster.strays)
    found += [part(None, one) for one in every if one.uid not in known]
    return found
