"""``gpu-fraction webhook``: the admission server, wired together."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from prometheus_client import CollectorRegistry

from certs import settings as certs_options
from gpu_fraction.cli import cluster, tls
from gpu_fraction.cli.budget import QuotaBudget
from gpu_fraction.cli.daemon import (
    EVENT_LOOP,
    Commands,
    add_daemon,
    process_registry,
    run_on,
    stop_on_signals,
)
from gpu_fraction.cli.namespaces import NamespaceLabels
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.kube.reflector import PROMPT
from gpu_fraction.serving import logs
from gpu_fraction.serving.server import HttpsServer
from gpu_fraction.settings import rewrite
from gpu_fraction.settings.option import Value
from quota import settings as quota_options
from quota.service import AdmissionService
from webhook import settings as webhook_options
from webhook.app import AdmissionApp, Check, Decide
from webhook.budget import Validator
from webhook.decide import Decider

DESCRIPTION: Final = """\
Serve the admission webhook over TLS: /mutate, /validate, /livez, /readyz, /metrics.

Every setting may be given as a flag, as a variable GPU_FRACTION_NAME or in the --config file
(YAML); the first of these wins. With --kubeconfig, or inside a cluster, GPUQuotas are kept and
namespaces may choose their backend; otherwise pods are rewritten and checked only. Without
--tls-cert and --tls-key the certificates are self-managed, which needs the cluster too.
SIGTERM drains: every request is answered, none is dropped.

example:
  gpu-fraction webhook --tls-cert tls.crt --tls-key tls.key --gpu-memory-mib 80Gi
"""

GROUPS: Final = {
    "where and how to serve": (*webhook_options.OPTIONS, EVENT_LOOP),
    "how pods are rewritten": rewrite.OPTIONS,
    "which cluster": cluster.OPTIONS,
    "GPUQuotas": quota_options.ADMISSION_OPTIONS,
    "self-managed certificates": tls.OPTIONS,
}
OPTIONS: Final = tuple(chain.from_iterable(GROUPS.values()))

__all__ = ["add_parser", "serve"]


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    add_daemon(
        commands,
        "webhook",
        summary="serve the admission webhook",
        description=DESCRIPTION,
        groups=GROUPS,
        serve=serve,
    )


def serve(values: Mapping[str, Value], environ: Mapping[str, str]) -> None:
    """Run the daemon to its end."""
    settings = webhook_options.webhook_settings(values)
    certs_options.load(values)  # every fault of the settings shows before anything runs
    logs.configure(settings.log_level)
    rewriting = rewrite.rewrite_settings(values)
    run_on(values[EVENT_LOOP.name].value, _run(settings, rewriting, values, environ))


async def _run(
    settings: webhook_options.WebhookSettings,
    rewriting: rewrite.RewriteSettings,
    values: Mapping[str, Value],
    environ: Mapping[str, str],
) -> None:
    registry = process_registry()
    if not cluster.reachable(values, environ):
        certificate: tls.Certificate = tls.mounted(settings, values, registry, None)
        decider = Decider(rewriting, settings.system_users)
        await _Server(settings, certificate, registry).serve(decider.mutate, decider.validate)
        return
    source = cluster.access(values, environ)
    async with cluster.connected(source, component="webhook", registry=registry) as client:
        events = EventRecorder(client, component="gpu-fraction-webhook")
        sizes = CardSizes(values["gpu_memory_mib"].value, values["gpu_memory_by_model"].value)
        quotas = AdmissionService(
            client,
            quota_options.admission_settings(values),
            sizes=sizes,
            registry=registry,
            sink=events,
            following=PROMPT,
        )
        namespaces = NamespaceLabels(client)
        budget = QuotaBudget(quotas)
        decider = Decider(
            rewriting,
            settings.system_users,
            backend_label=namespaces.backend,
            default_fraction=budget.default_fraction,
        )
        if tls.is_mounted(settings, values):
            certificate = tls.mounted(settings, values, registry, client)
        else:
            certificate = tls.managed(client, values, registry, events)
        await _Server(settings, certificate, registry).serve(
            decider.mutate,
            Validator(decider, budget),
            beside=(events.run, quotas.run, namespaces.run),
            checks=(quotas.unsynced, namespaces.unsynced),
        )


@dataclass(frozen=True, slots=True)
class _Server:
    """The HTTPS server, and what runs beside it for as long as it serves."""

    settings: webhook_options.WebhookSettings
    certificate: tls.Certificate
    registry: CollectorRegistry

    async def serve(
        self,
        mutate: Decide,
        validate: Decide,
        *,
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
        checks: Sequence[Check] = (),
    ) -> None:
        """Serve until SIGTERM, then drain."""
        stop = stop_on_signals()
        stopping: Check = lambda: "stopping" if stop.is_set() else None  # noqa: E731
        app = AdmissionApp(
            mutate, validate, self.registry, checks=(stopping, self.certificate.check, *checks)
        )
        settings = self.settings
        server = HttpsServer(
            app.build(),
            host=settings.host,
            port=settings.port,
            tls=self.certificate.serving.context,
            drain=settings.drain,
        )
        # What is loaded by now lives as long as the process; the collector need not look at it.
        gc.freeze()
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(run(), name=run.__qualname__)
                for run in (self.certificate.run, *beside)
            ]
            await tasks.create_task(server.serve(stop), name="server")
            for task in work:
                task.cancel()
