"""What a pod may not do, because it would reach GPUs that it was not given.

Every field here is written by tenants (docs/threat-model.md).
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from gpu_fraction.domain import keys
from gpu_fraction.domain.backends import is_gpu
from gpu_fraction.domain.pod import Container, ContainerAt, EnvVar, Pod, containers
from gpu_fraction.domain.problems import Problem, quote

Verdict = Literal["refuse", "allow"]

VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
HARMLESS_VISIBLE: Final = frozenset({"void", "none"})
"""Values that give no card (NVIDIA container toolkit, "GPU enumeration")."""

RESERVED_ENV: Final = ("CUDA_MPS_", "CUDA_VISIBLE_DEVICES")
"""Name prefixes by which a container could step out of its share of a card."""

PLUGIN_FOLDERS: Final = tuple(f"/var/lib/kubelet/device-plugins{end}" for end in ("", "/"))
"""Where device plugins register with the kubelet (pkg/kubelet/apis/deviceplugin/v1beta1)."""

Sets = Callable[[Pod, ContainerAt, EnvVar], bool]
"""Whether a variable is one that a GPU-sharing stack's own components set."""


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


def _none(*_: object) -> bool:
    return False


def check(
    pod: Pod, policy: Policy, *, gpu: bool, getting: Collection[str] = (), sets: Sets = _none
) -> Iterator[Problem]:
    """Everything the pod may not do.

    Args:
        pod: The pod.
        policy: The cluster's knobs.
        gpu: Whether the pod gets a GPU; only one rule holds for the others.
        getting: Names of containers that get a GPU, whether or not they hold it already.
        sets: Which variables the components of the pod's stack set.
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
            continue  # A vendor's DaemonSet reaches every GPU without the variable too.
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
    """A node that the pod's author chose."""
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
    """What one container may not do.

    Args:
        at: The container.
        policy: The cluster's knobs.
        gpu: Whether its pod gets a GPU.
        holds: Whether the container itself does.
        sets: Which variables the components of the pod's stack set.
    """
    strict = gpu and (holds or at.kind == "ephemeralContainers")
    for index, var in enumerate(at.container.env or ()):
        if var.name == VISIBLE:
            if (strict or var.value not in HARMLESS_VISIBLE) and not sets(var):
                yield _chooses(at, index)
        elif gpu and var.name.startswith(RESERVED_ENV) and not sets(var):
            yield Problem(
                f"{at.path}.env[{index}]",
                f"{quote(var.name)[1:-1]} may not be set in a pod that uses GPUs: the system "
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
