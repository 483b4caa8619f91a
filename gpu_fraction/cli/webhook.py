"""``gpu-fraction webhook``: the admission server, joined with quotas and certificates."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from gpu_fraction.certs import app as certificates
from gpu_fraction.certs.settings import ServingSettings
from gpu_fraction.cli.cluster import ClusterSettings, connected
from gpu_fraction.cli.daemon import EventLoop, add_daemon, process, run_on
from gpu_fraction.domain.pod import Pod
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.kube.errors import MalformedAnswerError
from gpu_fraction.kube.events import EventRecorder
from gpu_fraction.kube.reflector import PROMPT
from gpu_fraction.quota.decision import NotReadyError, Outcome
from gpu_fraction.quota.service import AdmissionService
from gpu_fraction.quota.settings import AdmissionOptions
from gpu_fraction.serving import logs
from gpu_fraction.settings.declaration import group
from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook import app as admission
from gpu_fraction.webhook.budget import Ruling, Validator
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.endpoints import AdmissionApp, NotReady
from gpu_fraction.webhook.namespaces import NamespaceLabels
from gpu_fraction.webhook.review import BadReview
from gpu_fraction.webhook.settings import WebhookSettings

DESCRIPTION: Final = """\
Serve the admission webhook over TLS: /mutate, /validate, /livez, /readyz, /metrics.

With --kubeconfig, or inside a cluster, GPUQuotas are kept and namespaces may choose their backend;
otherwise pods are rewritten and checked only. Without --tls-cert, --tls-key and --cert-dir the
webhook manages its certificate itself, which needs the cluster too.
SIGTERM drains: every request is answered, none is dropped.

example:
  gpu-fraction webhook --tls-cert tls.crt --tls-key tls.key --gpu-memory-mib 80Gi
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    serving: WebhookSettings = group(WebhookSettings, "where and how to serve")
    loop: EventLoop = group(EventLoop)
    rewriting: RewriteSettings = group(RewriteSettings, "how pods are rewritten")
    cluster: ClusterSettings = group(ClusterSettings, "which cluster")
    quotas: AdmissionOptions = group(AdmissionOptions, "GPUQuotas")
    certificate: ServingSettings = group(ServingSettings, "certificate")


def serve(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run the daemon to its end."""
    logs.configure(settings.serving.log_level)
    if settings.cluster.reachable(environ):
        work = _in_cluster(settings, settings.cluster.access(environ))
    else:
        work = _alone(settings)
    run_on(settings.loop.event_loop, work)


add_parser = partial(
    add_daemon,
    name="webhook",
    cls=Settings,
    serve=serve,
    summary="serve the admission webhook",
    description=DESCRIPTION,
)


async def _alone(settings: Settings) -> None:
    """Without an API server: pods are rewritten and checked only."""
    registry, stop = process()
    decider = Decider(settings.rewriting, settings.serving.system_users)
    certificate = certificates.mounted(settings.certificate, registry, None)
    app = AdmissionApp(decider.mutate, decider.validate, registry, checks=(certificate.check,))
    await admission.serve(
        app, settings.serving, certificate.serving.context, stop, certificate.run
    )


async def _in_cluster(settings: Settings, source: AccessSource) -> None:
    registry, stop = process()
    async with connected(source, component="webhook", registry=registry) as client:
        events = EventRecorder(client, component="gpu-fraction-webhook")
        quotas = AdmissionService(
            client,
            settings.quotas.settings,
            sizes=settings.rewriting.cards.sizes,
            registry=registry,
            sink=events,
            following=PROMPT,
        )
        namespaces = NamespaceLabels(client)
        budget = QuotaBudget(quotas)
        decider = Decider(
            settings.rewriting,
            settings.serving.system_users,
            backend_label=namespaces.backend,
            default_fraction=budget.default_fraction,
        )
        certificate: certificates.Certificate
        if settings.certificate.provided:
            certificate = certificates.mounted(settings.certificate, registry, client)
        else:
            certificate = certificates.managed(client, settings.certificate, registry, events)
        app = AdmissionApp(
            decider.mutate,
            Validator(decider, budget),
            registry,
            checks=(certificate.check, quotas.unsynced, namespaces.unsynced),
        )
        work = (certificate.run, events.run, quotas.run, namespaces.run)
        await admission.serve(app, settings.serving, certificate.serving.context, stop, *work)


@dataclass(frozen=True, slots=True)
class QuotaBudget:
    """``webhook.budget.Budget`` on GPUQuotas."""

    quotas: AdmissionService

    async def admit(self, namespace: str, pod: msgspec.Raw, *, dry_run: bool) -> Ruling:
        """See ``Budget``."""
        try:
            outcome = await self.quotas.admit(namespace, bytes(pod), dry_run=dry_run)
        except NotReadyError as e:
            raise NotReady(str(e), e.retry_after_s) from e
        except MalformedAnswerError as e:
            raise BadReview(f"request.object is not a Pod: {e}") from e
        return ruling(outcome)

    def default_fraction(self, namespace: str, pod: Pod) -> str | None:
        """See ``Budget``."""
        return self.quotas.default_fraction(namespace, pod.spec.priority_class_name)


def ruling(outcome: Outcome) -> Ruling:
    """The outcome as the webhook answers it; every refusal is one sentence."""
    reserved = ",".join(outcome.reservations)
    return Ruling(
        message="; ".join(refusal.message for refusal in outcome.refusals),
        warnings=tuple(refusal.message for refusal in outcome.warnings),
        note=f"reserved in {reserved}" if reserved else "",
    )
