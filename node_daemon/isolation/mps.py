"""``mps``: containers run on a card at the same time, each within a share of its processors.

This is version 2 of NVIDIA's Multi-Process Service (every driver), which limits each client by
its own environment; version 3 is in ``mps_namespaces``.

In both the card is set to EXCLUSIVE_PROCESS, so that a program that ignores the pipe directory
gets no context at all instead of the whole card.
"""

import pathlib
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gpu_fraction.domain.inventory import Isolation
from gpu_fraction.node_daemon.isolation.compute_mode import ComputeModes
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
from gpu_fraction.node_daemon.isolation.mps_control import MpsControl
from gpu_fraction.node_daemon.isolation.mps_daemon import MpsDaemon
from gpu_fraction.node_daemon.state.errors import EngineFailedError

IN_CONTAINER: Final = "/run/gpu-fraction/mps"
# Source: MPS documentation, "Client connection limits" and "Volta MPS": 48 clients a card, and
# limits of single clients, from compute capability 7.0 on.
MAX_CLIENTS: Final = 48
OLDEST: Final = (7, 0)

ENV_PIPE: Final = "CUDA_MPS_PIPE_DIRECTORY"
ENV_PERCENT: Final = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
ENV_MEMORY: Final = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"


class MpsEngine(Engine):
    """Version 2: one control daemon for the node; limits in each container's environment.

    Args:
        modes: The cards' compute modes; None leaves them, so that a program may leave MPS.
        shm: Host directory (a tmpfs) mounted as ``/dev/shm`` of version 2 clients, which share
            memory with the server through it; None leaves the container's own.
        server_timeout_s: Longest wait for a version 3 server to be ready.
    """

    name: Isolation = "mps"
    max_containers = MAX_CLIENTS

    def __init__(
        self,
        modes: ComputeModes | None,
        control: MpsControl,
        daemon: MpsDaemon,
        shm: pathlib.Path | None = None,
        server_timeout_s: float = 5.0,
    ) -> None:
        self._modes = modes
        self._control = control
        self._daemon = daemon
        self._shm = shm
        self._server_timeout_s = server_timeout_s
        self._lock = threading.Lock()
        self._cards: tuple[str, ...] = ()

    def enforces(self, resource: Resource) -> Strength:
        """Both as long as the program keeps its environment."""
        del resource
        return Strength.COOPERATIVE

    def probe(self, cards: Sequence[CardFacts]) -> Mapping[str, str]:
        """Cards new enough and not in MIG mode, while the control daemon answers."""
        unfit = {
            card.uuid: "MPS is not used on MIG instances"
            if card.mig_instance
            else "MPS limits need compute capability 7.0"
            for card in cards
            if card.mig_instance or card.compute_capability < OLDEST
        }
        fit = [card.uuid for card in cards if card.uuid not in unfit]
        if not fit:
            return unfit
        with self._lock:
            try:
                self._running(tuple(fit))
            except EngineFailedError as e:
                return unfit | dict.fromkeys(fit, str(e))
        served = self._daemon.cards()
        late = [uuid for uuid in fit if served and uuid not in served]
        unfit |= dict.fromkeys(late, "was added after the MPS control daemon started")
        return unfit | self._claim([uuid for uuid in fit if uuid not in late])

    def _running(self, cards: tuple[str, ...]) -> bool:
        """Have the control daemon; True where it is a new one."""
        if not cards:
            raise EngineFailedError("MPS: no card has been assessed")
        self._cards = cards
        return self._daemon.ensure(cards)

    def _claim(self, cards: Sequence[str]) -> dict[str, str]:
        """Set the compute mode; the cards where that failed."""
        unfit: dict[str, str] = {}
        if self._modes is None:
            return unfit
        for uuid in cards:
            try:
                self._modes.claim(uuid)
            except EngineFailedError as e:
                unfit[uuid] = str(e)
        return unfit

    def prepare(self, part: Part) -> None:
        """The control daemon must answer: without it the program runs without limits."""
        del part
        with self._lock:
            self._running(self._cards)

    def edits(self, part: Part) -> ContainerEdits:
        """The pipe directory and the limits, by card."""
        env = {ENV_PIPE: IN_CONTAINER, **limits(part)}
        # The log directory is the daemon's; a client that writes there needs none.
        mounts = [bind_mount(str(self._control.pipe), IN_CONTAINER, writable=True)]
        if self._shm is not None:
            mounts.append(bind_mount(str(self._shm), "/dev/shm", writable=True))  # noqa: S108
        return ContainerEdits(env, tuple(mounts))

    def restore(self, parts: Sequence[Part], known: Collection[str]) -> None:
        """Start the control daemon if a container needs it."""
        del known
        if parts and self._cards:
            with self._lock:
                self._running(self._cards)


def limits(part: Part) -> dict[str, str]:
    """The environment that limits a client.

    Memory is by UUID: an entry for a card that the process does not see makes CUDA drop all
    memory limits of the client, and positions change with what it sees.
    """
    env: dict[str, str] = {}
    if Resource.COMPUTE in part.resources and (percent := compute_percent(part.shares)):
        env[ENV_PERCENT] = str(percent)
    if Resource.MEMORY in part.resources:
        env[ENV_MEMORY] = ",".join(f"{share.uuid}={share.memory_mib}M" for share in part.shares)
    return env
