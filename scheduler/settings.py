"""Settings of the scheduler's extender."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.settings.option import (
    Option,
    SettingsError,
    Value,
    choice,
    integer,
    text,
    words,
)

__all__ = ["OPTIONS", "ExtenderSettings", "extender_settings"]

OPTIONS: Final = (
    Option("host", text, "0.0.0.0", "address to listen on"),  # noqa: S104 - the kubelet probes
    Option("port", integer(0, 65535), 9444, "port to listen on, 0 for any"),
    Option("tls_cert", text, None, "file with the server's certificate chain, PEM"),
    Option("tls_key", text, None, "file with its private key, PEM"),
    Option("client_ca", text, None, "file with the CA of the callers' certificates, PEM"),
    Option("client_names", words, (), "names of client certificates that may call"),
    Option("token_file", text, None, "file with the secret of callers without a certificate"),
    Option("log_level", choice(*LEVELS), "info", f"{', '.join(LEVELS)}"),
)


@dataclass(frozen=True, slots=True)
class ExtenderSettings:
    """Where the extender listens, and whom it answers.

    Attributes:
        host: Address.
        port: Port, 0 for any.
        tls_cert: The server's certificate chain.
        tls_key: Its key.
        client_ca: CA of the callers' certificates; None accepts none.
        client_names: Names of client certificates that may call.
        token_file: The secret of callers without one; None accepts none.
        log_level: One of debug, info, warning, error.
    """

    host: str
    port: int
    tls_cert: Path
    tls_key: Path
    client_ca: Path | None
    client_names: frozenset[str]
    token_file: Path | None
    log_level: str


def extender_settings(values: Mapping[str, Value]) -> ExtenderSettings:
    """The parsed options.

    Raises:
        SettingsError: a certificate is missing, or nobody could call.
    """
    get = {name: value.value for name, value in values.items()}
    errors = [
        f"--{name.replace('_', '-')} is needed"
        for name in ("tls_cert", "tls_key")
        if not get[name]
    ]
    if not get["token_file"] and not (get["client_ca"] and get["client_names"]):
        errors.append("--client-ca with --client-names, or --token-file, is needed")
    if errors:
        raise SettingsError(errors)
    return ExtenderSettings(
        host=get["host"],
        port=get["port"],
        tls_cert=Path(get["tls_cert"]),
        tls_key=Path(get["tls_key"]),
        client_ca=Path(get["client_ca"]) if get["client_ca"] else None,
        client_names=frozenset(get["client_names"]),
        token_file=Path(get["token_file"]) if get["token_file"] else None,
        log_level=get["log_level"],
    )
