"""Settings of the admission server."""

from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain.keys import SYSTEM_NAMESPACE
from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.serving.server import Drain
from gpu_fraction.settings.declaration import group, setting
from gpu_fraction.settings.parsers import choice, integer, text, word_set

_ACCOUNT: Final = f"system:serviceaccount:{SYSTEM_NAMESPACE}:gpu-fraction-"
SYSTEM_USERS: Final = frozenset({_ACCOUNT + "scheduler", _ACCOUNT + "node-daemon"})


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Address, callers and shutdown of the admission server."""

    host: str = setting(text, "0.0.0.0", "address to listen on")  # noqa: S104 - a Service's pod
    port: int = setting(integer(0, 65535), 9443, "port to listen on, 0 for any")
    system_users: frozenset[str] = setting(
        word_set, SYSTEM_USERS, "users that may write system annotations"
    )
    drain: Drain = group(Drain, prefix="drain_")
    log_level: str = setting(choice(*LEVELS), "info", "minimum level of log lines")
