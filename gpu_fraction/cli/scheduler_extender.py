"""``gpu-fraction scheduler-extender``: cards for kube-scheduler, wired together."""

import asyncio
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import cluster
from gpu_fraction.cli.daemon import (
    EVENT_LOOP,
    Commands,
    add_daemon,
    process_registry,
    run_on,
    stop_on_signals,
)
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.serving import logs
from gpu_fraction.serving.server import Drain, HttpsServer
from gpu_fraction.settings.option import SettingsError, Value
from quota.model_limits import ModelLimitsWatch
from scheduler import settings as extender_options
from scheduler.auth import AuthError, Callers, server_tls
from scheduler.service import ExtenderService
from scheduler.settings import ExtenderSettings

DESCRIPTION: Final = """\
Serve kube-scheduler's extender calls: /filter, /prioritize, /bind, /preempt; and /livez, /readyz,
/metrics. It adds what the scheduler cannot know: which cards of a node are free.

Callers prove who they are by a client certificate or a token. Every setting may be given as a
flag, as a variable GPU_FRACTION_NAME or in the --config file (YAML); the first of these wins.

example:
  gpu-fraction scheduler-extender --tls-cert tls.crt --tls-key tls.key \\
    --client-ca ca.crt --client-names gpu-fraction-scheduler
"""

DRAIN: Final = Drain(least_s=0.0, most_s=20.0)
"""The scheduler is in the same pod and ends with it; a bind in progress may take 15 s."""

__all__ = ["add_parser", "serve"]


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    add_daemon(
        commands,
        "scheduler-extender",
        summary="serve kube-scheduler's extender calls",
        description=DESCRIPTION,
        groups={
            "address and callers": (*extender_options.OPTIONS, EVENT_LOOP),
            "which cluster": cluster.OPTIONS,
        },
        serve=serve,
    )


def serve(values: Mapping[str, Value], environ: Mapping[str, str]) -> None:
    """Run the daemon to its end."""
    settings = extender_options.extender_settings(values)
    cluster.require(values, environ)
    logs.configure(settings.log_level)
    run_on(values[EVENT_LOOP.name].value, _serve(settings, cluster.access(values, environ)))


async def _serve(settings: ExtenderSettings, source: AccessSource) -> None:
    registry = process_registry()
    stop = stop_on_signals()
    try:
        token = (
            await asyncio.to_thread(settings.token_file.read_text) if settings.token_file else ""
        )
        tls = await asyncio.to_thread(
            server_tls, settings.tls_cert, settings.tls_key, settings.client_ca
        )
        callers = Callers(settings.client_names, token.strip())
    except (OSError, AuthError) as e:
        raise SettingsError([str(e)]) from e
    async with cluster.connected(
        source, component="scheduler-extender", registry=registry
    ) as client:
        limits = ModelLimitsWatch(client)
        service = ExtenderService(client, callers, limits, registry)
        server = HttpsServer(
            service.app, host=settings.host, port=settings.port, tls=tls, drain=DRAIN
        )
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(service.run(), name="extender")
            quotas = tasks.create_task(limits.run(), name="model-limits")
            await tasks.create_task(server.serve(stop), name="server")
            work.cancel()
            quotas.cancel()
