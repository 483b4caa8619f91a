"""What a pod may not do, because it would reach GPUs that it was not given.

Every field here is written by tenants (docs/threat-model.md).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from gpu_fraction.domain import kai
from gpu_fraction.domain.gpu_resources import is_gpu
from gpu_fraction.domain.pod import Container, ContainerAt, Pod, containers
from gpu_fraction.domain.problems import Problem, quote

Verdict = Literal["refuse", "allow"]

VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
HARMLESS_VISIBLE: Final = frozenset({"void", "none"})
"""Values that give no card (NVIDIA container toolkit, "GPU enumeration")."""

RESERVED_ENV: Final = ("CUDA_MPS_", "CUDA_VISIBLE_DEVICES")
"""Name prefixes by which a container could step out of its share of a card."""

__all__ = [
    "Policy",
    "Verdict",
    "check",
    "chosen_cards",
    "container_problems",
    "is_reserved",
    "preset_node",
]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a cluster lets GPU pods do; each knob is ``refuse`` unless set to ``allow``.

    Attributes:
        privileged: Privileged containers, which see every device of the node.
        host_devices: Volumes of the node's ``/dev`` or of folders above it.
        node_name: A preset ``spec.nodeName``, which goes past every scheduler.
        other_scheduler: Another ``spec.schedulerName`` than the backend's; it is kept.
    """

    privileged: Verdict = "refuse"
    host_devices: Verdict = "refuse"
    node_name: Verdict = "refuse"
    other_scheduler: Verdict = "refuse"


def _holds_gpu(container: Container) -> bool:
    """True where the container asks for a resource of any GPU stack."""
    return container.resources is not None and any(
        is_gpu(name) for name in container.resources.names()
    )


def is_reserved(variable: str) -> bool:
    """True for a variable that only the system sets in GPU pods."""
    return variable == VISIBLE or variable.startswith(RESERVED_ENV)


def check(
    pod: Pod, policy: Policy, *, gpu: bool, getting: Collection[str] = ()
) -> Iterator[Problem]:
    """Everything the pod may not do.

    Args:
        pod: The pod.
        policy: The cluster's knobs.
        gpu: Whether the pod gets a GPU; only one rule holds for the others.
        getting: Names of containers that get a GPU, whether or not they hold it already.
    """
    for at in containers(pod):
        yield from container_problems(
            at, policy, gpu=gpu, holds=at.container.name in getting or _holds_gpu(at.container)
        )
    if not gpu:
        return
    if policy.host_devices == "refuse":
        yield from _host_devices(pod)
    if policy.node_name == "refuse":
        yield from preset_node(pod)


def preset_node(pod: Pod) -> Iterator[Problem]:
    """A node that the pod's author chose."""
    if pod.spec.node_name:
        yield Problem(
            "spec.nodeName",
            f"{quote(pod.spec.node_name)} is refused in a pod that uses GPUs: it bypasses the "
            "GPU scheduler; use nodeSelector or affinity "
            "(cluster setting policy_node_name)",
        )


def container_problems(
    at: ContainerAt, policy: Policy, *, gpu: bool, holds: bool
) -> Iterator[Problem]:
    """What one container may not do.

    Args:
        at: The container.
        policy: The cluster's knobs.
        gpu: Whether its pod gets a GPU.
        holds: Whether the container itself does.
    """
    if at.container.env:
        yield from _env_problems(at, gpu=gpu, holds=holds)
    context = at.container.security_context
    if gpu and policy.privileged == "refuse" and context and context.privileged:
        yield Problem(
            f"{at.path}.securityContext.privileged",
            "true is refused in a pod that uses GPUs: the container would see every GPU of "
            "the node; allowed: false (cluster setting policy_privileged)",
        )


def chosen_cards(pod: Pod) -> Iterator[Problem]:
    """Cards that the pod's author chose, in a pod that another system's scheduler places."""
    for at in containers(pod):
        for index, var in enumerate(at.container.env or ()):
            if var.name != VISIBLE or var.value in HARMLESS_VISIBLE:
                continue
            if not kai.tells_cards(pod, at, var):
                yield _chooses(at, index)


def _env_problems(at: ContainerAt, *, gpu: bool, holds: bool) -> Iterator[Problem]:
    """Variables that choose GPUs or talk to another slice's MPS server."""
    strict = gpu and (holds or at.kind == "ephemeralContainers")
    for index, var in enumerate(at.container.env or ()):
        if var.name == VISIBLE:
            if strict or var.value not in HARMLESS_VISIBLE:
                yield _chooses(at, index)
        elif gpu and var.name.startswith(RESERVED_ENV):
            yield Problem(
                f"{at.path}.env[{index}]",
                f"{quote(var.name)[1:-1]} may not be set in a pod that uses GPUs: the system "
                "sets it; remove it",
            )


def _chooses(at: ContainerAt, index: int) -> Problem:
    return Problem(
        f"{at.path}.env[{index}]",
        f"{VISIBLE} may not be set: it would give the container GPUs that it was not "
        "assigned; remove it, the system sets it",
    )


def _host_devices(pod: Pod) -> Iterator[Problem]:
    for index, volume in enumerate(pod.spec.volumes or ()):
        if volume.host_path is None:
            continue
        parts = [part for part in volume.host_path.path.split("/") if part not in ("", ".")]
        if not parts or parts[0] == "dev" or ".." in parts:
            yield Problem(
                f"spec.volumes[{index}].hostPath.path",
                f"{quote(volume.host_path.path)} is refused in a pod that uses GPUs: it holds the "
                "node's device files; mount a folder outside /dev "
                "(cluster setting policy_host_devices)",
            )
