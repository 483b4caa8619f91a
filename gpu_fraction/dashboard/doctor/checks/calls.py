"""Whether the API server can call the webhook, and trusts it."""

import hashlib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from gpu_fraction.dashboard.doctor.checks.server import git_version
from gpu_fraction.dashboard.doctor.evidence import Evidence, Trial, moment
from gpu_fraction.dashboard.doctor.finding import Finding, fail, warn
from gpu_fraction.dashboard.doctor.objects import Configuration, Webhook
from gpu_fraction.domain import keys

WARN_S: Final = 7 * 86400.0
FAIL_S: Final = 86400.0
"""Source: kubernetes-mixin, alerts/kube_apiserver.libsonnet@04702d8: client certificates that end
in 7 days, and in 1."""

_UNTRUSTED: Final = "x509: certificate signed by unknown authority"
_TIMEOUT: Final = "failed calling webhook: context deadline exceeded"
_ADDRESS: Final = "failed calling webhook: Address is not allowed"
_EOF: Final = "failed calling webhook: EOF"
_NO_ENDPOINTS: Final = "no endpoints available for service"
_REFUSED: Final = "failed calling webhook: connection refused"
_NO_SERVICE: Final = "failed calling webhook: service not found"

LOGS: Final = "logs -l app.kubernetes.io/component=webhook --tail=50"


@dataclass(frozen=True, slots=True)
class Failure:
    """A way in which calls of the webhook fail.

    Attributes:
        words: What the server's message holds, a regular expression.
        heading: The section about it.
        fix: What to do; ``{ns}`` is the installation's namespace.
    """

    words: str
    heading: str
    fix: str


FAILURES: Final = (
    Failure("x509: ", _UNTRUSTED, "gpu-fraction certs status\ngpu-fraction certs rotate --ca"),
    Failure(
        "no endpoints available",
        _NO_ENDPOINTS,
        "kubectl -n {ns} get pods\nkubectl -n {ns} " + LOGS,
    ),
    Failure(r"service \S+ not found", _NO_SERVICE, "kubectl -n {ns} get services"),
    Failure("Address is not allowed", _ADDRESS, "chart: webhook.hostNetwork=true"),
    Failure(
        "connection refused", _REFUSED, "kubectl -n {ns} get pods -o wide\nkubectl -n {ns} " + LOGS
    ),
    Failure(
        r"\bEOF\b",
        _EOF,
        "add .svc and the cluster's service network to NO_PROXY of kube-apiserver",
    ),
    Failure(
        "deadline exceeded|Client.Timeout|i/o timeout",
        _TIMEOUT,
        "open the webhook's port (9443) from the control plane to the nodes\nkubectl -n {ns} "
        + LOGS,
    ),
)
"""Source of the words: Go's crypto/x509, net and net/http; kubernetes pkg/proxy; EKS' proxy."""

UNKNOWN: Final = "GPU pods are refused: failed calling webhook"
NOT_CALLED: Final = "The webhook is not called"
OTHERS_REFUSE: Final = "A trial pod is refused by something else"


def works(found: Evidence) -> Iterator[Finding]:
    """6: a pod that is created as a dry run is not rewritten."""
    for trial in found.trials.items:
        at = f"a dry run of a pod with {keys.FRACTION} in namespace {trial.namespace}"
        if trial.outcome == "failed":
            cause = failure_of(trial)
            fix = cause.fix if cause else "kubectl -n {ns} " + LOGS
            heading = cause.heading if cause else UNKNOWN
            yield fail(f"{at}: {trial.text}", fix.format(ns=found.system), heading)
        elif trial.outcome == "unchanged" and trial.namespace in {found.system, "kube-system"}:
            yield warn(
                f"{at} came back unchanged: this namespace is left out on purpose",
                "gpu-fraction doctor -n NAMESPACE     # of a namespace with GPU pods",
                NOT_CALLED,
            )
        elif trial.outcome == "unchanged":
            yield fail(
                f"{at} came back without the annotation {keys.REQUEST}",
                f"kubectl get namespace {trial.namespace} --show-labels     # against the "
                "namespaceSelector of our configurations\n"
                "kubectl get mutatingwebhookconfigurations",
                NOT_CALLED,
            )
        elif trial.outcome == "refused" and not any(h in trial.text for h in _OUR_WORD):
            yield warn(
                f"{at}: {trial.text}",
                "gpu-fraction doctor -n NAMESPACE     # of a namespace that takes pods",
                OTHERS_REFUSE,
            )


_OUR_WORD: Final = ('"mutate.gpu-fraction.dev" denied', '"validate.gpu-fraction.dev" denied')
"""A refusal by our webhook shows that it is called."""


def failure_of(trial: Trial) -> Failure | None:
    """The known way in which the call failed."""
    return next((one for one in FAILURES if re.search(one.words, trial.text)), None)


