"""Settings of the node daemon."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from gpu_fraction.domain.frameworks import Switch
from gpu_fraction.node_daemon.cards.simulated import SimulationSettings
from gpu_fraction.node_daemon.cards.source import CardSettings
from gpu_fraction.node_daemon.isolation.configured import IsolationSettings
from gpu_fraction.node_daemon.slices.paths import Paths
from gpu_fraction.node_daemon.slices.service import Tempo
from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.settings.declaration import NEEDED, group, setting
from gpu_fraction.settings.parsers import choice, integer, text

Mode = Literal["device-plugin", "dra"]
"""How containers ask the kubelet for shares: extended resources, or ResourceClaims."""


def _pod_uid(given: str) -> str:
    """A part of a file's name."""
    if re.fullmatch(r"[0-9A-Za-z-]{1,36}", given) is None:
        raise ValueError("allowed: the UID of a pod, at most 36 letters, digits and dashes")
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDaemonSettings:
    """Everything that can be set."""

    node_name: str = setting(text, NEEDED, "the name of this Node; set it from spec.nodeName")
    mode: Mode = setting(
        choice(*get_args(Mode)),
        "device-plugin",
        "how pods get shares: extended resources, or claims of a DRA driver; one a node",
    )
    pod_uid: str = setting(
        _pod_uid,
        "",
        "the UID of the daemon's own pod, from metadata.uid; with it, a daemon in mode dra waits "
        "for its predecessor's end and misses no call of the kubelet",
    )
    paths: Paths = group(Paths)
    tempo: Tempo = group(Tempo)
    cards: CardSettings = group(CardSettings)
    simulated: SimulationSettings = group(SimulationSettings)
    isolation: IsolationSettings = group(IsolationSettings)
    framework_env: Switch = setting(
        choice(*get_args(Switch)), "on", "whether frameworks learn their part of a card's memory"
    )
    host: str = setting(text, "0.0.0.0", "address of /metrics and probes")  # noqa: S104 - a pod's
    port: int = setting(integer(0, 65535), 9446, "port of /metrics and probes, 0 for any")
    log_level: str = setting(choice(*LEVELS), "info", "minimum level of log lines")
