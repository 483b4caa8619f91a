"""``gpu-fraction webhook``: the admission server with quotas and certificates."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from gpu_fraction.certs import app as certificates
from gpu_fraction.certs.settings import ServingSettings
from gpu_fraction.cli.cluster import ClusterSettings, connected
from gpu_fraction.cli.daemon import EventLoop, add_daemon, process, run_on
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
from gpu_fraction.webhook.decide import Decider, is_new_claim
from gpu_fraction.webhook.endpoints import AdmissionApp, NotReady
from gpu_fraction.webhook.namespaces import NamespaceLabels
from gpu_fraction.webhook.review import AdmissionRequest, Answer, BadReview
from gpu_fraction.webhook.settings import WebhookSettings
from gpu_fraction.webhook.validator import Validator

CLAIMS_REFUSED: Final = (
    "ResourceClaims of the classes *.gpu-fraction.dev are not written by hand, unless the webhook "
    "runs with --hand-written-claims=charge; put the annotation gpu-fraction on the pod instead"
)

DESCRIPTION: Final = """\
Serve the admission webhook over TLS: /mutate, /validate, /livez, /readyz, /metrics.

Inside a cluster or with --kubeconfig, the webhook enforces GPUQuotas and lets namespaces select
their backend; otherwise it only rewrites and checks pods. Without --tls-cert, --tls-key and
--cert-dir it manages its own certificate, which also requires the cluster.
After SIGTERM it answers every open request before it exits.

example:
  gpu-fraction webhook --tls-cert tls.crt --tls-key tls.key --gpu-memory-mib 80Gi
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the command."""

    serving: WebhookSettings = group(WebhookSettings, "server")
    loop: EventLoop = group(EventLoop)
    rewriting: RewriteSettings = group(RewriteSettings, "rewriting of pods")
    cluster: ClusterSettings = group(ClusterSettings, "cluster")
    quotas: AdmissionOptions = group(AdmissionOptions, "GPUQuotas")
    certificate: ServingSettings = group(ServingSettings, "certificate")


def serve(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run the daemon."""
    logs.configure(settings.serving.log_level)
    if settings.cluster.reachable(environ):
        work = _in_cluster(settings, settings.cluster.access(environ))
    else:
        work = _alone(settings)
    run_on(settings.loop.event_loop, work)


add_parser = partial(add_daemon, "webhook", Settings, serve, DESCRIPTION)


async def _alone(settings: Settings) -> None:
    """Serve without an API server: rewrite and check pods only."""
    registry, stop = process()
    decider = Decider(settings.rewriting, settings.serving.system_users)
    certificate = certificates.mounted(settings.certificate, registry, None)
    app = AdmissionApp(decider.mutate, decider.validate, registry, checks=(certificate.check,))
    await admission.serve(
        app, settings.serving, certificate.serving.context, stop, certificate.run
    )


async def _in_cluster(settings: Settings, source: AccessSource) -> None:
    registry, stop = process()
    await in_cluster(settings, source, registry, stop)


async def in_cluster(
    settings: Settings, source: AccessSource, registry: CollectorRegistry, stop: asyncio.Event
) -> None:
    """Serve with quotas and certificates until ``stop`` is set."""
    async with connected(source, component="webhook", registry=registry) as client:
        events = EventRecorder(client, component="gpu-fraction-webhook")
        quotas = AdmissionService(
            client,
            settings.quotas.settings,
            costs=settings.rewriting.stacks.costs.config,
            registry=registry,
            sink=events,
            following=PROMPT,
        )
        namespaces = NamespaceLabels(client)
        decider = Decider(
            settings.rewriting,
            settings.serving.system_users,
            backend_label=namespaces.backend,
            default_fraction=lambda namespace, pod: quotas.default_fraction(
                namespace, pod.spec.priority_class_name
            ),
        )
        certificate: certificates.Certificate
        if settings.certificate.provided:
            certificate = certificates.mounted(settings.certificate, registry, client)
        else:
            certificate = certificates.managed(client, settings.certificate, registry, events)
        app = AdmissionApp(
            decider.mutate,
            Validator(decider, partial(_reserve, quotas, settings.quotas.hand_written_claims)),
            registry,
            checks=(certificate.check, quotas.unsynced, namespaces.unsynced),
        )
        work = (certificate.run, events.run, quotas.run, namespaces.run)
        await admission.serve(app, settings.serving, certificate.serving.context, stop, *work)


async def _reserve(quotas: AdmissionService, claims: str, request: AdmissionRequest) -> Answer:
    claim = is_new_claim(request)
    if claim and claims == "refuse":
        return Answer(allowed=False, message=CLAIMS_REFUSED, audit={"decision": "refused"})
    admit = quotas.admit_claim if claim else quotas.admit
    try:
        outcome = await admit(
            request.namespace or "", bytes(request.object), dry_run=bool(request.dry_run)
        )
    except NotReadyError as e:
        raise NotReady(str(e), e.retry_after_s) from e
    except MalformedAnswerError as e:
        raise BadReview(f"request.object is malformed: {e}") from e
    return quota_answer(outcome)


def quota_answer(outcome: Outcome) -> Answer:
    """The outcome as an answer, the messages of several quotas joined."""
    audit = {"decision": "over_budget"} if outcome.refusals else {}
    if outcome.reservations:
        audit["quota"] = f"reserved in {','.join(outcome.reservations)}"
    return Answer(
        allowed=not outcome.refusals,
        message="; ".join(refusal.message for refusal in outcome.refusals),
        warnings=tuple(refusal.message for refusal in outcome.warnings),
        audit=audit,
    )
