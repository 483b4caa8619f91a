"""Settings of the admission server."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain.keys import SYSTEM_NAMESPACE
from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.serving.server import Drain
from gpu_fraction.settings.option import Option, Value, choice, integer, seconds, text, words

__all__ = ["OPTIONS", "WebhookSettings", "webhook_settings"]

_ACCOUNT: Final = f"system:serviceaccount:{SYSTEM_NAMESPACE}:gpu-fraction-"
SYSTEM_USERS: Final = (_ACCOUNT + "scheduler", _ACCOUNT + "node-daemon")

OPTIONS: Final = (
    Option("host", text, "0.0.0.0", "address to listen on"),  # noqa: S104 - a Service's pod
    Option("port", integer(0, 65535), 9443, "port to listen on, 0 for any"),
    Option("tls_cert", text, None, "file with the certificate chain, PEM"),
    Option("tls_key", text, None, "file with the private key, PEM"),
    Option("system_users", words, SYSTEM_USERS, "users that may write system annotations"),
    Option("drain_least", seconds(0, 600), 15.0, "minimum drain time after SIGTERM, seconds"),
    Option("drain_most", seconds(0, 600), 100.0, "maximum drain time after SIGTERM, seconds"),
    Option("log_level", choice(*LEVELS), "info", f"{', '.join(LEVELS)}"),
)


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where and how the admission server listens.

    Attributes:
        host: Address.
        port: Port, 0 for any.
        tls_cert: File with the certificate chain; None where the certificate is looked after.
        tls_key: File with the private key.
        system_users: Who may write system annotations.
        drain: How it stops.
        log_level: One of debug, info, warning, error.
    """

    host: str
    port: int
    tls_cert: str | None
    tls_key: str | None
    system_users: frozenset[str]
    drain: Drain
    log_level: str


def webhook_settings(values: Mapping[str, Value]) -> WebhookSettings:
    """The parsed options."""
    get = {name: value.value for name, value in values.items()}
    return WebhookSettings(
        host=get["host"],
        port=get["port"],
        tls_cert=get["tls_cert"],
        tls_key=get["tls_key"],
        system_users=frozenset(get["system_users"]),
        drain=Drain(get["drain_least"], get["drain_most"]),
        log_level=get["log_level"],
    )
