"""``mps`` on drivers from R615: version 3 of MPS limits a namespace, and not its clients.

Which namespace a container is in is decided by the one socket directory that is mounted into it.
"""

import os
import pathlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gpu_fraction.node_daemon.isolation.engine import (
    ContainerEdits,
    Part,
    Resource,
    Strength,
    bind_mount,
    compute_percent,
)
from gpu_fraction.node_daemon.isolation.mps import ENV_PIPE, IN_CONTAINER, MpsEngine, limits
from gpu_fraction.node_daemon.isolation.mps_control import MpsNamespace
from gpu_fraction.node_daemon.isolation.mps_daemon import PIPE_LENGTH
from gpu_fraction.node_daemon.state.allocation import TAG_LENGTH, Binding
from gpu_fraction.node_daemon.state.errors import EngineFailedError

SERVER: Final = "gpu_fraction"
NAMESPACE_PREFIX: Final = "gf_"
# No container uses the server's own namespace. Chosen: little enough that a container that gets
# there gains nothing, and enough that a program runs and can be noticed.
DEFAULT_PERCENT: Final = 10
DEFAULT_MEMORY_MIB: Final = 512
_POLL_S: Final = 0.05


class MpsNamespaceEngine(MpsEngine):
    """Version 3: one server for the node, one namespace a container."""

    def enforces(self, resource: Resource) -> Strength:
        """Compute, by the server; memory as long as the program keeps its environment.

        A client that names a card it does not see in its memory limits loses all of them, the
        namespace's too. Source: NVIDIA Dynamo, "Per-GPU Compute and Memory Limits with MPS",
        measured on driver 615.71.09.
        """
        return Strength.ENFORCED if resource is Resource.COMPUTE else Strength.COOPERATIVE

    def loophole(self, resource: Resource, binding: Binding) -> str:
        """User 0 owns the server, and may raise the limits of any namespace it can reach."""
        if resource is Resource.COMPUTE and binding.root_risk:
            return f"MPS limits hold only for pods that cannot run as root: {binding.root_risk}"
        return ""

    _serving = False
    """The server was seen in this control daemon, and no command has failed since."""

    def _running(self, cards: tuple[str, ...]) -> bool:
        longest = self._pipe("0" * TAG_LENGTH)
        if len(os.fsencode(longest)) > PIPE_LENGTH:
            # The control daemon would fail without a word.
            raise EngineFailedError(f"{longest} is too long for a socket: shorten the MPS path")
        new = super()._running(cards)
        if new or not self._serving:
            self._serving = False
            self._have_server(cards)
            self._serving = True
        return new

    def _have_server(self, cards: tuple[str, ...]) -> None:
        if SERVER not in self._control.servers():
            self._control.run_v3(
                "server", "create", SERVER, f"--allowed-devices={','.join(cards)}"
            )
            self._control.run_v3(
                *("server", "set", SERVER),
                f"--active-thread-percentage={DEFAULT_PERCENT}",
                f"--pinned-memory-limit={DEFAULT_MEMORY_MIB}M",
            )
            self._ready()

    def _ready(self) -> None:
        """A server that names a missing card is accepted and then ends; clients run unlimited."""
        end_s = time.monotonic() + self._server_timeout_s
        while SERVER not in (found := self._control.servers()):
            if time.monotonic() > end_s:
                raise EngineFailedError(f"MPS server {SERVER} is not among {sorted(found)}")
            time.sleep(_POLL_S)

    def prepare(self, part: Part) -> None:
        """Make the container's namespace, with its limits, before its first process."""
        with self._lock:
            self._running(self._cards)
            try:
                self._namespace(part, self._control.namespaces(SERVER))
            except EngineFailedError:
                self._serving = False
                raise

    def _namespace(self, part: Part, present: Mapping[str, MpsNamespace]) -> None:
        name = _name(part.binding.tag)
        if name not in present:
            self._control.run_v3("namespace", "create", name, f"--server={SERVER}")
        memory, percent = _amounts(part)
        if not _holds(present.get(name), memory, percent):
            # Refused while a client is connected, so only where something differs.
            wanted = [f"--active-thread-percentage={percent:g}"]
            wanted += [f"--pinned-memory-limit={memory}M"] if memory else []
            self._control.run_v3("namespace", "set", name, f"--server={SERVER}", *wanted)
            made = self._control.namespaces(SERVER).get(name)
            if not _holds(made, memory, percent):
                raise EngineFailedError(f"MPS namespace {name} lacks the limits that were set")
            if (
                made is not None
                and made.pipe
                and pathlib.Path(made.pipe) != self._pipe(part.binding.tag)
            ):
                raise EngineFailedError(f"MPS namespace {name} is at {made.pipe}")

    def edits(self, part: Part) -> ContainerEdits:
        """Mounts the namespace's directory alone, and sets the limits a second time.

        The environment can only lower the namespace's limits; where cards have different
        amounts it does.
        """
        env = {ENV_PIPE: IN_CONTAINER, **limits(part)}
        pipe = bind_mount(str(self._pipe(part.binding.tag)), IN_CONTAINER, writable=True)
        return ContainerEdits(env, (pipe,))

    def release(self, binding: Binding) -> None:
        """Delete the namespace; refused while a client is connected."""
        with self._lock:
            if self._control.answers() and SERVER in self._control.servers():
                name = _name(binding.tag)
                if name in self._control.namespaces(SERVER):
                    self._control.run_v3("namespace", "delete", name, f"--server={SERVER}")

    def restore(self, parts: Sequence[Part], known: Collection[str]) -> None:
        """Recreate namespaces that a new control daemon lacks; delete those of no container.

        Programs lose their contexts with the old daemon in any case.
        """
        if not self._cards or not (parts or self._control.answers()):
            return
        failed: list[str] = []
        with self._lock:
            self._running(self._cards)
            present = self._control.namespaces(SERVER)
            for part in parts:
                try:
                    self._namespace(part, present)
                except EngineFailedError as e:
                    failed.append(str(e))
            wanted = {_name(tag) for tag in known}
            for name in present:
                if name.startswith(NAMESPACE_PREFIX) and name not in wanted:
                    try:
                        self._control.run_v3("namespace", "delete", name, f"--server={SERVER}")
                    except EngineFailedError as e:
                        failed.append(str(e))
        if failed:
            raise EngineFailedError("; ".join(failed))

    def _pipe(self, tag: str) -> pathlib.Path:
        return self._control.pipe / SERVER / _name(tag)


def _name(tag: str) -> str:
    """Lowercase letters, digits and underscores, as the control daemon demands."""
    return NAMESPACE_PREFIX + tag


def _holds(found: MpsNamespace | None, memory: int | None, percent: float) -> bool:
    """True where the namespace has the limits; an unreadable memory limit counts as equal."""
    if found is None or found.percent != percent:
        return False
    return None in {memory, found.memory_mib} or memory == found.memory_mib


def _amounts(part: Part) -> tuple[int | None, float]:
    """The namespace's limits: one amount for all cards, so the largest; None is no limit."""
    memory = None
    if Resource.MEMORY in part.resources:
        memory = max(share.memory_mib for share in part.shares)
    percent = compute_percent(part.shares) if Resource.COMPUTE in part.resources else 0
    return memory, float(percent or 100)
