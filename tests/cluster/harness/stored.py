"""What the API server has stored, compared with what was wanted."""

from typing import Any

from tests.cluster.harness.kubectl import Kubectl

_LEFT_TO_ITSELF = {"events", "events.events.k8s.io", "leases.coordination.k8s.io"}
"""What controllers of Kubernetes write all the time."""


def holds(stored: Any, wanted: Any, at: str = "") -> list[str]:
    """The places where ``stored`` lacks or differs from ``wanted``; more is no difference."""
    if isinstance(wanted, dict):
        if not isinstance(stored, dict):
            return [at]
        return [p for k, v in wanted.items() for p in holds(stored.get(k), v, f"{at}.{k}")]
    if isinstance(wanted, list):
        if not isinstance(stored, list) or len(stored) != len(wanted):
            return [f"{at}: {stored} instead of {wanted}"]
        return [
            p
            for i, (s, w) in enumerate(zip(stored, wanted, strict=True))
            for p in holds(s, w, f"{at}[{i}]")
        ]
    # The API server stores no field for an empty text.
    return [] if (stored or "") == (wanted or "") else [f"{at}: {stored!r} instead of {wanted!r}"]


def own_tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Without those that the API server's plugin DefaultTolerationSeconds adds."""
    return [
        one
        for one in spec["tolerations"]
        if not one.get("key", "").startswith("node.kubernetes.io/")
    ]


def everything(kubectl: Kubectl) -> set[str]:
    """Every object of the cluster, by kind, namespace and name.

    Namespaces of tests are left out: they may be about to end.
    """
    listed = kubectl("api-resources", "--verbs=list", "-o", "name").split()
    kinds = ",".join(sorted(set(listed) - _LEFT_TO_ITSELF))
    form = r'{range .items[*]}{.kind} {.metadata.namespace} {.metadata.name}{"\n"}{end}'
    found = kubectl("get", kinds, "--all-namespaces", "-o", f"jsonpath={form}").splitlines()
    return {one for one in found if " test-" not in one}
