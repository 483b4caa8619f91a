"""The interface of a GPU-sharing stack, and what all stacks share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from gpu_fraction.domain import request_annotation, sizes, units
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.keys import MEMORY, REQUEST
from gpu_fraction.domain.pod import (
    ContainerAt,
    EnvVar,
    Pod,
    Resources,
    Toleration,
    containers,
)
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Refused, Request, Slice, annotation_path
from gpu_fraction.domain.sizes import Amounts, CardSizes

NVIDIA_TAINT: Final = Toleration("nvidia.com/gpu", "Exists", effect="NoSchedule")
"""For the taint of GPU nodes: GKE sets it, and NVIDIA's own DaemonSets tolerate it."""


class Stack:
    """A GPU-sharing stack whose pods this project recognises and charges.

    Attributes:
        name: The word by which settings and the request annotation name it.
        scheduler: The scheduler that places its pods; None where any does.
        resources: Prefixes of its resource names.
        takes_over: Resources of another stack that are this one's in a pod that it claims.
        reads_our_annotations: It reads ``gpu-fraction`` itself, so its scheduler's pods are left
            to it unless it is a configured backend.
    """

    name: ClassVar[str]
    scheduler: ClassVar[str | None] = None
    resources: ClassVar[tuple[str, ...]] = ()
    takes_over: ClassVar[frozenset[str]] = frozenset()
    reads_our_annotations: ClassVar[bool] = False

    def claims(self, pod: Pod) -> bool:
        """True for a pod that asks this stack for GPUs, whoever wrote it."""
        return any(
            name.startswith(self.resources)
            for at in containers(pod)
            if at.container.resources is not None
            for name in at.container.resources.names()
        )

    def demand(self, pod: Pod) -> Demand:  # noqa: ARG002 - for those that count nothing
        """What a pod that it claims costs; nothing where no quota can count it."""
        return ZERO

    def cards(self, annotations: Mapping[str, str]) -> dict[str, tuple[str, int]]:  # noqa: ARG002
        """Model and MiB, by UUID, of the cards that its components register on a Node.

        Args:
            annotations: The Node's.
        """
        return {}

    def sets(self, pod: Pod, at: ContainerAt, variable: EnvVar) -> bool:  # noqa: ARG002
        """True for a variable by which its own components tell a container its cards.

        Tenants write such pods too, so this is true only for variables that those components
        overwrite.
        """
        return False


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """What a cluster tells every backend.

    Attributes:
        card_sizes: Memory of the cluster's cards.
        runtime_class: ``runtimeClassName`` to set where the pod has none; None for none.
            Off by default: GPU Operator with NRI on has no class ``nvidia``, and naming a
            missing class fails the pod (NVIDIA cloud-native-docs, gpu-operator/cdi.rst).
        env: Variables for every GPU container, where absent.
    """

    card_sizes: CardSizes = field(default_factory=CardSizes)
    runtime_class: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Backend(Stack, ABC):
    """A stack that a cluster can be configured for.

    Attributes:
        config: The cluster's settings.
        tolerations: For the usual taints of its nodes.
        assignments: Annotations by which its components assign cards, besides ``assigned``;
            the author of a pod cannot write them.
        keeps_model_limits: Its scheduler chooses cards within the quotas' limits on models,
            so a waiting pod counts for no limited model yet.
        needs_no_root: ``isolation: required`` holds only while no container of the pod is
            root, so none can be added later.
    """

    config: BackendConfig = field(default_factory=BackendConfig)
    tolerations: ClassVar[tuple[Toleration, ...]] = ()
    assignments: ClassVar[tuple[str, ...]] = ()
    keeps_model_limits: ClassVar[bool] = False
    needs_no_root: ClassVar[bool] = False

    @abstractmethod
    def render(self, request: Request, pod: Pod) -> PodEdit:
        """What the pod must hold for this stack to give it what it asks.

        Raises:
            Refused: the stack cannot give it; the problems say why.
        """

    def start(self, request: Request) -> PodEdit:
        """An edit with the request annotation, the scheduler, the class and the tolerations."""
        return PodEdit(
            annotations={REQUEST: request_annotation.render(request, self.name)},
            scheduler_name=self.scheduler,
            runtime_class_name=self.config.runtime_class,
            tolerations=self.tolerations,
        )

    def parts(self, request: Request, edit: PodEdit) -> list[tuple[Slice, Amounts]]:
        """Each slice with its amounts; the edit's warnings say how they were worked out.

        Raises:
            Refused: a container asks for more memory than the largest eligible card has.
        """
        eligible = self.config.card_sizes.eligible_mib(request)
        largest = max(eligible, default=None)
        problems = []
        parts = []
        for part in request.slices:
            amounts = sizes.settle(part, eligible)
            if largest is not None and (amounts.memory_mib or 0) > largest:
                problems.append(
                    Problem(
                        annotation_path(MEMORY),
                        f"container {part.container} asks for {amounts.memory_mib} MiB on one "
                        f"GPU, but the largest eligible GPU has {largest} MiB",
                    )
                )
            if (warning := sizes.describe(part, amounts, eligible)) is not None:
                edit.warn(warning)
            parts.append((part, amounts))
        if problems:
            raise Refused(problems)
        return parts

    def give(
        self, edit: PodEdit, part: Slice, amounts: Amounts, resources: Mapping[str, int]
    ) -> None:
        """One container: its resources, and the variables that tell it its share."""
        edit.resources[part.container] = {
            name: units.format_count(count) for name, count in resources.items()
        }
        env = {}
        if amounts.core_milli is not None:
            env["GPU_FRACTION"] = units.format_milli(amounts.core_milli)
        if amounts.memory_mib is not None:
            env["GPU_MEMORY_LIMIT_MIB"] = str(amounts.memory_mib)
        present = edit.env.get(part.container, {})
        edit.env[part.container] = {**env, **self.config.env, **present}


def amount_of(resources: Resources | None, name: str) -> int:
    """A resource's amount as a whole number, rounded up; 0 where absent or unreadable."""
    text = resources.of(name) if resources else None
    return 0 if text is None else units.whole_amount(text)
