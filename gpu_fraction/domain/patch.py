"""A ``PodEdit`` as the smallest JSON patch (RFC 6902) against a pod as it stands.

Rules that a real API server taught: a patch whose parent is missing fails the request with
500 whatever the failure policy; an unknown field in a patch is dropped without a word; a
limit changed without its already defaulted request is refused. So parents are created, limits
and requests are written both, and nothing that the user wrote is replaced.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gpu_fraction.domain import units
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, ContainerAt, Pod, containers
from gpu_fraction.domain.problems import Problem, quote
from gpu_fraction.domain.request import Refused, annotation_path

DEFAULT_SCHEDULER: Final = "default-scheduler"
"""What the API server fills in (core/v1 defaults), so not a choice of the user's."""

Operation = dict[str, Any]

__all__ = ["DEFAULT_SCHEDULER", "Operation", "build", "escape"]


def escape(key: str) -> str:
    """One reference token of a JSON pointer (RFC 6901 section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def build(pod: Pod, edit: PodEdit) -> list[Operation]:
    """The operations that turn the pod into what the edit wants; empty where it already is.

    Raises:
        Refused: the pod holds another value where the edit needs its own, or lacks a container.
    """
    problems: list[Problem] = []
    operations = [
        *_annotations(pod, edit.annotations, problems),
        *_containers(pod, edit, problems),
        *_scheduler(pod, edit.scheduler_name),
    ]
    if edit.runtime_class_name and not pod.spec.runtime_class_name:
        operations.append(_add("/spec/runtimeClassName", edit.runtime_class_name))
    if problems:
        raise Refused(problems)
    return operations


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _annotations(
    pod: Pod, wanted: Mapping[str, str], problems: list[Problem]
) -> Iterator[Operation]:
    present = pod.metadata.annotations
    missing = {}
    for key, value in wanted.items():
        if not present or key not in present:
            missing[key] = value
        elif present[key] != value:
            problems.append(
                Problem(
                    annotation_path(key),
                    f"only the system writes it; {quote(present[key])} was set by hand, remove it",
                )
            )
    if not missing:
        return
    if present is None:
        yield _add("/metadata/annotations", missing)
        return
    for key, value in missing.items():
        yield _add(f"/metadata/annotations/{escape(key)}", value)


def _containers(pod: Pod, edit: PodEdit, problems: list[Problem]) -> Iterator[Operation]:
    names = dict.fromkeys((*edit.resources, *edit.env))
    if not names:
        return
    found = {at.container.name: at for at in reversed(list(containers(pod)))}
    for name in names:
        at = found.get(name)
        if at is None:
            problems.append(Problem("spec.containers", f"has no container {quote(name)}"))
            continue
        if resources := edit.resources.get(name):
            yield from _resources(at, resources, problems)
        if env := edit.env.get(name):
            yield from _env(at.pointer, at.container, env)


def _resources(
    at: ContainerAt, wanted: Mapping[str, str], problems: list[Problem]
) -> Iterator[Operation]:
    present = at.container.resources
    if present is None:
        yield _add(f"{at.pointer}/resources", {"limits": dict(wanted), "requests": dict(wanted)})
        return
    for part, amounts in (("limits", present.limits), ("requests", present.requests)):
        missing = {}
        for name, amount in wanted.items():
            if not amounts or name not in amounts:
                missing[name] = amount
            elif not _equal(amounts[name], amount):
                problems.append(
                    Problem(
                        f"{at.path}.resources.{part}[{name}]",
                        f"is {quote(amounts[name])}, but the annotations ask for {amount}; "
                        "remove it, the annotations are enough",
                    )
                )
        if not missing:
            continue
        if amounts is None:
            yield _add(f"{at.pointer}/resources/{part}", missing)
            continue
        for name, amount in missing.items():
            yield _add(f"{at.pointer}/resources/{part}/{escape(name)}", amount)


def _equal(given: str, wanted: str) -> bool:
    try:
        return given == wanted or units.parse_quantity(given) == units.parse_quantity(wanted)
    except units.UnitError:
        return False


def _env(pointer: str, container: Container, wanted: Mapping[str, str]) -> Iterator[Operation]:
    present = {var.name for var in container.env or ()}
    missing = [{"name": k, "value": v} for k, v in wanted.items() if k not in present]
    if not missing:
        return
    if container.env is None:
        yield _add(f"{pointer}/env", missing)
        return
    for var in missing:
        yield _add(f"{pointer}/env/-", var)


def _scheduler(pod: Pod, wanted: str | None) -> Iterator[Operation]:
    present = pod.spec.scheduler_name
    if wanted is None or present == wanted:
        return
    if not present:
        yield _add("/spec/schedulerName", wanted)
    elif present == DEFAULT_SCHEDULER:
        yield {"op": "replace", "path": "/spec/schedulerName", "value": wanted}
