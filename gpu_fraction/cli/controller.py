"""``gpu-fraction controller``: quota usage, and the webhook's certificates."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from gpu_fraction.certs.app import leader
from gpu_fraction.certs.settings import CertificateSettings
from gpu_fraction.claims.service import TemplateService
from gpu_fraction.claims.settings import TemplateOptions
from gpu_fraction.cli.cluster import ClusterSettings, connected
from gpu_fraction.cli.daemon import add_daemon, process
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.quota.app import Leading, control
from gpu_fraction.quota.settings import ControllerOptions
from gpu_fraction.serving import logs
from gpu_fraction.settings.declaration import group, setting
from gpu_fraction.settings.parsers import boolean
from gpu_fraction.settings.rewrite import CostSettings

DESCRIPTION: Final = """\
Count the GPU usage of every namespace with a GPUQuota, update the status of the quotas, and manage
the webhook's CA and the caBundles of its configurations. With --dra, also make the templates that
the claims of the backend dra are made of.

Run two replicas; a lease elects the active one.

example:
  gpu-fraction controller --kubeconfig ~/.kube/config
"""


@dataclass(frozen=True, slots=True)
class CertificateOptions:
    """Whether the controller manages the webhook's certificates, and their settings."""

    manage_certificates: bool = setting(
        boolean, True, "manage the webhook's CA and caBundles; set false with cert-manager"
    )
    shared: CertificateSettings = group(CertificateSettings)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the command."""

    cluster: ClusterSettings = group(ClusterSettings, "cluster")
    counting: ControllerOptions = group(ControllerOptions, "counting")
    costs: CostSettings = group(CostSettings, "what the cost of a pod depends on")
    claims: TemplateOptions = group(TemplateOptions, "templates of claims (docs/dra.md)")
    certificates: CertificateOptions = group(CertificateOptions, "the webhook's certificates")


def serve(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run the daemon."""
    source = settings.cluster.access(environ)
    logs.configure(settings.counting.log_level)
    asyncio.run(_control(settings, source))


add_parser = partial(add_daemon, "controller", Settings, serve, DESCRIPTION)


async def _control(settings: Settings, source: AccessSource) -> None:
    registry, stop = process()
    await in_cluster(settings, source, registry, stop)


async def in_cluster(
    settings: Settings, source: AccessSource, registry: CollectorRegistry, stop: asyncio.Event
) -> None:
    """Count, and manage certificates and templates, until ``stop`` is set."""
    async with connected(source, component="controller", registry=registry) as client:
        counting, own = settings.counting, settings.certificates
        costs = settings.costs.config
        leading: Leading | None = None
        if settings.claims.dra != "off":
            options = settings.claims
            leading = TemplateService(client, options, costs=costs, registry=registry).run
        charged = counting.hand_written_claims == "charge"
        run = partial(
            control,
            client,
            counting,
            costs,
            registry,
            stop,
            leading=leading,
            claims="charged" if charged else "listed" if leading else "ignored",
        )
        if not own.manage_certificates:
            await run()
            return
        events = EventRecorder(client, component="gpu-fraction-controller")
        manager = leader(client, own.shared, registry, events, counting.lease)
        await run(events.run, manager.run)
