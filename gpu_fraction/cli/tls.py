"""The webhook's certificate: a mounted pair of files, or a self-managed one."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from certs import reading
from certs import settings as certs_options
from certs.cache import CertificateCache
from certs.errors import PkiError
from certs.manager import CertificateManager
from certs.mounted import MountedCertificates
from certs.presence import ReplicaIdentity
from certs.reporting import Reporter
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.settings.option import Option, SettingsError, Value, text
from webhook.settings import WebhookSettings

REPLICA_OPTIONS: Final = (
    Option("replica_name", text, None, "this replica's name; default: the host's"),
    Option("replica_uid", text, None, "uid of this replica's Pod, which then owns its Lease"),
)
OPTIONS: Final = (*certs_options.OPTIONS, *REPLICA_OPTIONS)

Certificate = CertificateManager | MountedCertificates

__all__ = ["OPTIONS", "Certificate", "is_mounted", "managed", "mounted"]


def is_mounted(settings: WebhookSettings, values: Mapping[str, Value]) -> bool:
    """Whether others provide the certificate."""
    named = (settings.tls_cert, settings.tls_key, values["cert_dir"].value)
    return any(name is not None for name in named)


def mounted(
    settings: WebhookSettings,
    values: Mapping[str, Value],
    registry: CollectorRegistry,
    client: Client | None,
) -> MountedCertificates:
    """A pair that others renew and that is read again every few seconds.

    Args:
        settings: The paths of the files.
        values: The folder, the names of our configurations, the lifetimes.
        registry: For the metrics.
        client: The API server, whose configurations must trust the pair. None where there is
            no cluster: then its dates are all that is checked.

    Raises:
        SettingsError: the pair is missing, unreadable or does not belong together.
    """
    names = certs_options.load(values)
    chain, key = _paths(settings, names.directory)
    cache = None
    if client is not None:
        cache = CertificateCache(client, names.installation, with_secret=False)
    source = MountedCertificates(
        chain, key, names.lifetimes, reporter=Reporter(registry, names.installation), cache=cache
    )
    try:
        source.serving.swap(reading.read_leaf(chain.read_bytes(), key.read_bytes()))
    except (OSError, PkiError) as e:
        raise SettingsError([f"--tls-cert {chain} with --tls-key {key}: {e}"]) from e
    return source


def _paths(settings: WebhookSettings, directory: Path | None) -> tuple[Path, Path]:
    if directory is not None and settings.tls_cert is None and settings.tls_key is None:
        return directory / "tls.crt", directory / "tls.key"
    if settings.tls_cert is None or settings.tls_key is None:
        text = (
            "--tls-cert and --tls-key are needed outside a cluster; inside one, or with "
            "--kubeconfig, omit both to use self-managed certificates"
        )
        raise SettingsError([text])
    return Path(settings.tls_cert), Path(settings.tls_key)


def managed(
    client: Client,
    values: Mapping[str, Value],
    registry: CollectorRegistry,
    recorder: EventRecorder,
) -> CertificateManager:
    """A leaf signed from the installation's own CA, renewed without a restart.

    Raises:
        SettingsError: the lifetimes contradict each other.
    """
    names = certs_options.load(values)
    return CertificateManager(
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
    )
