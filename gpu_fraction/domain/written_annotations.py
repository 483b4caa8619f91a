"""Writes a ``Request`` as user annotations; the inverse of ``user_annotations.parse``."""

from collections.abc import Iterable

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import (
    DEFAULT_ISOLATION,
    DEFAULT_PLACEMENT,
    Refused,
    Request,
    Slice,
    annotation_path,
)


def write(request: Request, pod: Pod) -> tuple[dict[str, str], list[Problem]]:
    """The annotations by which a user asks for this, and what they cannot say of it.

    Args:
        request: The request.
        pod: The pod that gets them; its containers decide whether one has to be named.

    Raises:
        Refused: several containers need more than a share, which only one can have.
    """
    first, *others = sorted(request.slices, key=_simple)
    given: dict[str, str] = {}
    if _simple(first) and others:
        others = list(request.slices)
    else:
        given |= _pod_level(first)
        if [container.name for container in pod.spec.containers] != [first.container]:
            given[keys.CONTAINER_NAME] = first.container
    problems = [
        Problem(
            annotation_path(keys.CONTAINER_PREFIX + part.container),
            f"cannot say what container {part.container} has beside container "
            f"{first.container}; allowed: one container with an amount of memory, with compute "
            "apart from memory or with parts of several GPUs, others with a share of one GPU or "
            "whole GPUs",
        )
        for part in others
        if not _simple(part)
    ]
    if problems:
        raise Refused(problems)
    given |= {keys.CONTAINER_PREFIX + part.container: _share(part) for part in others}
    return given | _choices(request), list(_unlimited(request.slices))


def _simple(part: Slice) -> bool:
    """True for a share of one card, or whole cards."""
    share = part.memory_milli is not None and part.core_milli == part.memory_milli
    return share and (part.cards == 1 or part.whole)


def _share(part: Slice) -> str:
    if part.whole:
        return str(part.cards)
    return units.format_milli(part.memory_milli or units.MILLI)


def _pod_level(part: Slice) -> dict[str, str]:
    if _simple(part):
        return {keys.FRACTION: _share(part)}
    given = {}
    if part.memory_mib is not None:
        given[keys.MEMORY] = units.format_memory(part.memory_mib)
    else:
        given[keys.FRACTION] = units.format_milli(part.memory_milli or units.MILLI)
    if part.core_milli and part.core_milli != part.memory_milli:
        given[keys.CORES] = units.format_milli(part.core_milli)
    if part.cards > 1:
        given[keys.NUM_DEVICES] = str(part.cards)
    return given


def _choices(request: Request) -> dict[str, str]:
    models = request.models or tuple(f"!{name}" for name in request.not_models)
    given = {keys.MODEL: ",".join(models), keys.UUID: ",".join(request.uuids)}
    if request.placement != DEFAULT_PLACEMENT:
        given[keys.PLACEMENT] = request.placement
    if request.isolation != DEFAULT_ISOLATION:
        given[keys.ISOLATION] = request.isolation
    return {key: value for key, value in given.items() if value}


def _unlimited(slices: Iterable[Slice]) -> Iterable[Problem]:
    for part in slices:
        if part.core_milli == 0:
            yield Problem(
                annotation_path(keys.CORES),
                f"container {part.container} has compute without a limit; it becomes compute in "
                "proportion to the memory",
            )
