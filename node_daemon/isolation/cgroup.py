"""``cgroup``: the driver limits the device memory of a pod's cgroup (driver R615 and newer).

Source: https://docs.nvidia.com/deploy/mps/latest/mpsv3-memory-partitioning.html and NVML's
``nvmlDeviceSetMemoryLimits_v1``. The limit is set on the pod's cgroup, which exists before the
container does, and covers all its containers together; NVIDIA's own CDI hook, where the
host has it, sets the container's cgroup as well, from the environment given here.

The soft limit stays 0: a soft limit reserves memory in every parent cgroup, and the driver
takes the reservation back only when it is lowered, never when a cgroup is removed, as
containers' are.
"""

import contextlib
import pathlib
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gpu_fraction.domain.inventory import Isolation
from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup_paths import PodCgroups
from gpu_fraction.node_daemon.isolation.engine import (
    CardFacts,
    ContainerEdits,
    Engine,
    Part,
    Resource,
    Strength,
)
from gpu_fraction.node_daemon.state.allocation import Binding
from gpu_fraction.node_daemon.state.errors import EngineFailedError

MIB: Final = 1 << 20
PROBE: Final = "gpu-fraction-probe"

# Source: NVIDIA/nvidia-container-toolkit, cmd/nvidia-cdi-hook/apply-cuda-memory-limits: whole
# MiB, and the hook does nothing unless both variables are there.
HOOK: Final = "apply-cuda-memory-limits"
ENV_REQUEST: Final = "NVIDIA_GPU_MEMORY_REQUEST"
ENV_LIMIT: Final = "NVIDIA_GPU_MEMORY_LIMIT"


class CgroupEngine(Engine):
    """Sets and lifts the limits.

    Args:
        hook: Path of ``nvidia-cdi-hook`` on the host where the slice's file should call it;
            empty where the host's own specification does, or there is none.
    """

    name: Isolation = "cgroup"

    def __init__(self, driver: Driver, pods: PodCgroups, hook: str = "") -> None:
        self._driver = driver
        self._pods = pods
        self._hook = hook
        self._lock = threading.Lock()
        self._able: set[str] = set()
        self._held: dict[tuple[str, str], dict[str, int]] = {}
        """Pod and card to MiB by container."""

    def enforces(self, resource: Resource) -> Strength:
        """Memory, by the driver; compute not at all."""
        return Strength.ENFORCED if resource is Resource.MEMORY else Strength.NONE

    def probe(self, cards: Sequence[CardFacts]) -> Mapping[str, str]:
        """Set a limit on a cgroup of our own, read it back, and take it away again."""
        if not self._pods.unified:
            return {card.uuid: "the node has no cgroup v2" for card in cards}
        parent = next(self._pods.kubepods(), None)
        if parent is None:
            return {card.uuid: "the kubelet's cgroup was not found" for card in cards}
        unfit = {
            card.uuid: "MIG instances cannot have limits" for card in cards if card.mig_instance
        }
        untried = [c.uuid for c in cards if c.uuid not in self._able and c.uuid not in unfit]
        if untried:
            unfit |= self._try(parent / PROBE, untried)
        self._able.update(uuid for uuid in untried if uuid not in unfit)
        return unfit

    def _try(self, scratch: pathlib.Path, uuids: Sequence[str]) -> dict[str, str]:
        unfit: dict[str, str] = {}
        try:
            scratch.mkdir(exist_ok=True)
        except OSError as e:
            return dict.fromkeys(uuids, f"{scratch}: {e.strerror}")
        for uuid in uuids:
            try:
                self._write(uuid, scratch, MIB)
                self._write(uuid, scratch, None)
            except (nvml.NvmlError, EngineFailedError) as e:
                unfit[uuid] = str(e)
        with contextlib.suppress(OSError):
            scratch.rmdir()
        return unfit

    def prepare(self, part: Part) -> None:
        """Raise the pod's limit on each card by this container's part."""
        with self._lock:
            path = self._pods.find(part.binding.uid)
            if path is None:
                raise EngineFailedError(f"pod {part.binding.uid} has no cgroup on this node")
            for share in part.shares:
                held = self._held.setdefault((part.binding.uid, share.uuid), {})
                held[part.binding.container] = share.memory_mib
                self._set(share.uuid, path, sum(held.values()))

    def edits(self, part: Part) -> ContainerEdits:
        """The environment of NVIDIA's hook, and the hook itself where configured.

        The hook takes one amount for all cards: where they differ it gets the largest, and the
        pod's limits hold the others. Leaving it out would let the pod set its own.
        """
        limit = max(share.memory_mib for share in part.shares)
        env = {ENV_REQUEST: "0", ENV_LIMIT: str(limit)}
        if not self._hook:
            return ContainerEdits(env)
        cards = [word for share in part.shares for word in ("--gpu-id", share.uuid)]
        hook = {
            "hookName": "createRuntime",
            "path": self._hook,
            "args": [pathlib.PurePath(self._hook).name, HOOK, *cards],
        }
        return ContainerEdits(env, hooks=(hook,))

    def release(self, binding: Binding) -> None:
        """Lower the pod's limits by this container's part; none is left after the last."""
        with self._lock:
            path = self._pods.find(binding.uid)
            for pod, uuid in [key for key in self._held if key[0] == binding.uid]:
                held = self._held[pod, uuid]
                if binding.container not in held:
                    continue
                left = {c: mib for c, mib in held.items() if c != binding.container}
                if path is not None:
                    self._set(uuid, path, sum(left.values()) or None)
                # Forgotten only now: a limit that could not be lowered is tried again.
                self._held[pod, uuid] = left
                if not left:
                    del self._held[pod, uuid]

    def restore(self, parts: Sequence[Part], known: Collection[str]) -> None:
        """Set the limits of all these containers again, where their pods still exist."""
        del known
        with self._lock:
            self._held = {}
            for part in parts:
                for share in part.shares:
                    held = self._held.setdefault((part.binding.uid, share.uuid), {})
                    held[part.binding.container] = share.memory_mib
            failed: list[str] = []
            for (pod, uuid), held in self._held.items():
                path = self._pods.find(pod)
                if path is not None:
                    try:
                        self._set(uuid, path, sum(held.values()))
                    except EngineFailedError as e:
                        failed.append(str(e))
        if failed:
            raise EngineFailedError("; ".join(failed))

    def _set(self, uuid: str, path: pathlib.Path, mib: int | None) -> None:
        try:
            self._write(uuid, path, None if mib is None else mib * MIB)
        except nvml.NvmlError as e:
            raise EngineFailedError(f"memory limit of {path.name} on {uuid}: {e}") from e

    def _write(self, uuid: str, path: pathlib.Path, hard: int | None) -> None:
        """Set and read back: a limit that the driver took and does not show is none."""
        wanted = nvml.UNLIMITED if hard is None else hard
        device = self._driver.device_by_uuid(uuid)
        device.set_memory_limits(str(path), 0, wanted)
        found = device.memory_limits(str(path)).hard
        if found != wanted:
            raise EngineFailedError(f"the driver reports {found} bytes for {path}, not {wanted}")
