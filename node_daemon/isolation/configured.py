"""The isolation engines that the node's settings name, once there is a driver to build them on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Literal, cast, get_args

import structlog

from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.inventory import CardIsolation
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup import CgroupEngine
from gpu_fraction.node_daemon.isolation.cgroup_paths import PodCgroups
from gpu_fraction.node_daemon.isolation.compute_mode import ComputeModes
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Engine, Strength
from gpu_fraction.node_daemon.isolation.hami_core import HamiCoreEngine
from gpu_fraction.node_daemon.isolation.host_process import HostProcess
from gpu_fraction.node_daemon.isolation.mps import MpsEngine
from gpu_fraction.node_daemon.isolation.mps_control import MpsControl
from gpu_fraction.node_daemon.isolation.mps_daemon import MpsDaemon
from gpu_fraction.node_daemon.isolation.mps_namespaces import MpsNamespaceEngine
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.state.errors import EngineFailedError
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import choice, path, text, words

EngineName = Literal["cgroup", "mps", "hami-core"]
MpsStart = Literal["host", "here", "never"]
"""Place where the MPS control daemon is started: as a process of the host, which outlives this
daemon's container; inside the container; or by another component."""

NAMESPACES_SINCE: Final = 615
"""The driver branch from which MPS has namespaces.
Source: https://docs.nvidia.com/deploy/mps/latest/mpsv3-namespaces.html"""

MODES: Final = "compute-modes.json"

_log = structlog.get_logger()


_ENGINES: Final[tuple[str, ...]] = get_args(EngineName)


def _engines(given: str) -> tuple[EngineName, ...]:
    """A list of engines, each at most once; empty for none."""
    names = words(given)
    if len(set(names)) != len(names) or not set(names) <= set(_ENGINES):
        raise ValueError(f"allowed: each of {', '.join(_ENGINES)} at most once")
    return cast("tuple[EngineName, ...]", names)


def _card_engines(given: str) -> dict[str, tuple[EngineName, ...]]:
    """UUID=ENGINE+ENGINE pairs; nothing behind ``=`` is no engine for that card."""
    found: dict[str, tuple[EngineName, ...]] = {}
    for pair in words(given):
        uuid, equals, listed = pair.partition("=")
        if not uuid or not equals or uuid in found:
            raise ValueError("allowed: UUID=ENGINE+ENGINE pairs with commas, each UUID once")
        found[uuid] = _engines(listed.replace("+", ","))
    return found


def _strength(given: str) -> Strength:
    return Strength[choice("enforced", "cooperative")(given).upper()]


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """The node's choice of isolation engines."""

    engines: tuple[EngineName, ...] = setting(
        _engines, ("cgroup",), "engines, most wanted first", name="isolation"
    )
    cards: Mapping[str, tuple[EngineName, ...]] = setting(
        _card_engines, {}, "cards with engines of their own", name="isolation_cards"
    )
    accept: Strength = setting(
        _strength,
        Strength.ENFORCED,
        "least strength for isolation: required",
        name="enforced_means",
    )
    mps_dir: Path = setting(
        path, Path("/run/gpu-fraction/mps"), "host directory of the MPS control daemon's pipes"
    )
    mps_start: MpsStart = setting(
        choice(*get_args(MpsStart)),
        "host",
        "where MPS is started: host, so that it outlives this container; here, inside it; never",
    )
    mps_shm_dir: Path | None = setting(
        path, None, "host tmpfs of MPS and its clients, before driver R615 with mps_start host"
    )
    hami_library_dir: Path = setting(path, Path("/usr/local/vgpu"), "HAMi-core on the host")
    cdi_hook: str | None = setting(
        text, None, "nvidia-cdi-hook on the host, where the host's own CDI file lacks it"
    )


class ConfiguredIsolation(NodeIsolation):
    """The node's isolation, by engines that are built once there is a driver."""

    def __init__(self, settings: IsolationSettings, state: Path, cgroups: PodCgroups) -> None:
        """Prepare; engines keep what they must remember in ``state``."""
        super().__init__([], settings.accept)
        self._settings = settings
        self._state = state
        self._cgroups = cgroups
        self._modes: ComputeModes | None = None

    def _build(self, driver: Driver) -> None:
        settings = self._settings
        self._modes = modes = ComputeModes(driver, self._state / "mps" / MODES)
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
                return CgroupEngine(driver, self._cgroups, settings.cdi_hook or "")
            case "hami-core":
                return HamiCoreEngine(settings.hami_library_dir, self._state / name)
            case "mps":
                return self._mps(driver, modes)

    def _mps(self, driver: Driver, modes: ComputeModes) -> Engine:
        new = _branch(driver) >= NAMESPACES_SINCE
        control = MpsControl(self._settings.mps_dir, 3 if new else 2)
        on_host = self._settings.mps_start == "host"
        # Mounted together with a control daemon of the host alone: clients of another one
        # would not find the directory, or would not share it with their server.
        shm = self._settings.mps_shm_dir if on_host and not new else None
        daemon = MpsDaemon(
            control,
            self._state / "mps",
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
