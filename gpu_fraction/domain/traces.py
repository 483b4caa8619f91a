"""Which stacks a cluster runs, by what their components leave in it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Traces:
    """What a stack's components leave in a cluster; every text is a pattern (``fnmatch``).

    A stack is found on a node by its resources, labels, annotations or drivers there. One that
    declares none of these (a scheduler alone) is found on every node with one of its ``owns``,
    where the cluster has one of the rest.

    Attributes:
        resources: Resources that its nodes offer; None for the prefixes in ``Backend.resources``.
        labels: Labels of its nodes: ``KEY`` or ``KEY=VALUE``.
        annotations: Annotations of its nodes: ``KEY``.
        drivers: Drivers of its ResourceSlices.
        crds: Names of its CustomResourceDefinitions (``queues.scheduling.run.ai``).
        webhooks: Names of its webhook configurations, or of a webhook in one.
        owns: Resources of another stack's device plugin that are its own on a node where it is
            found, so that they show nothing else there.
    """

    resources: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    crds: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()
    owns: tuple[str, ...] = ()


class Stack(Protocol):
    """What detection reads of a backend."""

    name: ClassVar[str]
    scheduler: ClassVar[str | None]
    resources: ClassVar[tuple[str, ...]]
    traces: ClassVar[Traces]


@dataclass(slots=True)
class NodeTraces:
    """One node.

    Attributes:
        resources: Names of the resources that it has some of.
        labels: Its labels as ``KEY=VALUE``.
        annotations: Keys of its annotations.
        drivers: Drivers of its ResourceSlices.
    """

    resources: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    annotations: set[str] = field(default_factory=set)
    drivers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class ClusterTraces:
    """What was read of a cluster.

    Attributes:
        nodes: By name.
        crds: Names of its CustomResourceDefinitions.
        webhooks: Names of its webhook configurations and of their webhooks.
        schedulers: Names that pods use, or that a scheduler runs with.
    """

    nodes: dict[str, NodeTraces] = field(default_factory=dict)
    crds: set[str] = field(default_factory=set)
    webhooks: set[str] = field(default_factory=set)
    schedulers: set[str] = field(default_factory=set)

    def node(self, name: str) -> NodeTraces:
        """The node of this name, new where it is not known."""
        return self.nodes.setdefault(name, NodeTraces())


@dataclass(frozen=True, slots=True)
class Finding:
    """A stack that a cluster shows.

    Attributes:
        backend: The stack's name.
        nodes: Names of the nodes whose GPUs it hands out.
        seen: What showed it, each once: ``label gpushare=true``.
    """

    backend: str
    nodes: tuple[str, ...]
    seen: tuple[str, ...]


def detect(cluster: ClusterTraces, stacks: Mapping[str, type[Stack]]) -> list[Finding]:
    """Every stack that the cluster shows, the one with most nodes first.

    A stack without nodes is installed, as far as its definitions, webhooks or scheduler tell, but
    no node shows that it hands out GPUs. A scheduler of several stacks shows none of them.
    """
    users = Counter(stack.scheduler for stack in stacks.values())
    installed = {name: _installed(cluster, stack) for name, stack in stacks.items()}
    owned = {node: _owned(seen, stacks, installed) for node, seen in cluster.nodes.items()}
    found = []
    for name, stack in stacks.items():
        on: dict[str, list[str]] = {}
        for node, seen in cluster.nodes.items():
            taken = {r for owner, of_it in owned[node].items() if owner != name for r in of_it}
            if traces := _on_node(stack, seen, taken):
                on[node] = traces
            elif _node_wide(stack) and installed[name] and (own := owned[node].get(name)):
                on[node] = [f"resource {resource}" for resource in sorted(own)]
        if not on and users[stack.scheduler] > 1:
            installed[name] = [
                one for one in installed[name] if one != f"scheduler {stack.scheduler}"
            ]
        seen_by = [*(trace for traces in on.values() for trace in traces), *installed[name]]
        if seen_by:
            found.append(Finding(name, tuple(on), tuple(dict.fromkeys(seen_by))))
    return sorted(found, key=lambda one: -len(one.nodes))


def _node_wide(stack: type[Stack]) -> bool:
    """True for a stack that leaves nothing on nodes."""
    traces = stack.traces
    return not (_resources(stack) or traces.labels or traces.annotations or traces.drivers)


def _resources(stack: type[Stack]) -> tuple[str, ...]:
    declared = stack.traces.resources
    return tuple(f"{one}*" for one in stack.resources) if declared is None else declared


def _owned(
    node: NodeTraces, stacks: Mapping[str, type[Stack]], installed: Mapping[str, list[str]]
) -> dict[str, set[str]]:
    """The resources of the node that a stack takes for its own, by the stack's name."""
    return {
        name: resources
        for name, stack in stacks.items()
        if stack.traces.owns
        and (_on_node(stack, node, ()) or (_node_wide(stack) and installed[name]))
        and (resources := set(_matching(stack.traces.owns, node.resources)))
    }


def _on_node(stack: type[Stack], node: NodeTraces, taken: Iterable[str]) -> list[str]:
    """What shows the stack on one node."""
    traces = stack.traces
    return [
        f"{kind} {one}"
        for kind, patterns, present in (
            ("resource", _resources(stack), node.resources.difference(taken)),
            ("label", [p if "=" in p else f"{p}=*" for p in traces.labels], node.labels),
            ("annotation", traces.annotations, node.annotations),
            ("driver", traces.drivers, node.drivers),
        )
        for one in _matching(patterns, present)
    ]


def _installed(cluster: ClusterTraces, stack: type[Stack]) -> list[str]:
    """What shows the stack in the cluster as a whole."""
    scheduler = () if stack.scheduler is None else (stack.scheduler,)
    return [
        f"{kind} {one}"
        for kind, patterns, present in (
            ("CRD", stack.traces.crds, cluster.crds),
            ("webhook", stack.traces.webhooks, cluster.webhooks),
            ("scheduler", scheduler, cluster.schedulers),
        )
        for one in _matching(patterns, present)
    ]


def _matching(patterns: Iterable[str], present: Iterable[str]) -> list[str]:
    return sorted(one for one in present if any(fnmatchcase(one, p) for p in patterns))
