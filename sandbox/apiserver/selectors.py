"""Label and field selectors."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from gpu_fraction.sandbox.apiserver.failures import bad_request
from gpu_fraction.sandbox.apiserver.kinds import Kind

Predicate = Callable[[Mapping[str, Any]], bool]
"""Whether an object is selected."""

_SET: Final = re.compile(r"^\s*(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^)]*)\)\s*$")
_EQUALITY: Final = re.compile(
    r"^\s*(?P<key>[^!=\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>\S*)\s*$"
)
_PRESENCE: Final = re.compile(r"^\s*(?P<absent>!?)\s*(?P<key>[^!=\s(),]+)\s*$")
_BETWEEN: Final = re.compile(r",(?![^(]*\))")


def by_labels(selector: str) -> Predicate:
    """A label selector: equality, sets and presence, all of which must hold.

    Raises:
        ApiFailure: 400 where it does not parse.
    """
    terms = [_label_term(term) for term in _BETWEEN.split(selector) if term.strip()]
    return lambda obj: all(term(labels_of(obj)) for term in terms)


def by_fields(kind: Kind, selector: str) -> Predicate:
    """A field selector over the fields that the kind has for it.

    Raises:
        ApiFailure: 400 for another field or another operator.
    """
    terms = [_field_term(kind, term) for term in selector.split(",") if term.strip()]
    return lambda obj: all(term(obj) for term in terms)


def by_label_selector(selector: Mapping[str, Any] | None) -> Predicate:
    """A LabelSelector object, as webhook configurations carry; empty selects everything."""
    selector = selector or {}
    terms: list[Predicate] = []
    for key, value in selector.get("matchLabels", {}).items():
        terms.append(_among(key, {value}, wanted=True))
    for expression in selector.get("matchExpressions", ()):
        key, values = expression["key"], set(expression.get("values", ()))
        match expression["operator"]:
            case "In":
                terms.append(_among(key, values, wanted=True))
            case "NotIn":
                terms.append(_among(key, values, wanted=False))
            case "Exists":
                terms.append(_present(key, wanted=True))
            case "DoesNotExist":
                terms.append(_present(key, wanted=False))
            case other:
                raise bad_request(f"{other!r} is not a valid label selector operator")
    return lambda obj: all(term(labels_of(obj)) for term in terms)


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of an object."""
    labels: Mapping[str, str] = obj.get("metadata", {}).get("labels") or {}
    return labels


def _label_term(term: str) -> Predicate:
    if found := _SET.match(term):
        values = {value.strip() for value in found["values"].split(",")}
        return _among(found["key"], values, wanted=found["operator"] == "in")
    if found := _EQUALITY.match(term):
        return _among(found["key"], {found["value"]}, wanted=found["operator"] != "!=")
    if found := _PRESENCE.match(term):
        return _present(found["key"], wanted=not found["absent"])
    raise bad_request(f"unable to parse requirement: {term!r}")


def _among(key: str, values: set[str], *, wanted: bool) -> Predicate:
    return lambda labels: (labels.get(key) in values) is wanted


def _present(key: str, *, wanted: bool) -> Predicate:
    return lambda labels: (key in labels) is wanted


def _field_term(kind: Kind, term: str) -> Predicate:
    found = _EQUALITY.match(term)
    if found is None:
        raise bad_request(f"invalid selector: {term!r}; can't understand it")
    path = found["key"]
    labels = {"metadata.name": "", "metadata.namespace": "", **kind.field_labels}
    if path not in labels:
        raise bad_request(f"field label not supported: {path}")
    wanted = found["operator"] != "!="
    return lambda obj: (_field(obj, path, labels[path]) == found["value"]) is wanted


def _field(obj: Mapping[str, Any], path: str, absent: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    return absent if value is None else str(value)
