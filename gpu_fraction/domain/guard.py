"""Refuses pods that would reach GPUs that they were not assigned.

Tenants write every field here (docs/threat-model.md).
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from gpu_fraction.domain import keys
from gpu_fraction.domain.backends import is_gpu
from gpu_fraction.domain.pod import Container, ContainerAt, EnvVar, Pod, containers
from gpu_fraction.domain.problems import Problem, quote

Permission = Literal["refuse", "allow"]

VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
HARMLESS_VISIBLE: Final = frozenset({"void", "none"})
"""Values that give no card (NVIDIA container toolkit, "GPU enumeration")."""

RESERVED_ENV: Final = ("CUDA_MPS_", "CUDA_VISIBLE_DEVICES")
"""Prefixes of variables with which a container could exceed its share of a card."""

PLUGIN_FOLDERS: Final = tuple(f"/var/lib/kubelet/device-plugins{end}" for end in ("", "/"))
"""Where device plugins register with the kubelet (pkg/kubelet/apis/deviceplugin/v1beta1)."""

Sets = Callable[[Pod, ContainerAt, EnvVar], bool]
"""Whether a GPU-sharing stack's own components set a variable."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Permissions of GPU pods; each is ``refuse`` unless the cluster sets it to ``allow``.

    Attributes:
        privileged: Privileged containers, which see every device of the node.
        host_devices: Volumes of the node's ``/dev`` or of folders above it.
        node_name: A preset ``spec.nodeName``, which bypasses every scheduler.
        other_scheduler: A ``spec.schedulerName`` other than the backend's; it is kept.
    """

    privileged: Permission = "refuse"
    host_devices: Permission = "refuse"
    node_name: Permission = "refuse"
    other_scheduler: Permission = "refuse"


def _holds_gpu(container: Container) -> bool:
    return any(map(is_gpu, container.resource_names()))


def is_reserved(variable: str) -> bool:
    """True for a variable that only the system sets in GPU pods."""
    return variable == VISIBLE or variable.startswith(RESERVED_ENV)


def _none(*_: object) -> bool:
    return False


def check(
    pod: Pod, policy: Policy, *, gpu: bool, getting: Collection[str] = (), sets: Sets = _none
) -> Iterator[Problem]:
    """Every violation of a pod.

    Args:
        pod: The pod.
        policy: The cluster's permissions.
        gpu: Whether the pod gets a GPU; a single rule applies to other pods.
        getting: Names of containers that get a GPU by annotation.
        sets: Whether the components of the pod's stack set a variable.
    """
    found = [
        (at, at.container.name in getting or _holds_gpu(at.container)) for at in containers(pod)
    ]
    asks = gpu or any(holds for _, holds in found) or any(map(keys.is_ours, pod.annotations()))
    plugin = not asks and any(
        volume.host_path is not None and volume.host_path.path in PLUGIN_FOLDERS
        for volume in pod.spec.volumes or ()
    )
    for at, holds in found:
        if not asks and (plugin or _privileged(at.container)):
            continue  # A vendor's DaemonSet; it reaches every GPU even without the variable.
        yield from container_problems(
            at, policy, gpu=gpu, holds=holds, sets=partial(sets, pod, at)
        )
    if not gpu:
        return
    if policy.host_devices == "refuse":
        yield from _host_devices(pod)
    if policy.node_name == "refuse":
        yield from preset_node(pod)


def preset_node(pod: Pod) -> Iterator[Problem]:
    """The violation of a preset node."""
    if pod.spec.node_name:
        yield Problem(
            "spec.nodeName",
            f"{quote(pod.spec.node_name)} is refused in a pod that uses GPUs: it bypasses the "
            "GPU scheduler; use nodeSelector or affinity "
            "(cluster setting policy_node_name)",
        )


def container_problems(
    at: ContainerAt,
    policy: Policy,
    *,
    gpu: bool,
    holds: bool,
    sets: Callable[[EnvVar], bool] = _none,
) -> Iterator[Problem]:
    """Every violation of one container.

    Args:
        at: The container.
        policy: The cluster's permissions.
        gpu: Whether its pod gets a GPU.
        holds: Whether the container itself gets one.
        sets: Whether the components of the pod's stack set a variable.
    """
    strict = gpu and (holds or at.kind == "ephemeralContainers")
    for index, var in enumerate(at.container.env or ()):
        if var.name == VISIBLE:
            if (strict or var.value not in HARMLESS_VISIBLE) and not sets(var):
                yield Problem(
                    f"{at.path}.env[{index}]",
                    f"{VISIBLE} may not be set: it would give the container GPUs that it was "
                    "not assigned; remove it, gpu-fraction sets it",
                )
        elif gpu and var.name.startswith(RESERVED_ENV) and not sets(var):
            yield Problem(
                f"{at.path}.env[{index}]",
                f"{quote(var.name)[1:-1]} may not be set in a pod that uses GPUs: gpu-fraction "
                "sets it; remove it",
            )
    if gpu and policy.privileged == "refuse" and _privileged(at.container):
        yield Problem(
            f"{at.path}.securityContext.privileged",
            "true is refused in a pod that uses GPUs: the container would see every GPU of "
            "the node; allowed: false (cluster setting policy_privileged)",
        )


def _privileged(container: Container) -> bool:
    context = container.security_context
    return context is not None and bool(context.privileged)


def _host_devices(pod: Pod) -> Iterator[Problem]:
    for index, volume in enumerate(pod.spec.volumes or ()):
        if volume.host_path is None:
            continue
        parts = [part for part in volume.host_path.path.split("/") if part not in ("", ".")]
        if not parts or parts[0] == "dev" or ".." in parts:
            yield Problem(
                f"spec.volumes[{index}].hostPath.path",
                f"{quote(volume.host_path.path)} is refused in a pod that uses GPUs: it contains "
                "the node's device files; mount a folder outside /dev "
                "(cluster setting policy_host_devices)",
            )