def network(found: Evidence) -> Iterator[Finding]:
    """7: the call does not arrive, on a cloud where that has one known cause."""
    for trial in found.trials.items:
        cause = failure_of(trial) if trial.outcome == "failed" else None
        if cause is None or cause.heading not in {_TIMEOUT, _ADDRESS}:
            continue
        version = git_version(found)
        if "-gke." in version:
            yield fail(
                f"{cause.heading}, on GKE ({version}): its control plane reaches pods on 443 "
                "and 10250",
                "chart: webhook.port=10250\ngcloud compute firewall-rules create "
                "gpu-fraction-webhook"
                " --allow=tcp:9443 --source-ranges=CONTROL_PLANE_CIDR --target-tags=NODE_TAG",
                cause.heading,
            )
        elif "-eks-" in version:
            yield fail(
                f"{cause.heading}, on EKS ({version}): with another network plugin than "
                "Amazon's, its "
                "control plane does not reach pods",
                "chart: webhook.hostNetwork=true",
                cause.heading,
            )


def proxied(found: Evidence) -> Iterator[Finding]:
    """43: a proxy stands between the API server and the webhook."""
    for trial in found.trials.items:
        cause = failure_of(trial) if trial.outcome == "failed" else None
        if cause is not None and cause.heading == _EOF:
            yield fail(
                "the call of the webhook ends with EOF: kube-apiserver sends it to an HTTP proxy",
                "add .svc and the cluster's service network to NO_PROXY of kube-apiserver",
            )


def bundles(found: Evidence) -> Iterator[Finding]:
    """5: a caBundle is empty, unreadable, or not that of the others."""
    held: dict[frozenset[bytes], str] = {}
    fix = "gpu-fraction certs status\ngpu-fraction certs rotate"
    for configuration, webhook in found.ours:
        at = f"configuration {configuration.metadata.name}, webhook {webhook.name}: caBundle"
        text = webhook.client_config.ca_bundle or b""
        if not text.strip():
            yield fail(f"{at} is empty", fix)
            continue
        try:
            authorities = _authorities(text)
        except (ssl.SSLError, ValueError) as e:
            yield fail(f"{at} holds no readable certificate ({e}){_writer(configuration)}", fix)
            continue
        if not authorities:
            yield fail(f"{at} holds no CA certificate{_writer(configuration)}", fix)
        held.setdefault(frozenset(authorities), f"{configuration.metadata.name}/{webhook.name}")
    yield from _strangers(found, frozenset.intersection(*held) if held else frozenset())
    if len(held) > 1:
        yield warn(
            f"caBundles of our webhooks differ: {', '.join(sorted(held.values()))}; normal for "
            "seconds "
            "while a rotation is in progress",
            fix,
        )


def _strangers(found: Evidence, trusted: frozenset[bytes]) -> Iterator[Finding]:
    """Replicas that serve a leaf of a CA which not every caBundle holds."""
    known = {hashlib.sha256(one).hexdigest() for one in trusted}
    for lease in found.leases.items:
        issuer = (lease.metadata.annotations or {}).get(keys.SERVING_ISSUER, "")
        if issuer and issuer not in known and _alive(found, lease.spec.renew_time):
            yield fail(
                f"Lease {lease.metadata.name}: the replica serves a leaf of CA {issuer[:12]}, "
                "which "
                "is not in every caBundle",
                "gpu-fraction certs status\ngpu-fraction certs rotate",
            )


def expiry(found: Evidence) -> Iterator[Finding]:
    """8: a CA or a leaf ends soon."""
    fix = f"gpu-fraction certs rotate --ca\nkubectl -n {found.system} get leases"
    ends: dict[str, datetime] = {}
    for configuration, webhook in found.ours:
        for end in _ends(webhook):
            name = f"the last CA of configuration {configuration.metadata.name}"
            ends[name] = max(end, ends.get(name, end))
    for lease in found.leases.items:
        end_of_leaf = moment((lease.metadata.annotations or {}).get(keys.SERVING_NOT_AFTER))
        if end_of_leaf is not None and _alive(found, lease.spec.renew_time):
            ends[f"Lease {lease.metadata.name}: the served leaf"] = end_of_leaf
    for name, end in sorted(ends.items()):
        left_s = (end - found.at).total_seconds()
        if left_s < WARN_S:
            when = (
                f"ended at {end:%Y-%m-%d %H:%M}"
                if left_s <= 0
                else f"ends in {left_s / 3600:.0f} h"
            )
            yield (fail if left_s < FAIL_S else warn)(f"{name} {when}", fix)


def _alive(found: Evidence, renewed: str | None) -> bool:
    """Whether a replica has reported within the hour: of one that is gone, nothing matters."""
    age_s = found.age_s(renewed)
    return age_s is not None and age_s < 3600


def _authorities(pem: bytes) -> list[bytes]:
    """The CA certificates of a text, DER. Raises SSLError, ValueError: none can be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode("ascii"))
    return context.get_ca_certs(binary_form=True)


def _ends(webhook: Webhook) -> Iterator[datetime]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(
            cadata=(webhook.client_config.ca_bundle or b"").decode("ascii")
        )
    except (ssl.SSLError, ValueError):
        return
    for one in context.get_ca_certs():
        end = one.get("notAfter")
        if isinstance(end, str):
            yield datetime.fromtimestamp(ssl.cert_time_to_seconds(end), UTC)


def _writer(configuration: Configuration) -> str:
    names = [
        one.manager
        for one in configuration.metadata.managed_fields or ()
        if "f:caBundle" in str(one.fields_v1) and "gpu-fraction" not in one.manager
    ]
    return f"; also written by {', '.join(sorted(names))}" if names else ""
