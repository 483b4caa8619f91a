"""``hami-core``: a library loaded into every program of the container keeps it within limits.

It stands between the program and the CUDA driver. The library comes from a HAMi installation on
the host; this product does not contain it.
"""

import pathlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gpu_fraction.domain.inventory import Isolation
from gpu_fraction.node_daemon.isolation.engine import (
    CardFacts,
    ContainerEdits,
    Engine,
    Part,
    Resource,
    Strength,
    bind_mount,
    compute_percent,
)
from gpu_fraction.node_daemon.state.allocation import Binding
from gpu_fraction.node_daemon.state.errors import EngineFailedError

# Source: Project-HAMi/HAMi, the environment and mounts of its device plugin's Allocate.
LIBRARY: Final = "libvgpu.so"
PRELOAD: Final = "ld.so.preload"
IN_CONTAINER: Final = "/usr/local/vgpu"
LOCK_IN_CONTAINER: Final = "/tmp/vgpulock"  # noqa: S108 - the library has this path built in


class HamiCoreEngine(Engine):
    """Mounts the library and passes it the limits.

    Args:
        library: Directory on the host with ``libvgpu.so`` and ``ld.so.preload``.
        state: Directory on the host for what the library keeps of each container.
    """

    name: Isolation = "hami-core"
    optional = True  # a program could get round it in any case

    def __init__(self, library: pathlib.Path, state: pathlib.Path) -> None:
        self._library = library
        self._state = state

    def enforces(self, resource: Resource) -> Strength:
        """Both, for programs that load it: it is inside the container."""
        del resource
        return Strength.COOPERATIVE

    def probe(self, cards: Sequence[CardFacts]) -> Mapping[str, str]:
        """All cards are unfit without the library, MIG instances always."""
        for name in (LIBRARY, PRELOAD):
            if not (self._library / name).is_file():
                return {card.uuid: f"no {self._library / name} on the node" for card in cards}
        return {c.uuid: "the hardware isolates MIG instances" for c in cards if c.mig_instance}

    def prepare(self, part: Part) -> None:
        """Make the container's directory, writable by any user it runs as."""
        try:
            for directory in (self._own(part.binding), self._state / "lock"):
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(0o777)
        except OSError as e:
            raise EngineFailedError(f"{self._state}: {e.strerror}") from e

    def edits(self, part: Part) -> ContainerEdits:
        """Limits by the position at which the container sees the card."""
        order = {share.uuid: index for index, share in enumerate(part.binding.shares)}
        env = {
            # What the pod sets under this name would switch the library off.
            "CUDA_DISABLE_CONTROL": "false",
            "CUDA_DEVICE_MEMORY_SHARED_CACHE": f"{IN_CONTAINER}/{part.binding.tag}.cache",
        }
        if Resource.MEMORY in part.resources:
            for share in part.shares:
                env[f"CUDA_DEVICE_MEMORY_LIMIT_{order[share.uuid]}"] = f"{share.memory_mib}m"
        if Resource.COMPUTE in part.resources and (percent := compute_percent(part.shares)):
            env["CUDA_DEVICE_SM_LIMIT"] = str(percent)
        return ContainerEdits(
            env,
            mounts=(
                bind_mount(str(self._own(part.binding)), IN_CONTAINER, writable=True),
                bind_mount(str(self._library / LIBRARY), f"{IN_CONTAINER}/{LIBRARY}"),
                bind_mount(str(self._library / PRELOAD), f"/etc/{PRELOAD}"),
                bind_mount(str(self._state / "lock"), LOCK_IN_CONTAINER, writable=True),
            ),
            shrinks_total=Resource.MEMORY in part.resources,
        )

    def release(self, binding: Binding) -> None:
        """Remove the container's directory."""
        shutil.rmtree(self._own(binding), ignore_errors=True)

    def restore(self, parts: Sequence[Part], known: Collection[str]) -> None:
        """Make missing directories; remove those of containers that are gone."""
        for part in parts:
            self.prepare(part)
        containers = self._state / "containers"
        for directory in containers.iterdir() if containers.is_dir() else ():
            if directory.name not in known:
                shutil.rmtree(directory, ignore_errors=True)

    def _own(self, binding: Binding) -> pathlib.Path:
        return self._state / "containers" / binding.tag
