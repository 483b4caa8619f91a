"""The webhook's certificate: a mounted pair of files, or one that looks after itself."""

import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from certs import reading
from certs import settings as certs_options
from certs.errors import PkiError
from certs.manager import CertificateManager
from certs.metrics import CertificateMetrics
from certs.mounted import MountedCertificates, MountedFiles
from certs.presence import ReplicaIdentity
from certs.readiness import Readiness
from certs.serving import ServingContext
from certs.watched import Watched
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.settings.option import Option, SettingsError, Value, text
from webhook.settings import WebhookSettings

REPLICA_OPTIONS: Final = (
    Option("replica_name", text, None, "this replica's name; default: the host's"),
    Option("replica_uid", text, None, "uid of this replica's Pod, which then owns its Lease"),
)
OPTIONS: Final = (*certs_options.OPTIONS, *REPLICA_OPTIONS)

__all__ = ["OPTIONS", "Certificate", "is_mounted", "managed", "mounted"]


class _Source(Protocol):
    @property
    def serving(self) -> ServingContext:
        """What handshakes are answered with."""

    def readiness(self) -> Readiness:
        """Whether an API server accepts it."""

    async def run(self) -> None:
        """Keep it up to date."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the server needs of its certificate.

    Attributes:
        context: For the listening socket; its certificate changes behind it.
        run: Work for as long as the server serves.
        check: A readiness check.
    """

    context: ssl.SSLContext
    run: Callable[[], Coroutine[Any, Any, None]]
    check: Callable[[], str | None]


def is_mounted(settings: WebhookSettings, values: Mapping[str, Value]) -> bool:
    """Whether somebody else provides the certificate."""
    named = (settings.tls_cert, settings.tls_key, values["cert_dir"].value)
    return any(name is not None for name in named)


def mounted(
    settings: WebhookSettings,
    values: Mapping[str, Value],
    registry: CollectorRegistry,
    client: Client | None,
) -> Certificate:
    """A pair that somebody else renews; followed by watching its folder.

    Args:
        settings: Which files.
        values: Which folder, the names of our configurations, the lifetimes.
        registry: For the metrics.
        client: The API server, whose configurations must trust the pair. None where there is
            no cluster: then its dates are all that is checked.

    Raises:
        SettingsError: the pair is missing, unreadable or does not belong together.
    """
    names = certs_options.load(values)
    files = _files(settings, names.directory)
    source = MountedCertificates(
        files,
        names.lifetimes,
        metrics=CertificateMetrics(registry),
        watched=None if client is None else Watched(client, names.installation, with_secret=False),
    )
    try:
        source.serving.swap(reading.read_leaf(*files.read()))
    except (OSError, PkiError) as e:
        chain, key = files.directory / files.certificate, files.directory / files.key
        raise SettingsError([f"--tls-cert {chain} with --tls-key {key}: {e}"]) from e
    return _certificate(source)


def _files(settings: WebhookSettings, directory: Path | None) -> MountedFiles:
    if directory is not None and settings.tls_cert is None and settings.tls_key is None:
        return MountedFiles(directory)
    if settings.tls_cert is None or settings.tls_key is None:
        text = (
            "--tls-cert and --tls-key are needed outside a cluster; inside one, or with "
            "--kubeconfig, omit both to use self-managed certificates"
        )
        raise SettingsError([text])
    chain, key = Path(settings.tls_cert).absolute(), Path(settings.tls_key).absolute()
    # An absolute name is one in any folder; the chain's is the one that is watched.
    return MountedFiles(chain.parent, chain.name, str(key))


def managed(
    client: Client,
    values: Mapping[str, Value],
    registry: CollectorRegistry,
    recorder: EventRecorder,
) -> Certificate:
    """A leaf signed from the installation's own CA, renewed without a restart.

    Raises:
        SettingsError: the lifetimes contradict each other.
    """
    names = certs_options.load(values)
    return _certificate(
        CertificateManager(
            client,
            names.installation,
            names.lifetimes,
            ReplicaIdentity(
                name=values["replica_name"].value or socket.gethostname(),
                pod_uid=values["replica_uid"].value or "",
                # The controller leads: a webhook process that is killed loses requests, a
                # process that serves nothing loses none.
                leads=False,
            ),
            registry=registry,
            recorder=recorder,
            clock=utc_now,
        )
    )


def _certificate(source: _Source) -> Certificate:
    def check() -> str | None:
        verdict = source.readiness()
        return None if verdict.ready else verdict.reason

    return Certificate(source.serving.context, source.run, check)
