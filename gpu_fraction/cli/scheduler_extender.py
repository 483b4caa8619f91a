"""``gpu-fraction scheduler-extender``: the extender of kube-scheduler."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from gpu_fraction.cli.cluster import ClusterSettings, connected
from gpu_fraction.cli.daemon import EventLoop, add_daemon, process, run_on
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.quota.model_limits import ModelLimitsWatch
from gpu_fraction.scheduler import app as extender
from gpu_fraction.scheduler.settings import ExtenderSettings
from gpu_fraction.serving import logs
from gpu_fraction.settings.declaration import group

DESCRIPTION: Final = """\
Serve kube-scheduler's extender calls /filter, /prioritize, /bind and /preempt, and /livez, /readyz
and /metrics. The extender knows the free capacity of each GPU, which kube-scheduler does not.

Callers authenticate with a client certificate or a token.

example:
  gpu-fraction scheduler-extender --tls-cert tls.crt --tls-key tls.key \\
    --client-ca ca.crt --client-names gpu-fraction-scheduler
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the command."""

    serving: ExtenderSettings = group(ExtenderSettings, "address and callers")
    loop: EventLoop = group(EventLoop)
    cluster: ClusterSettings = group(ClusterSettings, "cluster")


def serve(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run the daemon."""
    source = settings.cluster.access(environ)
    logs.configure(settings.serving.log_level)
    run_on(settings.loop.event_loop, _serve(settings.serving, source))


add_parser = partial(
    add_daemon,
    "scheduler-extender",
    Settings,
    serve,
    DESCRIPTION,
)


async def _serve(settings: ExtenderSettings, source: AccessSource) -> None:
    registry, stop = process()
    await in_cluster(settings, source, registry, stop)


async def in_cluster(
    settings: ExtenderSettings,
    source: AccessSource,
    registry: CollectorRegistry,
    stop: asyncio.Event,
) -> None:
    """Serve the scheduler's calls until ``stop`` is set."""
    async with connected(source, component="scheduler-extender", registry=registry) as client:
        limits = ModelLimitsWatch(client)
        await extender.serve(settings, client, limits, registry, stop, limits.run)
