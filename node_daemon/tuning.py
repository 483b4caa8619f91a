"""Where things lie, how long they take and how often they happen: all that can be set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from node_daemon.health import HealthPolicy
from node_daemon.inventory import SLOTS_PER_CARD
from node_daemon.isolation.engine import Strength

EngineName = Literal["cgroup", "mps", "hami-core"]
MpsStart = Literal["host", "here", "never"]
"""Where the MPS control daemon is started: as a process of the host, which outlives this
daemon's container; inside the container; or by somebody else."""


__all__ = [
    "CardSettings",
    "EngineName",
    "IsolationSettings",
    "MpsStart",
    "Pace",
    "Paths",
    "Tempo",
    "Timing",
    "Waits",
]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie on the host.

    Attributes:
        kubelet: The kubelet's directory.
        state: The daemon's own directory; must survive a reboot.
        cdi: Where slices are written; the container runtime must read it.
        host_cdi: Where the host's own CDI specifications lie, highest priority last.
    """

    kubelet: Path = Path("/var/lib/kubelet")
    state: Path = Path("/var/lib/gpu-fraction")
    cdi: Path = Path("/var/run/cdi")
    host_cdi: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))

    @property
    def plugins(self) -> Path:
        """Where device plugins and the kubelet meet."""
        return self.kubelet / "device-plugins"

    @property
    def pod_resources(self) -> Path:
        """The kubelet's PodResources socket."""
        return self.kubelet / "pod-resources" / "kubelet.sock"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take.

    Attributes:
        settle_s: Pause between writing a file and answering, in which the container runtime
            notices the file. Measured: 1 ms is enough on an idle machine.
        listed_s: Age from which an allocation is certainly in the kubelet's list, which it enters
            right after the answer to ``Allocate``. Chosen: a wide margin.
        deadline_s: After which a ``PreStartContainer`` is refused; the kubelet waits 30 s.
            Source: kubernetes deviceplugin/v1beta1/constants.go.
    """

    settle_s: float = 0.03
    listed_s: float = 5.0
    deadline_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look.

    Attributes:
        idle_s: Pause between two looks where nothing happens; the kubelet's list is asked
            rarely, as each question can make it give one id twice.
        missing_s: How long something must be missing, in two looks, to be gone.
        unbound_s: Age from which an allocation that nobody holds is dropped. Chosen: far above
            the moment between the answer to ``Allocate`` and its place in the kubelet's list.
        lingering_s: Pause while a pod that is gone from the API still runs on this host.
        retry_s: Pause after the kubelet did not answer.
    """

    idle_s: float = 60.0
    missing_s: float = 2.0
    unbound_s: float = 60.0
    lingering_s: float = 5.0
    retry_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait for the kubelet, seconds.

    Attributes:
        register_s: For the answer to a registration; the kubelet dials back within it for up
            to 10 s. Source: devicemanager/plugin/v1beta1/client.go.
        stream_s: For the first ``ListAndWatch`` after a registration.
        again_s: After a stream ended while the kubelet lives, so that it notices before the
            next registration.
        retry_s: First pause after a failure; doubles up to ``retry_most_s``.
        retry_most_s: Longest pause.
        poll_s: Between two looks at the sockets, where inotify tells nothing.
    """

    register_s: float = 15.0
    stream_s: float = 15.0
    again_s: float = 0.2
    retry_s: float = 0.1
    retry_most_s: float = 5.0
    poll_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Tempo:
    """How long things take and how often they happen."""

    timing: Timing = field(default_factory=Timing)
    pace: Pace = field(default_factory=Pace)
    waits: Waits = field(default_factory=Waits)


@dataclass(frozen=True, slots=True)
class CardSettings:
    """How cards are looked after.

    Attributes:
        slots_per_card: Containers that may share a card, 1 or more.
        read_interval_s: Between two readings of everything that does not announce itself: MIG
            instances, memory.
        poll_interval_s: Between two polls of health.
        event_wait_s: Longest wait for events of NVML, and so for the daemon's end.
        driver_retry_s: Between two tries to open NVML; a driver container may still be
            installing it.
        policy: How quickly a card is believed.
    """

    slots_per_card: int = SLOTS_PER_CARD
    read_interval_s: float = 60.0
    poll_interval_s: float = 30.0
    event_wait_s: float = 1.0
    driver_retry_s: float = 5.0
    policy: HealthPolicy = field(default_factory=HealthPolicy)


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """How the node keeps containers within their shares.

    Attributes:
        engines: Most wanted first; a card uses the strongest of those that serve it.
        cards: The same for cards that have a list of their own, by UUID.
        accept: The least strength that counts as enforced.
        state: Directory for what engines must remember.
        mps: Directory of the MPS control daemon's pipes, the same inside and outside.
        mps_start: Where the MPS control daemon is started.
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
