"""The description of a GPU-sharing stack, its own settings, and a cluster's settings for all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar, cast

from gpu_fraction.domain import frameworks
from gpu_fraction.domain.pod import Toleration
from gpu_fraction.domain.sizes import CardSizes

NVIDIA_TAINT: Final = Toleration("nvidia.com/gpu", "Exists", effect="NoSchedule")
"""For the taint of GPU nodes: GKE sets it, and NVIDIA's own DaemonSets tolerate it."""

NVIDIA_PRODUCT: Final = "nvidia.com/gpu.product"
"""The label with a node's model (NVIDIA/k8s-device-plugin docs/gpu-feature-discovery)."""

Isolates = Literal["hard", "soft", "some nodes", "none"]
"""How a stack keeps a container to its share: by hardware or the driver; by a library in the
container's processes; as its nodes are configured; not at all."""

T = TypeVar("T", str, int)


@dataclass(frozen=True, slots=True)
class StackSetting(Generic[T]):
    """A setting that one stack has; its flag, variable and file key come from the name.

    Attributes:
        name: In the form of a file key, starting with the stack's name (``kai_queue``).
        default: Its value where the cluster sets none.
        help: One line for users.
        allowed: The words, or the range of whole numbers; None for any text.
        charged: The cost of pods depends on it, so the quota controller has it too.
    """

    name: str
    default: T
    help: str
    allowed: tuple[str, ...] | range | None = None
    charged: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """The description of a stack for users; docs/backends.md is made of it.

    Attributes:
        title: The product's name.
        memory: How its memory is requested: the resource's unit and step.
        compute: How its compute is requested.
        cards: What it gives a container of several cards.
        memory_isolation: How it keeps a container to its memory.
        compute_isolation: How it keeps a container to its compute.
        source: Where these facts were read, with the date or commit.
        unverified: Facts that no source settles; each is a warning at admission.
    """

    title: str
    memory: str
    compute: str
    cards: str
    memory_isolation: Isolates
    compute_isolation: Isolates
    source: str
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """What a cluster tells every backend.

    Attributes:
        card_sizes: Memory of the cluster's cards.
        runtime_class: ``runtimeClassName`` to set where the pod has none; None for none.
            Off by default: GPU Operator with NRI on has no class ``nvidia``, and naming a
            missing class fails the pod (NVIDIA cloud-native-docs, gpu-operator/cdi.rst).
        env: Variables for every GPU container, where absent.
        own: Values of the stacks' own settings, by name; a missing one has its default.
        framework_env: Whether containers get the variables of frameworks.
    """

    card_sizes: CardSizes = field(default_factory=CardSizes)
    runtime_class: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    framework_env: frameworks.Switch = "on"

    def of(self, one: StackSetting[T]) -> T:
        """The value of a stack's own setting."""
        return cast("T", self.own.get(one.name) or one.default)


def flag(one: StackSetting[Any]) -> str:
    """A setting as users write it on the command line."""
    return "--" + one.name.replace("_", "-")
