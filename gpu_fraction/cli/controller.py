"""``gpu-fraction controller``: counts what GPUQuotas limit, wired together."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    generate_latest,
)

from certs import settings as certs_options
from certs.manager import CertificateManager
from certs.presence import ReplicaIdentity
from certs.settings import CertificateSettings
from gpu_fraction.cli import cluster
from gpu_fraction.cli.daemon import Commands, add_daemon, process_registry, stop_on_signals
from gpu_fraction.domain.keys import SYSTEM_NAMESPACE
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.election import Election
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.kube.lease import unique_identity
from gpu_fraction.serving import logs
from gpu_fraction.settings import rewrite
from gpu_fraction.settings.option import Option, Value, boolean
from quota import settings as quota_options
from quota.service import ControllerService
from quota.settings import ControllerProcess

DESCRIPTION: Final = """\
Count the GPU pods of every namespace that has a GPUQuota, keep the quotas' status, and look after
the webhook's CA and the caBundles of its configurations.

Run two replicas: a lease in the namespace gpu-fraction-system says which of them counts. Every
setting may be given as a flag, as a variable GPU_FRACTION_NAME or in the --config file (YAML);
the first of these wins.

example:
  gpu-fraction controller --kubeconfig ~/.kube/config
"""

LEASE: Final = "gpu-fraction-controller"
SIZES: Final = tuple(
    o for o in rewrite.OPTIONS if o.name in {"gpu_memory_mib", "gpu_memory_by_model"}
)
CERTIFICATES: Final = (
    Option(
        "manage_certificates",
        boolean,
        True,
        "manage the webhook's CA and the caBundles; false with cert-manager",
    ),
    *certs_options.INSTALLATION_OPTIONS,
    *certs_options.LIFETIME_OPTIONS,
)

__all__ = ["add_parser", "serve"]


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    add_daemon(
        commands,
        "controller",
        summary="count what GPUQuotas limit",
        description=DESCRIPTION,
        groups={
            "which cluster": cluster.OPTIONS,
            "how to count": quota_options.CONTROLLER_OPTIONS,
            "GPUs of nodes that do not publish theirs": SIZES,
            "the webhook's certificates": CERTIFICATES,
        },
        serve=serve,
    )


def serve(values: Mapping[str, Value], environ: Mapping[str, str]) -> None:
    """Run the daemon to its end."""
    settings = quota_options.controller_process(values)
    cluster.require(values, environ)
    logs.configure(settings.log_level)
    sizes = CardSizes(values["gpu_memory_mib"].value, values["gpu_memory_by_model"].value)
    certificates = certs_options.load(values) if values["manage_certificates"].value else None
    asyncio.run(_control(settings, sizes, certificates, cluster.access(values, environ)))


async def _control(
    settings: ControllerProcess,
    sizes: CardSizes,
    certificates: CertificateSettings | None,
    source: AccessSource,
) -> None:
    registry = process_registry()
    stop = stop_on_signals()
    async with cluster.connected(source, component="controller", registry=registry) as client:
        service = ControllerService(
            client, settings.counting, sizes=sizes, registry=registry, lead=_lead(client, settings)
        )
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(service.run(), name="controller"),
                tasks.create_task(_probes(settings, service, registry), name="probes"),
            ]
            if certificates is not None:
                work += _look_after_certificates(tasks, client, certificates, settings, registry)
            await stop.wait()
            for task in work:
                task.cancel()


def _look_after_certificates(
    tasks: asyncio.TaskGroup,
    client: Client,
    certificates: CertificateSettings,
    settings: ControllerProcess,
    registry: CollectorRegistry,
) -> list[asyncio.Task[None]]:
    """Lead the webhook's certificates from a process whose death loses no request."""
    recorder = EventRecorder(client, component="gpu-fraction-controller")
    manager = CertificateManager(
        client,
        certificates.installation,
        certificates.lifetimes,
        ReplicaIdentity(name=socket.gethostname(), serves=False),
        registry=registry,
        recorder=recorder,
        timings=settings.lease,
    )
    return [
        tasks.create_task(recorder.run(), name="certificate-events"),
        tasks.create_task(manager.run(), name="certificates"),
    ]


def _lead(
    client: Client, settings: ControllerProcess
) -> Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]:
    election = Election(
        client,
        name=LEASE,
        namespace=SYSTEM_NAMESPACE,
        identity=unique_identity(socket.gethostname()),
        timings=settings.lease,
    )
    return election.run


async def _probes(
    settings: ControllerProcess, service: ControllerService, registry: CollectorRegistry
) -> None:
    """Serve /livez, /readyz and /metrics in the clear, for the kubelet and Prometheus."""

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_request: web.Request) -> web.Response:
        reason = service.unsynced()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def metrics(_request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", live), web.get("/readyz", ready)])
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
