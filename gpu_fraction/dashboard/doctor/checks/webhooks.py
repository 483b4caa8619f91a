"""The webhook configurations: ours as shipped, and those of others that pods pass."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gpu_fraction.dashboard.doctor.evidence import (
    HOOKS,
    Evidence,
    is_ours,
)
from gpu_fraction.dashboard.doctor.finding import Finding, fail, warn
from gpu_fraction.dashboard.doctor.objects import Configuration, ServiceReference, Webhook
from gpu_fraction.dashboard.doctor.reading import SERVICE_NAME
from gpu_fraction.domain import keys

REMOVE: Final = "kubectl delete mutatingwebhookconfiguration,validatingwebhookconfiguration"

SHIPPED_RULES: Final[Mapping[str, frozenset[tuple[str, str]]]] = {
    "mutate.gpu-fraction.dev": frozenset({("CREATE", "pods")}),
    "validate.gpu-fraction.dev": frozenset({("CREATE", "pods")}),
    "changes.gpu-fraction.dev": frozenset(
        {
            ("UPDATE", "pods"),
            ("UPDATE", "pods/status"),
            ("UPDATE", "pods/ephemeralcontainers"),
            ("CREATE", "pods/binding"),
            ("CREATE", "bindings"),
        }
    ),
}
"""Operation and resource of each webhook (deploy/webhook/configurations.yaml)."""

HARMLESS: Final = ("control-plane", "kubernetes.azure.com/managedby")
"""Keys that AKS' admissions enforcer adds to every selector. Source: github.com/Azure/AKS#1771."""

OTHERS: Final[Mapping[str, str]] = {
    "vgpu.hami.io": "HAMi",
    "runai": "Run:ai",
    "kai-admission": "KAI-Scheduler",
    "volcano": "Volcano",
    "koord": "Koordinator",
}
"""Parts of names of webhooks that rewrite GPU pods as well, with their product."""

_LONGEST_S: Final = 10
"""Chosen: above it a webhook that is down holds each creation for longer than clients wait."""


def conditions_stored(found: Evidence) -> Iterator[Finding]:
    """2: a webhook of ours without matchConditions reaches every pod."""
    for configuration, webhook in found.ours:
        if not webhook.match_conditions:
            yield fail(
                f"{_at(configuration, webhook)}: matchConditions is empty, so that every pod "
                "of the "
                "cluster depends on this webhook",
                f"{REMOVE} {configuration.metadata.name}\nkubectl apply -k my-cluster",
            )


def installed(found: Evidence) -> Iterator[Finding]:
    """3: configurations without what serves them, or no configuration."""
    names = {webhook.name for _, webhook in found.ours}
    if not found.ours:
        pods = len(found.own_pods)
        yield fail(
            f"no webhook configuration of gpu-fraction exists; {pods} pods of gpu-fraction run",
            "kubectl apply -k my-cluster     # docs/installation.md",
        )
        return
    for missing in [name for name in HOOKS if name not in names]:
        yield fail(f"webhook {missing} is in no configuration", "kubectl apply -k my-cluster")
    yield from orphans(found)


def orphans(found: Evidence) -> Iterator[Finding]:
    """3, before an installation: configurations that a removal left behind."""
    for name, service in _services(found):
        if not _exists(found, service):
            yield fail(
                f"configuration {name}: clientConfig.service {service.namespace}/{service.name} "
                "does not exist, so that GPU pods are refused in the whole cluster",
                f"{REMOVE} {name}",
            )
        elif found.deployments.read and not any(
            is_ours(one.metadata) for one in found.deployments.items
        ):
            yield warn(
                f"configuration {name}: no Deployment of gpu-fraction is in namespace "
                f"{found.system}",
                f"{REMOVE} {name}     # if gpu-fraction was removed",
            )


def endpoints(found: Evidence) -> Iterator[Finding]:
    """4: nobody answers at our Service."""
    for _, service in _services(found):
        if not _exists(found, service) or _external(found, service):
            continue
        ready, known = _ready(found, service)
        logs = (
            f"kubectl -n {service.namespace} get pods -l app.kubernetes.io/component=webhook\n"
            f"kubectl -n {service.namespace} logs -l app.kubernetes.io/component=webhook"
        )
        if not ready:
            yield fail(
                f"Service {service.namespace}/{service.name}: 0 of {known} endpoints are ready"
                f"{_waiting(found)}",
                logs,
            )
        elif ready < known:
            yield warn(
                f"Service {service.namespace}/{service.name}: {ready} of {known} endpoints are "
                f"ready{_waiting(found)}",
                logs,
            )


