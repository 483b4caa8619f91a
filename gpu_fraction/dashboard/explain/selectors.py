"""Requirements on labels, as selectors and node affinity write them."""

from collections.abc import Mapping
from typing import Any


def meets(one: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels meet a requirement; true for an operator that is not known.

    Source: apimachinery pkg/labels, Requirement.Matches.
    """
    given, values = labels.get(str(one.get("key"))), one.get("values") or ()
    return {
        "In": given in values,
        "NotIn": given not in values,
        "Exists": given is not None,
        "DoesNotExist": given is None,
        "Gt": _above(given, values),
        "Lt": _above(next(iter(values), None), (given,)),
    }.get(str(one.get("operator")), True)


def _above(larger: object, than: Any) -> bool:
    """Whether a label holds a whole number above that of the requirement."""
    try:
        return int(str(larger)) > int(str(next(iter(than), "")))
    except ValueError:
        return False


def allowed(affinity: Mapping[str, Any] | None, name: str, labels: Mapping[str, str]) -> bool:
    """Whether the required node affinity of a pod allows a node.

    Of the terms one has to match; one without requirements matches no node.
    Source: component-helpers scheduling/corev1/nodeaffinity, NodeSelector.Match.

    Args:
        affinity: ``spec.affinity`` of the pod.
        name: The node's name.
        labels: The node's labels.
    """
    of_nodes = (affinity or {}).get("nodeAffinity") or {}
    required = of_nodes.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_matches(term, name, labels) for term in required.get("nodeSelectorTerms") or ())


def _matches(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    of_labels, of_fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not of_labels and not of_fields:
        return False
    fields = {"metadata.name": name}
    return all(meets(one, labels) for one in of_labels) and all(
        meets(one, fields) for one in of_fields
    )
