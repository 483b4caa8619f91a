"""Turns a ``PodEdit`` into the smallest JSON patch (RFC 6902) against a pod.

A real API server fails the request with 500 where the parent of a patched field is missing,
whatever the failure policy; drops unknown fields in a patch silently; and refuses a limit that
changes without its defaulted request. So the patch creates parents, writes both limits and
requests, and replaces no value of the user.
"""

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from gpu_fraction.domain import units
from gpu_fraction.domain.edit import FieldRef, PodEdit
from gpu_fraction.domain.pod import ClaimRef, ContainerAt, Pod, containers
from gpu_fraction.domain.problems import Problem, quote
from gpu_fraction.domain.request import Refused

DEFAULT_SCHEDULER: Final = "default-scheduler"
"""The API server's default (core/v1), so it is not a choice of the user."""

_RESERVED: Final = "only gpu-fraction sets it; remove the value {given}"
_CONFLICT: Final = (
    "is {given}, but the annotations request {wanted}; remove it, gpu-fraction sets it"
)

Operation = dict[str, Any]


def escape(key: str) -> str:
    """One reference token of a JSON pointer (RFC 6901 section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def build(pod: Pod, edit: PodEdit) -> list[Operation]:
    """The operations that apply an edit to a pod; empty where the pod already matches.

    Raises:
        Refused: the pod has a conflicting value, or lacks a container of the edit.
    """
    problems: list[Problem] = []
    tolerated = pod.spec.tolerations or []
    operations = [
        *_entries(
            "/metadata/annotations",
            pod.metadata.annotations,
            edit.annotations,
            problems,
            why=_RESERVED,
        ),
        *_rewritten(pod, edit),
        *_entries("/metadata/labels", pod.metadata.labels, edit.labels, problems),
        *_containers(pod, edit, problems),
        *(_claims(pod, edit, problems) if edit.resource_claims else ()),
        *_scheduler(pod, edit.scheduler_name),
        *_entries("/spec/nodeSelector", pod.spec.node_selector, edit.node_selector, problems),
        *_items(
            "/spec/tolerations",
            pod.spec.tolerations,
            [t for t in edit.tolerations if not any(own.covers(t) for own in tolerated)],
        ),
    ]
    if edit.runtime_class_name and not pod.spec.runtime_class_name:
        operations.append(_add("/spec/runtimeClassName", edit.runtime_class_name))
    if problems:
        raise Refused(problems)
    return operations


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _entries(
    pointer: str,
    present: Mapping[str, str] | None,
    wanted: Mapping[str, str],
    problems: list[Problem],
    *,
    why: str = _CONFLICT,
    same: Callable[[str, str], bool] = operator.eq,
) -> list[Operation]:
    """Operations for the missing keys of a mapping; a conflicting value is a problem."""
    if not wanted:
        return []
    if present is None:
        return [_add(pointer, dict(wanted))]
    missing = []
    for key, value in wanted.items():
        if key not in present:
            missing.append(_add(f"{pointer}/{escape(key)}", value))
        elif not same(present[key], value):
            path = re.sub(r"[.](\d+)", r"[\1]", pointer[1:].replace("/", "."))
            told = why.format(given=quote(present[key]), wanted=value)
            problems.append(Problem(f"{path}[{key}]", told))
    return missing


def _rewritten(pod: Pod, edit: PodEdit) -> Iterator[Operation]:
    for key, value in edit.rewritten.items():
        pointer = f"/metadata/annotations/{escape(key)}"
        present = pod.annotations().get(key)
        if value is None and present is not None:
            yield {"op": "remove", "path": pointer}
        elif value is not None and present != value:
            yield {**_add(pointer, value), "op": "add" if present is None else "replace"}


def _items(
    pointer: str, present: Collection[object] | None, wanted: Collection[object]
) -> list[Operation]:
    """Operations that append the missing items of a list."""
    missing = [item for item in wanted if item not in (present or ())]
    if missing and present is None:
        return [_add(pointer, msgspec.to_builtins(missing))]
    return [_add(f"{pointer}/-", msgspec.to_builtins(item)) for item in missing]


def _containers(pod: Pod, edit: PodEdit, problems: list[Problem]) -> Iterator[Operation]:
    names = dict.fromkeys((*edit.resources, *edit.container_claims, *edit.env))
    if not names:
        return
    found = {at.container.name: at for at in reversed(list(containers(pod)))}
    for name in names:
        at = found.get(name)
        if at is None:
            problems.append(Problem("spec.containers", f"has no container {quote(name)}"))
            continue
        resources, claims = edit.resources.get(name, {}), edit.container_claims.get(name, ())
        yield from _resources(at, resources, [ClaimRef(claim) for claim in claims], problems)
        present = {var.name for var in at.container.env or ()}
        variables = [
            {"name": key, **_source(value)}
            for key, value in edit.env.get(name, {}).items()
            if key not in present
        ]
        yield from _items(f"{at.pointer}/env", at.container.env, variables)


def _source(value: str | FieldRef) -> dict[str, object]:
    if isinstance(value, FieldRef):
        return {"valueFrom": {"fieldRef": {"fieldPath": value.path}}}
    return {"value": value}


def _resources(
    at: ContainerAt, wanted: Mapping[str, str], claims: list[ClaimRef], problems: list[Problem]
) -> list[Operation]:
    present = at.container.resources
    pointer = f"{at.pointer}/resources"
    if present is None:
        made: dict[str, object] = {}
        if wanted:
            made = {"limits": dict(wanted), "requests": dict(wanted)}
        if claims:
            made["claims"] = msgspec.to_builtins(claims)
        return [_add(pointer, made)] if made else []
    found = _items(f"{pointer}/claims", present.claims, claims) if claims else []
    for part, amounts in (("limits", present.limits), ("requests", present.requests)):
        found += _entries(f"{pointer}/{part}", amounts, wanted, problems, same=_equal)
    return found


def _claims(pod: Pod, edit: PodEdit, problems: list[Problem]) -> list[Operation]:
    present = pod.spec.resource_claims
    wanted = {claim.name: claim for claim in edit.resource_claims}
    problems += [
        Problem(
            f"spec.resourceClaims[{index}]",
            f"the name {quote(claim.name)} is reserved for gpu-fraction's claim; rename this one",
        )
        for index, claim in enumerate(present or ())
        if claim != wanted.get(claim.name, claim)
    ]
    return _items("/spec/resourceClaims", present, edit.resource_claims)


def _equal(given: str, wanted: str) -> bool:
    try:
        return given == wanted or units.parse_quantity(given) == units.parse_quantity(wanted)
    except units.UnitError:
        return False


def _scheduler(pod: Pod, wanted: str | None) -> Iterator[Operation]:
    present = pod.spec.scheduler_name
    if wanted is not None and present != wanted and present in (None, "", DEFAULT_SCHEDULER):
        op = "replace" if present else "add"
        yield {"op": op, "path": "/spec/schedulerName", "value": wanted}
