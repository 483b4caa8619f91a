"""What a bug report needs, without secrets: versions, statuses, Events, and the checks' results.

Chosen by what is put in, not by what is taken out: no Secret, no variable, no argument of a user's
container, no caBundle, and of labels and annotations only those that are ours or Kubernetes' own.
"""

import hashlib
import re
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gpu_fraction.dashboard.doctor import report
from gpu_fraction.dashboard.doctor.evidence import Evidence, is_ours
from gpu_fraction.dashboard.doctor.finding import Result
from gpu_fraction.dashboard.objects import ObjectMeta
from gpu_fraction.domain import keys
from gpu_fraction.domain.pod import containers
from gpu_fraction.kube.access import VERSION
from gpu_fraction.kube.timestamps import time as api_time

KNOWN_DOMAINS: Final = ("nvidia.com/", "kubernetes.io/", "k8s.io/", "feature.node.kubernetes.io/")
"""Labels of nodes that are not the user's own; ``kubernetes.io/hostname`` is a name."""

_SECRET: Final = re.compile(
    r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)"
    r"|Bearer [\w.~+/-]+=*|eyJ[\w-]{10,}\.[\w.-]+"
    r"|(?i:(?:password|passwd|secret|token|api[_-]?key)[\w-]*=\S+)|(?<=://)[^\s/@]+:[^\s/@]+(?=@)",
    re.DOTALL,
)
"""PEM blocks, bearer tokens, JSON Web Tokens, ``password=…`` and its like, users in addresses."""

_ADDRESS: Final = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")


def made(found: Evidence, results: Sequence[Result], *, hashed: bool = False) -> dict[str, Any]:
    """The content of the file.

    Args:
        found: What was read.
        results: Of all checks.
        hashed: Replace names of namespaces, pods, nodes, quotas, owners and cards, and addresses.
            One name has one replacement in a file, and another in the next.
    """
    content: dict[str, Any] = {
        "apiVersion": report.API_VERSION,
        "kind": "DoctorBundle",
        "version": VERSION,
        "at": api_time(found.at),
        "server": [msgspec.to_builtins(one) for one in found.version.items],
        "report": report.described(results, found.snapshot.gaps),
        "installation": list(_own(found)),
        "webhookConfigurations": list(_configurations(found)),
        "leases": [
            msgspec.to_builtins(one.spec) | _named(one.metadata) for one in found.leases.items
        ],
        "nodes": list(_nodes(found)),
        "pods": list(_pods(found)),
        "quotas": [
            _named(one.metadata)
            | {"spec": msgspec.to_builtins(one.spec), "status": msgspec.to_builtins(one.status)}
            for one in found.snapshot.quotas.items
        ],
        "events": list(_events(found)),
        "metrics": [{"pod": one.pod, "values": dict(one.values)} for one in found.metrics.items],
    }
    change = _Names(_names(found), _kept(found)) if hashed else None
    cleaned: dict[str, Any] = _cleaned(content, change)
    return cleaned


def _named(meta: ObjectMeta) -> dict[str, Any]:
    return {
        "namespace": meta.namespace,
        "name": meta.name,
        "created": meta.creation_timestamp,
        "deleted": meta.deletion_timestamp,
    }


def _own(found: Evidence) -> Iterator[dict[str, Any]]:
    for pod in found.own_pods:
        yield _named(pod.metadata) | {
            "labels": pod.metadata.labels,
            "node": pod.spec.node_name,
            "status": msgspec.to_builtins(pod.status),
        }
    for one in (*found.deployments.items, *found.daemon_sets.items):
        if one.metadata.namespace == found.system and is_ours(one.metadata):
            yield _named(one.metadata) | {
                "status": msgspec.to_builtins(one.status),
                "images": [c.image for c in one.containers],
                "args": [c.args for c in one.containers],
                "settings": {
                    e.name: e.value
                    for c in one.containers
                    for e in c.env or ()
                    if e.name.startswith("GPU_FRACTION_")
                },
            }


def _configurations(found: Evidence) -> Iterator[dict[str, Any]]:
    """All webhooks that pods pass, without certificates."""
    for configuration, webhook in found.pod_webhooks:
        service = webhook.client_config.service
        yield {
            "configuration": configuration.metadata.name,
            "webhook": webhook.name,
            "service": service and f"{service.namespace}/{service.name}:{service.port}",
            "failurePolicy": webhook.failure_policy,
            "timeoutSeconds": webhook.timeout_seconds,
            "namespaceSelector": webhook.namespace_selector,
            "objectSelector": webhook.object_selector,
            "matchConditions": webhook.match_conditions,
            "caBundleBytes": len(webhook.client_config.ca_bundle or b""),
            "managers": sorted({m.manager for m in configuration.metadata.managed_fields or ()}),
        }


