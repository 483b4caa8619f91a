"""Requests of kube-scheduler to an HTTP extender, and the answers.

Only the fields that are read are declared. Source: k8s.io/kube-scheduler/extender/v1/types.go;
Go marshals these without JSON names, so the keys are the Go field names.
"""

from typing import Generic, TypeVar

import msgspec

from gpu_fraction.scheduler.objects import Pod

T = TypeVar("T")


class FilterArgs(msgspec.Struct, frozen=True, rename="pascal"):
    """A pod and the names of the nodes to judge; also the arguments of prioritize.

    ``node_names`` is null if the scheduler's configuration lacks ``nodeCacheCapable``.
    """

    pod: Pod
    node_names: list[str] | None = None


class FilterResult(msgspec.Struct, frozen=True, rename="pascal"):
    """The nodes that fit and one line of reason for each of the others.

    A node on which preemption cannot help is in the second map only.
    """

    node_names: list[str] | None
    failed_nodes: dict[str, str] = {}
    failed_and_unresolvable_nodes: dict[str, str] = {}
    error: str = ""


class HostPriority(msgspec.Struct, frozen=True, rename="pascal", gc=False):
    """A node's score, 0 to 10."""

    host: str
    score: int


class BindingArgs(msgspec.Struct, frozen=True, rename={"pod_uid": "PodUID"}):
    """The pod to bind and the node chosen for it."""

    pod_name: str = msgspec.field(name="PodName")
    pod_namespace: str = msgspec.field(name="PodNamespace")
    pod_uid: str = msgspec.field(name="PodUID")
    node: str = msgspec.field(name="Node")


class BindingResult(msgspec.Struct, frozen=True, rename="pascal"):
    """Empty, or the reason why the pod was not bound."""

    error: str = ""


class _VictimMeta(msgspec.Struct, frozen=True):
    uid: str = ""


class VictimPod(msgspec.Struct, frozen=True):
    """A victim sent as a whole pod; only its uid is read."""

    metadata: _VictimMeta = _VictimMeta()


class MetaPod(msgspec.Struct, frozen=True):
    """A victim by its uid."""

    uid: str = msgspec.field(name="UID")


class Victims(msgspec.Struct, Generic[T], frozen=True):
    """The pods to evict from one node; Go marshals no pods as null."""

    pods: list[T] | None = msgspec.field(name="Pods", default=None)
    num_pdb_violations: int = msgspec.field(name="NumPDBViolations", default=0)


MetaVictims = Victims[MetaPod]


class PreemptionArgs(msgspec.Struct, frozen=True, rename="pascal"):
    """The pod in need and, for each node, the victims the scheduler proposes."""

    pod: Pod
    node_name_to_victims: dict[str, Victims[VictimPod]] | None = None
    node_name_to_meta_victims: dict[str, Victims[MetaPod]] | None = None


class PreemptionResult(msgspec.Struct, frozen=True, rename="pascal"):
    """The nodes where evicting helps, with the victims that are enough."""

    node_name_to_meta_victims: dict[str, Victims[MetaPod]]
