"""What the cluster lets our programs do."""

import json
from collections.abc import Iterator
from typing import Final

from gpu_fraction.dashboard.doctor.evidence import Evidence, is_ours
from gpu_fraction.dashboard.doctor.finding import Finding, fail, warn
from gpu_fraction.dashboard.doctor.probes import OPENSHIFT

ENFORCE: Final = "pod-security.kubernetes.io/enforce"
"""Source: kubernetes.io, Pod Security Admission."""


def pod_security(found: Evidence) -> Iterator[Finding]:
    """22: Pod Security refuses the node daemon, which is privileged."""
    fix = f"kubectl label namespace {found.system} {ENFORCE}=privileged --overwrite"
    for one in found.namespaces.items:
        level = (one.metadata.labels or {}).get(ENFORCE, "privileged")
        if one.metadata.name == found.system and level != "privileged":
            yield fail(f"Namespace {found.system}: label {ENFORCE}={level}", fix)
            return
    for event in found.about("violates PodSecurity"):
        if event.involved_object.namespace == found.system:
            yield fail(f"{event.involved_object}: {event.message[:200]}", fix)
            return


def openshift(found: Evidence) -> Iterator[Finding]:
    """23: the node daemon's account may not use the privileged SecurityContextConstraints."""
    if not any(group.name == OPENSHIFT for group in found.groups.items):
        return
    for one in found.rights.items:
        if one.verb == "use" and not one.allowed:
            namespace, account = one.account.split("/")
            yield fail(
                f"ServiceAccount {one.account} may not use SecurityContextConstraints privileged",
                f"oc adm policy add-scc-to-user privileged -z {account} -n {namespace}     # "
                "or chart: "
                "openshift=true",
            )


def priority_quota(found: Evidence) -> Iterator[Finding]:
    """24: the cluster limits critical priority classes to some namespaces."""
    for event in found.about("insufficient quota to match these scopes"):
        if event.involved_object.namespace == found.system:
            yield fail(
                f"{event.involved_object}: {event.message[:200]}",
                f"kubectl apply -f - <<'END'\n{json.dumps(_quota(found.system))}\nEND",
            )
            return


def _quota(namespace: str) -> dict[str, object]:
    names = ["system-cluster-critical", "system-node-critical"]
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": names}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpu-fraction-critical-pods", "namespace": namespace},
        "spec": {"hard": {"pods": "100000"}, "scopeSelector": {"matchExpressions": [scope]}},
    }


def accounts(found: Evidence) -> Iterator[Finding]:
    """29: an account of ours lacks a right that its program needs."""
    missing: dict[str, list[str]] = {}
    for one in found.rights.items:
        if not one.allowed and one.verb != "use":
            missing.setdefault(one.account, []).append(f"{one.verb} {one.resource}")
    for account, rights in sorted(missing.items()):
        yield fail(
            f"ServiceAccount {account} may not {', '.join(rights)}",
            "kubectl apply -k my-cluster     # ClusterRoles and their bindings, deploy/rbac",
        )


def budgets(found: Evidence) -> Iterator[Finding]:
    """41: a PodDisruptionBudget of ours lets no pod go though all are healthy."""
    for one in found.budgets.items:
        status = one.status
        name = one.metadata.name
        ours = is_ours(one.metadata) or "gpu-fraction" in name
        healthy = status.current_healthy >= status.expected_pods > 0
        if ours and healthy and status.disruptions_allowed == 0:
            yield warn(
                f"PodDisruptionBudget {found.system}/{name}: status.disruptionsAllowed is 0 with "
                f"{status.current_healthy} of {status.expected_pods} pods healthy: a drain "
                "would wait "
                "for ever",
                f"kubectl -n {found.system} scale deployment gpu-fraction-webhook --replicas=2",
            )