def _nodes(found: Evidence) -> Iterator[dict[str, Any]]:
    for view in found.cluster.nodes:
        labels = view.node.metadata.labels or {}
        yield _named(view.node.metadata) | {
            "name": view.name,
            "labels": {
                key: value
                for key, value in labels.items()
                if any(domain in key for domain in (keys.PREFIX, *KNOWN_DOMAINS))
            },
            "taints": msgspec.to_builtins(view.node.spec.taints or []),
            "unschedulable": view.node.spec.unschedulable,
            "status": msgspec.to_builtins(view.node.status),
            "inventory": msgspec.to_builtins(view.inventory) if view.inventory else view.problem,
        }


def _pods(found: Evidence) -> Iterator[dict[str, Any]]:
    """GPU pods: what they ask and hold, not what they run."""
    for view in found.cluster.pods:
        pod = view.pod
        yield _named(pod.metadata) | {
            "annotations": {k: v for k, v in pod.annotations.items() if keys.is_ours(k)},
            "scheduler": pod.spec.scheduler_name,
            "runtimeClass": pod.spec.runtime_class_name,
            "node": pod.spec.node_name,
            "resources": {
                at.container.name: msgspec.to_builtins(at.container.resources)
                for at in containers(pod.domain())
                if at.container.resources is not None
            },
            "phase": pod.status.phase,
            "reason": pod.status.reason,
            "message": pod.status.message,
            "conditions": msgspec.to_builtins(pod.status.conditions or []),
        }


def _events(found: Evidence) -> Iterator[dict[str, Any]]:
    """Warnings about our pods, GPU pods, nodes with cards, quotas, and refused owners."""
    about = {("Pod", p.metadata.namespace, p.metadata.name) for p in found.own_pods}
    about |= {("Pod", view.namespace, view.name) for view in found.cluster.pods}
    about |= {("Node", "", view.name) for view in found.cluster.nodes}
    for event in found.events.items:
        of = event.involved_object
        known = (of.kind, of.namespace, of.name) in about or (of.kind, "", of.name) in about
        if (
            known
            or of.kind == "GPUQuota"
            or of.namespace == found.system
            or keys.FRACTION in event.message
        ):
            yield {
                "about": str(of),
                "reason": event.reason,
                "message": event.message,
                "at": event.at,
                "count": event.count,
                "writer": event.writer,
            }


def _names(found: Evidence) -> Iterator[str]:
    """Every name that somebody chose."""
    for pod in found.snapshot.pods.items:
        yield from (pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
        yield from (owner.name for owner in pod.metadata.owner_references or ())
    for view in found.cluster.pods:
        yield from (at.container.name for at in containers(view.pod.domain()))
    for node in found.snapshot.nodes.items:
        yield node.metadata.name
        yield (node.metadata.labels or {}).get("kubernetes.io/hostname", "")
    yield from (card.card.uuid for card in found.cluster.cards)
    for quota in found.snapshot.quotas.items:
        yield from (quota.metadata.name, quota.metadata.namespace)
    yield from (one.metadata.name for one in found.namespaces.items)
    for event in found.events.items:
        yield from (event.involved_object.name, event.involved_object.namespace)
    yield from (trial.namespace for trial in found.trials.items)


def _kept(found: Evidence) -> set[str]:
    """Names of our own, which nobody chose, and those that every cluster has."""
    pods = {pod.metadata.name for pod in found.own_pods}
    daemons = {one.metadata.name for one in found.daemon_sets.items}
    return {found.system, "default", "kube-system", "kube-public", *pods, *daemons}


class _Names:
    """Replaces names by hashes with a salt that is kept nowhere."""

    def __init__(self, names: Iterable[str], kept: Container[str]) -> None:
        wanted = {name for name in names if name and name not in kept}
        self._salt = secrets.token_bytes(16)
        ordered = sorted(wanted, key=lambda name: (-len(name), name))
        words = "|".join(map(re.escape, ordered))
        self._pattern = re.compile(rf"(?<![\w.-])(?:{words})(?![\w-])") if words else None

    def replaced(self, text: str) -> str:
        """The text without names and addresses."""
        if self._pattern is not None:
            text = self._pattern.sub(self._hash, text)
        return _ADDRESS.sub(self._hash, text)

    def _hash(self, match: re.Match[str]) -> str:
        digest = hashlib.blake2b(match[0].encode(), key=self._salt, digest_size=4)
        return f"name-{digest.hexdigest()}"


def _cleaned(value: Any, names: _Names | None) -> Any:
    if isinstance(value, Mapping):
        return {_key(key, names): _cleaned(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(one, names) for one in value]
    if isinstance(value, str):
        text = _SECRET.sub("(removed)", value)
        return names.replaced(text) if names else text
    return value


def _key(key: str, names: _Names | None) -> str:
    """Keys are words of ours, but for names of containers."""
    return key if names is None or key.isidentifier() else names.replaced(key)
