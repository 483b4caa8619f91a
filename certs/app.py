"""Composition of the certificates for programs that serve them or lead their rotation."""

import socket
from pathlib import Path

from prometheus_client import CollectorRegistry

from gpu_fraction.certs import reading
from gpu_fraction.certs.cache import CertificateCache
from gpu_fraction.certs.manager import CertificateManager
from gpu_fraction.certs.mounted import MountedCertificates
from gpu_fraction.certs.reading import PkiError
from gpu_fraction.certs.replica_leases import ReplicaIdentity
from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.settings import CertificateSettings, ServingSettings
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.election import LeaseTimings
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.settings.option import SettingsError

Certificate = CertificateManager | MountedCertificates


def mounted(
    settings: ServingSettings, registry: CollectorRegistry, client: Client | None
) -> MountedCertificates:
    """A mounted pair that another system renews; it is read again every few seconds.

    Args:
        settings: The paths of the files, the names of our configurations, the lifetimes.
        registry: For the metrics.
        client: The API server, whose configurations must trust the pair. None where there is
            no cluster: then only its dates are checked.

    Raises:
        SettingsError: the pair is missing, unreadable or does not belong together.
    """
    names = settings.shared
    chain, key = _paths(settings)
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


def _paths(settings: ServingSettings) -> tuple[Path, Path]:
    directory = settings.directory
    if directory is not None and settings.tls_cert is None and settings.tls_key is None:
        return directory / "tls.crt", directory / "tls.key"
    if settings.tls_cert is None or settings.tls_key is None:
        text = (
            "--tls-cert and --tls-key are needed outside a cluster; inside one, or with "
            "--kubeconfig, omit both to use self-managed certificates"
        )
        raise SettingsError([text])
    return settings.tls_cert, settings.tls_key


def managed(
    client: Client,
    settings: ServingSettings,
    registry: CollectorRegistry,
    recorder: EventRecorder,
) -> CertificateManager:
    """A leaf signed from the installation's own CA, renewed without a restart."""
    return CertificateManager(
        client,
        settings.shared.installation,
        settings.shared.lifetimes,
        ReplicaIdentity(
            name=settings.replica_name or socket.gethostname(),
            pod_uid=settings.replica_uid or "",
            # The controller leads, because no request is lost when it is killed.
            leads=False,
        ),
        registry=registry,
        recorder=recorder,
    )


def leader(
    client: Client,
    settings: CertificateSettings,
    registry: CollectorRegistry,
    recorder: EventRecorder,
    timings: LeaseTimings,
) -> CertificateManager:
    """Leads the rotation from a process that serves no requests."""
    return CertificateManager(
        client,
        settings.installation,
        settings.lifetimes,
        ReplicaIdentity(name=socket.gethostname(), serves=False),
        registry=registry,
        recorder=recorder,
        timings=timings,
    )
