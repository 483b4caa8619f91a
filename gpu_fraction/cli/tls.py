"""The webhook's certificate: a mounted pair of files, or one that looks after itself."""

import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from certs import pki
from certs import settings as certs_options
from certs.errors import PkiError
from certs.lifetimes import Lifetimes
from certs.manager import CertificateManager
from certs.metrics import CertificateMetrics
from certs.mounted import MountedCertificates, MountedFiles
from certs.readiness import Readiness
from certs.serving import ServingContext
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.settings.option import SettingsError, Value
from webhook.settings import WebhookSettings

__all__ = ["Certificate", "managed", "mounted"]


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


def mounted(settings: WebhookSettings, registry: CollectorRegistry) -> Certificate:
    """A pair that somebody else renews; followed by watching its folder.

    Raises:
        SettingsError: the pair is missing, unreadable or does not belong together.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        text = (
            "--tls-cert and --tls-key are needed; inside a cluster, or with --kubeconfig, the "
            "certificate can look after itself and both are left out"
        )
        raise SettingsError([text])
    chain, key = Path(settings.tls_cert).absolute(), Path(settings.tls_key).absolute()
    # An absolute name is one in any folder; the chain's is the one that is watched.
    files = MountedFiles(chain.parent, chain.name, str(key))
    source = MountedCertificates(files, Lifetimes(), metrics=CertificateMetrics(registry))
    try:
        source.serving.swap(pki.read_leaf(*files.read()))
    except (OSError, PkiError) as e:
        raise SettingsError([f"--tls-cert {chain} with --tls-key {key}: {e}"]) from e
    return _certificate(source)


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
    return _certificate(
        CertificateManager(
            client,
            certs_options.installation(values),
            certs_options.lifetimes(values),
            certs_options.identity(values),
            registry=registry,
            recorder=recorder,
            clock=lambda: datetime.now(UTC),
        )
    )


def _certificate(source: _Source) -> Certificate:
    def check() -> str | None:
        verdict = source.readiness()
        return None if verdict.ready else verdict.reason

    return Certificate(source.serving.context, source.run, check)
