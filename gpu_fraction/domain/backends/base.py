"""What every GPU-sharing stack must be able to say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gpu_fraction.domain import request_annotation, sizes, units
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.keys import MEMORY, REQUEST
from gpu_fraction.domain.pod import Pod, Resources
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Request, Slice, annotation_path
from gpu_fraction.domain.sizes import Amounts, CardSizes
from gpu_fraction.domain.tally import Demand

__all__ = ["Backend", "BackendConfig", "Draft", "amount_of", "settled"]


class Backend(Protocol):
    """One GPU-sharing stack."""

    @property
    def name(self) -> str:
        """The word by which configuration and the request annotation name it."""

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """What the pod must hold for this stack to give it what it asks.

        Raises:
            Refused: the stack cannot give it; the problems say why.
        """

    def demand(self, pod: Pod) -> Demand:
        """What the pod's resources of this stack cost; zero where it has none."""


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


@dataclass(slots=True)
class Draft:
    """A ``PodEdit`` in the making, with what all backends share."""

    config: BackendConfig
    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    env: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, part: Slice, amounts: Amounts, resources: dict[str, int]) -> None:
        """One container: its resources, and the variables that tell it its share."""
        self.resources[part.container] = {
            name: units.format_count(count) for name, count in resources.items()
        }
        env = {}
        if amounts.core_milli is not None:
            env["GPU_FRACTION"] = units.format_milli(amounts.core_milli)
        if amounts.memory_mib is not None:
            env["GPU_MEMORY_LIMIT_MIB"] = str(amounts.memory_mib)
        self.env[part.container] = {**env, **self.config.env, **self.env.get(part.container, {})}

    def finish(self, backend: str, request: Request, scheduler: str | None = None) -> PodEdit:
        """The edit, with the request annotation."""
        return PodEdit(
            annotations={
                REQUEST: request_annotation.render(request, backend),
                **self.annotations,
            },
            resources=self.resources,
            env=self.env,
            scheduler_name=scheduler,
            runtime_class_name=self.config.runtime_class,
            warnings=tuple(self.warnings),
        )


def settled(
    config: BackendConfig, request: Request, draft: Draft
) -> tuple[list[tuple[Slice, Amounts]], list[Problem]]:
    """Each slice with its amounts, the warnings that say how, and what no card can hold."""
    eligible = config.card_sizes.eligible_mib(request)
    largest = max(eligible, default=None)
    problems = []
    parts = []
    for part in request.slices:
        amounts = sizes.settle(part, eligible)
        if largest is not None and (amounts.memory_mib or 0) > largest:
            problems.append(
                Problem(
                    annotation_path(MEMORY),
                    f"container {part.container} asks for {amounts.memory_mib} MiB on one GPU, "
                    f"but the largest eligible GPU has {largest} MiB",
                )
            )
        if (warning := sizes.describe(part, amounts, eligible)) is not None:
            draft.warnings.append(warning)
        parts.append((part, amounts))
    return parts, problems


def amount_of(resources: Resources | None, name: str) -> int:
    """A resource's amount as a whole number, rounded up; 0 where absent or unreadable."""
    text = resources.of(name) if resources else None
    return 0 if text is None else units.whole_amount(text)
