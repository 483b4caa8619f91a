"""The isolation engines that the node's settings name, once there is a driver to build them on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import structlog

from node_daemon.cards import nvml
from node_daemon.cards.inventory import CardIsolation
from node_daemon.cards.nvml_driver import Driver
from node_daemon.isolation.cgroup import CgroupEngine
from node_daemon.isolation.cgroup_paths import PodCgroups
from node_daemon.isolation.compute_mode import ComputeModes
from node_daemon.isolation.engine import CardFacts, Engine, Strength
from node_daemon.isolation.hami_core import HamiCoreEngine
from node_daemon.isolation.host_process import HostProcess
from node_daemon.isolation.mps import MpsEngine
from node_daemon.isolation.mps_control import MpsControl
from node_daemon.isolation.mps_daemon import MpsDaemon
from node_daemon.isolation.mps_namespaces import MpsNamespaceEngine
from node_daemon.isolation.node import NodeIsolation
from node_daemon.state.errors import EngineFailedError

EngineName = Literal["cgroup", "mps", "hami-core"]
MpsStart = Literal["host", "here", "never"]
"""Place where the MPS control daemon is started: as a process of the host, which outlives this
daemon's container; inside the container; or by another component."""

NAMESPACES_SINCE: Final = 615
"""The driver branch from which MPS has namespaces.
Source: https://docs.nvidia.com/deploy/mps/latest/mpsv3-namespaces.html"""

MODES: Final = "compute-modes.json"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """The node's choice of isolation engines.

    Attributes:
        engines: Most wanted first; a card uses the strongest of those that serve it.
        cards: The same for cards that have a list of their own, by UUID.
        accept: The least strength that counts as enforced.
        state: Directory for what engines must remember.
        mps: Directory of the MPS control daemon's pipes, the same inside and outside.
        mps_start: Place where the MPS control daemon is started.
        mps_shm: Host tmpfs that MPS, started on the host, and its clients of old drivers share;
            none leaves their own, as another start does.
        hami_library: Host directory of HAMi-core's library.
        cdi_hook: Host path of ``nvidia-cdi-hook``; empty leaves it to the host's own file.
    """

    engines: tuple[EngineName, ...] = ("cgroup",)
    cards: Mapping[str, tuple[EngineName, ...]] = field(default_factory=dict)
    accept: Strength = Strength.ENFORCED
    state: Path = Path("/var/lib/gpu-fraction/isolation")
    mps: Path = Path("/run/gpu-fraction/mps")
    mps_start: MpsStart = "host"
    mps_shm: Path | None = None
    hami_library: Path = Path("/usr/local/vgpu")
    cdi_hook: str = ""


class ConfiguredIsolation(NodeIsolation):
    """The node's isolation, by engines that are built once there is a driver."""

    def __init__(self, settings: IsolationSettings, cgroups: PodCgroups) -> None:
        super().__init__([], settings.accept)
        self._settings = settings
        self._cgroups = cgroups
        self._modes: ComputeModes | None = None

    def _build(self, driver: Driver) -> None:
        settings = self._settings
        self._modes = modes = ComputeModes(driver, settings.state / "mps" / MODES)
        names = dict.fromkeys(chain(settings.engines, *settings.cards.values()))
        made = {name: self._engine(name, driver, modes) for name in names}
        self.configure(
            [made[name] for name in settings.engines],
            {uuid: [made[name] for name in own] for uuid, own in settings.cards.items()},
        )

    def assess(
        self, cards: Sequence[CardFacts], driver: Driver | None = None
    ) -> Mapping[str, CardIsolation]:
        """The isolation of each card, by engines that are built for the first driver given.

        Cards that MPS does not serve, because it is not configured or refused, are freed, and
        limits that were lost are set again: a reset of a card takes them, and the end of MPS the
        namespaces.
        """
        if driver is not None and self._modes is None:
            self._build(driver)
        found = super().assess(cards)
        if self._modes is not None:
            self._modes.release(c.uuid for c in cards if "mps" not in self.engines(c.uuid))
        try:
            self.repair()
        except EngineFailedError as e:
            # Each start prepares its own container again, and is refused where that fails.
            _log.error("isolation_not_repaired", error=str(e))
        return found

    def _engine(self, name: EngineName, driver: Driver, modes: ComputeModes) -> Engine:
        settings = self._settings
        match name:
            case "cgroup":
                return CgroupEngine(driver, self._cgroups, settings.cdi_hook)
            case "hami-core":
                return HamiCoreEngine(settings.hami_library, settings.state / name)
            case "mps":
                return self._mps(driver, modes)

    def _mps(self, driver: Driver, modes: ComputeModes) -> Engine:
        new = _branch(driver) >= NAMESPACES_SINCE
        control = MpsControl(self._settings.mps, 3 if new else 2)
        on_host = self._settings.mps_start == "host"
        # Mounted together with a control daemon of the host alone: clients of another one
        # would not find the directory, or would not share it with their server.
        shm = self._settings.mps_shm if on_host and not new else None
        daemon = MpsDaemon(
            control,
            self._settings.state / "mps",
            may_start=self._settings.mps_start != "never",
            host=HostProcess(shm) if on_host else None,
        )
        kind = MpsNamespaceEngine if new else MpsEngine
        return kind(modes, control, daemon, shm)


def _branch(driver: Driver) -> int:
    """The first number of the driver's version, 0 where it is unknown."""
    try:
        first = driver.version().partition(".")[0]
    except nvml.NvmlError:
        return 0
    return int(first) if first.isdecimal() else 0
