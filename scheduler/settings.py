"""Settings of the scheduler's extender."""

from dataclasses import dataclass
from pathlib import Path

from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.settings.declaration import NEEDED, setting
from gpu_fraction.settings.parsers import choice, integer, path, text, word_set


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtenderSettings:
    """The extender's address and the callers that it accepts.

    Raises:
        ValueError: the settings accept no caller.
    """

    host: str = setting(text, "0.0.0.0", "address to listen on")  # noqa: S104 - the kubelet probes
    port: int = setting(integer(0, 65535), 9444, "port to listen on, 0 for any")
    tls_cert: Path = setting(path, NEEDED, "file with the server's certificate chain, PEM")
    tls_key: Path = setting(path, NEEDED, "file with the server's private key, PEM")
    client_ca: Path | None = setting(
        path, None, "file with the CA of the callers' certificates, PEM"
    )
    client_names: frozenset[str] = setting(
        word_set, frozenset(), "names of client certificates that may call"
    )
    token_file: Path | None = setting(
        path, None, "file with the secret of callers without a certificate"
    )
    log_level: str = setting(choice(*LEVELS), "info", "minimum level of log lines")

    def __post_init__(self) -> None:
        if self.token_file is None and not (self.client_ca and self.client_names):
            raise ValueError("--client-ca with --client-names, or --token-file, is needed")
