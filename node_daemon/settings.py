"""Settings of the node daemon."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args

from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.settings.option import Option, Value, choice, integer, seconds, text, words
from node_daemon.cards.source import CardSettings
from node_daemon.isolation.configured import EngineName, IsolationSettings, MpsStart
from node_daemon.isolation.engine import Strength
from node_daemon.slices.binder import Timing
from node_daemon.slices.service import Paths, Tempo

__all__ = ["OPTIONS", "NodeDaemonSettings", "node_daemon_settings"]

_PATHS: Final = Paths()
_TIMING: Final = Timing()
_CARDS: Final = CardSettings()
_ISOLATION: Final = IsolationSettings()
ENGINES: Final[tuple[str, ...]] = get_args(EngineName)


def _engines(given: str) -> tuple[EngineName, ...]:
    """A list of engines, each at most once; empty for none."""
    names = words(given)
    if len(set(names)) != len(names) or not set(names) <= set(ENGINES):
        raise ValueError(f"allowed: each of {', '.join(ENGINES)} at most once")
    return cast("tuple[EngineName, ...]", names)


def _joined(given: str) -> tuple[EngineName, ...]:
    """The same, joined by ``+``."""
    return _engines(given.replace("+", ","))


def _card_engines(given: str) -> dict[str, str]:
    """UUID=ENGINE+ENGINE pairs; nothing behind ``=`` is no engine for that card."""
    found: dict[str, str] = {}
    for pair in words(given):
        uuid, equals, listed = pair.partition("=")
        if not uuid or not equals or uuid in found:
            raise ValueError("allowed: UUID=ENGINE+ENGINE pairs with commas, each UUID once")
        found[uuid] = "+".join(_joined(listed))
    return found


OPTIONS: Final = (
    Option("node_name", text, None, "this node's name; set it from spec.nodeName"),
    Option("kubelet_dir", text, str(_PATHS.kubelet), "the kubelet's directory"),
    Option("state_dir", text, str(_PATHS.state), "own directory; must survive a reboot"),
    Option("cdi_dir", text, str(_PATHS.cdi), "where the container runtime reads CDI files"),
    Option(
        "host_cdi_dirs",
        words,
        tuple(map(str, _PATHS.host_cdi)),
        "where nvidia-ctk writes, highest priority last",
    ),
    Option(
        "slots_per_card", integer(1, 1000), _CARDS.slots_per_card, "containers that share a card"
    ),
    Option("settle", seconds(0, 1), _TIMING.settle_s, "pause after writing a CDI file, seconds"),
    Option("read_interval", seconds(1, 3600), _CARDS.read_interval_s, "between readings, seconds"),
    Option(
        "poll_interval",
        seconds(0.1, 3600),
        _CARDS.poll_interval_s,
        "between health polls, seconds",
    ),
    Option("isolation", _engines, _ISOLATION.engines, f"most wanted first: {', '.join(ENGINES)}"),
    Option(
        "isolation_cards",
        _card_engines,
        None,
        "cards with engines of their own: UUID=ENGINE+ENGINE,UUID=",
    ),
    Option(
        "enforced_means",
        choice("enforced", "cooperative"),
        "enforced",
        "least strength that isolation: required accepts",
    ),
    Option("mps_dir", text, str(_ISOLATION.mps), "pipes of the MPS control daemon"),
    Option(
        "mps_start",
        choice(*get_args(MpsStart)),
        _ISOLATION.mps_start,
        "who starts MPS: host, so that it outlives this container; here, inside it; never",
    ),
    Option(
        "mps_shm_dir",
        text,
        None,
        "host tmpfs of MPS and clients before driver R615, with mps_start host; else unused",
    ),
    Option("hami_library_dir", text, str(_ISOLATION.hami_library), "HAMi-core on the host"),
    Option("cdi_hook", text, None, "nvidia-cdi-hook on the host, where its own file lacks it"),
    Option("host", text, "0.0.0.0", "address of /metrics and probes"),  # noqa: S104 - a pod's
    Option("port", integer(0, 65535), 9446, "port of /metrics and probes, 0 for any"),
    Option("log_level", choice(*LEVELS), "info", f"{', '.join(LEVELS)}"),
)


@dataclass(frozen=True, slots=True)
class NodeDaemonSettings:
    """Everything that can be set.

    Attributes:
        node_name: This node; None is refused by who starts the daemon.
        paths: Where things lie.
        tempo: How long things take.
        cards: How cards are looked after.
        isolation: How containers are kept within their shares.
        host: Address of metrics and probes.
        port: Their port, 0 for any.
        log_level: One of debug, info, warning, error.
    """

    node_name: str | None
    paths: Paths
    tempo: Tempo
    cards: CardSettings
    isolation: IsolationSettings
    host: str
    port: int
    log_level: str


def node_daemon_settings(values: Mapping[str, Value]) -> NodeDaemonSettings:
    """The parsed options."""
    get = {name: value.value for name, value in values.items()}
    return NodeDaemonSettings(
        node_name=get["node_name"],
        paths=Paths(
            kubelet=Path(get["kubelet_dir"]),
            state=Path(get["state_dir"]),
            cdi=Path(get["cdi_dir"]),
            host_cdi=tuple(Path(name) for name in get["host_cdi_dirs"]),
        ),
        tempo=Tempo(timing=Timing(settle_s=get["settle"])),
        cards=CardSettings(
            slots_per_card=get["slots_per_card"],
            read_interval_s=get["read_interval"],
            poll_interval_s=get["poll_interval"],
        ),
        isolation=IsolationSettings(
            engines=get["isolation"],
            cards={uuid: _joined(own) for uuid, own in (get["isolation_cards"] or {}).items()},
            accept=Strength[get["enforced_means"].upper()],
            state=Path(get["state_dir"]) / "isolation",
            mps=Path(get["mps_dir"]),
            mps_start=get["mps_start"],
            mps_shm=Path(get["mps_shm_dir"]) if get["mps_shm_dir"] else None,
            hami_library=Path(get["hami_library_dir"]),
            cdi_hook=get["cdi_hook"] or "",
        ),
        host=get["host"],
        port=get["port"],
        log_level=get["log_level"],
    )