def shipped(found: Evidence) -> Iterator[Finding]:
    """9: somebody changed what a webhook of ours receives."""
    for configuration, webhook in found.ours:
        at = _at(configuration, webhook)
        rules = {
            (operation, name)
            for rule in webhook.rules or ()
            for operation in rule.operations or ()
            for name in rule.resources or ()
        }
        if missing := SHIPPED_RULES[webhook.name] - rules:
            listed = ", ".join(sorted(" ".join(one) for one in missing))
            by = _writers(configuration, "f:rules")
            yield fail(f"{at}: rules lack {listed}{by}", "kubectl apply -k my-cluster")
        if webhook.failure_policy != "Fail":
            by = _writers(configuration, "f:failurePolicy")
            yield warn(
                f"{at}: failurePolicy is {webhook.failure_policy}{by}: GPU pods pass unchanged "
                "and "
                "uncounted while no replica answers",
                "set failurePolicy: Fail (chart: webhook.failurePolicy)",
            )
        if webhook.timeout_seconds > _LONGEST_S:
            by = _writers(configuration, "f:timeoutSeconds")
            yield warn(
                f"{at}: timeoutSeconds is {webhook.timeout_seconds}{by}",
                "set timeoutSeconds: 5 (chart: webhook.timeoutSeconds)",
            )
        if webhook.object_selector and any(webhook.object_selector.values()):
            by = _writers(configuration, "f:objectSelector")
            yield warn(
                f"{at}: objectSelector {webhook.object_selector}{by} leaves out GPU pods by label",
                "remove objectSelector",
            )
        for key, by in _narrowed(configuration, webhook):
            yield warn(
                f"{at}: namespaceSelector also asks for {key}{by}: GPU pods of the namespaces "
                "that it "
                "leaves out are not rewritten",
                "none where that is wanted (chart: webhook.namespaceSelector); else remove it",
            )
        if not _excludes(webhook, found.system):
            yield fail(
                f"{at}: namespaceSelector does not leave out {found.system}: the webhook's own "
                "pods need the webhook",
                "kubectl apply -k my-cluster",
            )


def others(found: Evidence) -> Iterator[Finding]:
    """10: webhooks of others that stop pods, or rewrite GPU pods too."""
    for configuration, webhook in found.pod_webhooks:
        if webhook.name in HOOKS:
            continue
        service = webhook.client_config.service
        at = _at(configuration, webhook)
        product = next((p for part, p in OTHERS.items() if part in at.lower()), "")
        if service is not None and webhook.failure_policy == "Fail":
            why = ""
            if not _exists(found, service):
                why = "does not exist"
            elif not _external(found, service) and not _ready(found, service)[0]:
                why = "has no ready endpoint"
            if why:
                yield fail(
                    f"{at} (failurePolicy: Fail): Service {service.namespace}/{service.name} "
                    f"{why}, "
                    "so that the pods it selects are refused",
                    f"repair {product or 'its owner'}, or: {REMOVE} {configuration.metadata.name}",
                )
                continue
        if product and found.backend in {keys.NATIVE, "dra"}:
            yield warn(
                f"{at} of {product} receives pods as well and may rewrite GPU pods",
                "gpu-fraction backends detect     # then docs/backends.md says how to run "
                f"beside {product}",
            )


def _at(configuration: Configuration, webhook: Webhook) -> str:
    return f"configuration {configuration.metadata.name}, webhook {webhook.name}"


def _services(found: Evidence) -> Iterator[tuple[str, ServiceReference]]:
    """The Services of our webhooks, each once, with the name of a configuration."""
    seen = set()
    for configuration, webhook in found.ours:
        service = webhook.client_config.service
        if service is not None and (service.namespace, service.name) not in seen:
            seen.add((service.namespace, service.name))
            yield configuration.metadata.name, service


def _exists(found: Evidence, service: ServiceReference) -> bool:
    names = {(s.metadata.namespace, s.metadata.name) for s in found.services.items}
    return (service.namespace, service.name) in names


def _external(found: Evidence, service: ServiceReference) -> bool:
    """Whether a Service has no endpoints by its type."""
    return any(
        one.spec.type == "ExternalName"
        for one in found.services.items
        if (one.metadata.namespace, one.metadata.name) == (service.namespace, service.name)
    )


def _ready(found: Evidence, service: ServiceReference) -> tuple[int, int]:
    """Ready and known endpoints."""
    all_of_it = [
        endpoint
        for one in found.endpoints.items
        if one.metadata.namespace == service.namespace
        and (one.metadata.labels or {}).get(SERVICE_NAME) == service.name
        for endpoint in one.endpoints or ()
    ]
    return sum(one.ready for one in all_of_it), len(all_of_it)


def _waiting(found: Evidence) -> str:
    """Why pods of the webhook are not ready, as the kubelet says it."""
    said = {
        f"{name} is {state.get('reason', 'waiting')}: {state.get('message', '')}".rstrip(": ")
        for one in found.component("webhook")
        for status in one.status.container_statuses or ()
        for name, state in [(one.metadata.name, (status.state or {}).get("waiting"))]
        if state
    }
    return f" ({'; '.join(sorted(said))})" if said else ""


def _writers(configuration: Configuration, field: str) -> str:
    """Who owns a field, of those that are not ours."""
    names = {
        one.manager
        for one in configuration.metadata.managed_fields or ()
        if _holds(one.fields_v1 or {}, field)
    }
    return f" (managedFields: {', '.join(sorted(names))})" if names else ""


def _holds(tree: Mapping[str, Any], field: str) -> bool:
    return field in tree or any(
        _holds(sub, field) for sub in tree.values() if isinstance(sub, dict)
    )


def _narrowed(configuration: Configuration, webhook: Webhook) -> Iterator[tuple[str, str]]:
    """Further demands on namespaces, with who owns the selector; not what AKS adds everywhere."""
    selector = webhook.namespace_selector or {}
    asked = [str(one.get("key")) for one in selector.get("matchExpressions") or ()]
    for key in (*asked, *(selector.get("matchLabels") or ())):
        if key not in {"kubernetes.io/metadata.name", *HARMLESS}:
            yield key, _writers(configuration, "f:namespaceSelector")


def _excludes(webhook: Webhook, namespace: str) -> bool:
    for one in (webhook.namespace_selector or {}).get("matchExpressions") or ():
        if one.get("key") == "kubernetes.io/metadata.name":
            values = one.get("values") or ()
            if one.get("operator") == "NotIn" and namespace in values:
                return True
            if one.get("operator") == "In" and namespace not in values:
                return True
    return False
