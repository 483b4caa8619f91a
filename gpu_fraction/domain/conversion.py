"""Turns a pod that was written for one stack into the annotation form or another stack's form.

A pod is taken apart and put together: ``find`` reads its request, ``plain`` removes the form in
which it is written (``plain_form``), and ``annotated`` or ``rendered`` adds the new one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from gpu_fraction.domain import (
    keys,
    patch,
    request_annotation,
    user_annotations,
    written_annotations,
)
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.backends import Stacks, claiming
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.patch import Operation
from gpu_fraction.domain.pod import Pod, resource_names
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Bounds, Refused, Request, Slice, annotation_path

VARIABLES: Final = (keys.SHARE_VARIABLE, keys.MEMORY_VARIABLE)


@dataclass(frozen=True, slots=True)
class Found:
    """How a pod asks for GPUs.

    Attributes:
        request: What it asks.
        stack: The stack that it is written for; None for the annotation form.
        recorded: The webhook has written the request into it.
    """

    request: Request
    stack: Backend | None
    recorded: bool = False


@dataclass(slots=True)
class Step:
    """One step of a conversion.

    Attributes:
        operations: JSON patch against the pod that the step was given.
        lost: What the pod after it does not say any more.
        notes: Other remarks for the user.
        asked: What is left of the request, where the step renders one.
    """

    operations: list[Operation] = field(default_factory=list)
    lost: list[Problem] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    asked: Request | None = None


def find(pod: Pod, stacks: Stacks, bounds: Bounds, only: str | None = None) -> Found | None:
    """How the pod asks for GPUs; None where it asks for none.

    Args:
        pod: The pod.
        stacks: The known stacks.
        bounds: Limits of requests.
        only: The stack to read it for; None for the one that claims it.

    Raises:
        Refused: several stacks read different requests, or the annotations are faulty or stand
            beside another form.
    """
    given = pod.annotations()
    if (known := request_annotation.find(given)) is not None and known.backend in stacks:
        return Found(known.request, stacks[known.backend], recorded=True)
    read = [one for one in readers(pod, stacks) if only in (None, one[0].name)]
    names = ", ".join(stack.name for stack, _ in read)
    if len({request for _, request in read}) > 1:
        raise Refused([several(names)])
    asks = user_annotations.asks(given)
    for stack, request in read:
        if asks and not stack.reads_our_annotations:
            told = f"has GPU annotations beside resources of {names}; remove one of the two"
            raise Refused([Problem("metadata.annotations", told)])
        return Found(request, stack)
    asked = user_annotations.parse(pod, bounds) if asks else None
    return None if asked is None else Found(asked, None)


def readers(pod: Pod, stacks: Stacks) -> list[tuple[Backend, Request]]:
    """Each stack that reads a request from the pod, with the request."""
    return [
        (stack, request)
        for stack, seen in _claiming(pod, stacks)
        if (request := stack.read(seen)) is not None
    ]


def several(names: str) -> Problem:
    """The problem of a pod for several stacks."""
    return Problem("spec", f"asks several stacks ({names}); name one of them with --from")


def _claiming(pod: Pod, stacks: Stacks) -> list[tuple[Backend, Pod]]:
    """As ``claiming``; what a pod's own scheduler takes over is its stack's also where alone.

    Quotas charge ``nvidia.com/gpu`` alone the same for HAMi as for NVIDIA's device plugin, so
    HAMi does not claim it; its annotations count all the same.
    """
    found = list(claiming(pod, stacks))
    names = resource_names(pod)
    for stack in stacks.values():
        used = stack.scheduler is not None and stack.scheduler == pod.spec.scheduler_name
        if used and names & stack.takes_over and all(stack is not one for one, _ in found):
            rest = names - stack.takes_over
            others = [one for one in found if any(n.startswith(one[0].resources) for n in rest)]
            found = [(stack, pod), *others]
    return found


def says(pod: Pod, request: Request) -> bool:
    """True where the user's own annotations are this request."""
    try:
        return user_annotations.parse(pod, Bounds()) == request
    except Refused:
        return False


def annotated(pod: Pod, request: Request, bounds: Bounds) -> Step:
    """Write the annotation form into a pod without a form.

    Raises:
        Refused: annotations cannot say this, or the webhook would refuse them.
    """
    if says(pod, request):
        return Step()
    given, lost = written_annotations.write(request, pod)
    metadata = msgspec.structs.replace(pod.metadata, annotations={**pod.annotations(), **given})
    user_annotations.parse(msgspec.structs.replace(pod, metadata=metadata), bounds)
    return Step(patch.build(pod, PodEdit(annotations=given)), lost)


def rendered(pod: Pod, request: Request, stack: Backend) -> Step:
    """Write the stack's own form into a pod without a form.

    What the stack cannot give is left out, if the rest can be given, and lost.

    Raises:
        Refused: the stack cannot give the rest either.
    """
    edit, request, lost = _eased(request, pod, stack)
    notes = tuple(one for one in edit.warnings if not one.startswith("not verified"))
    lost += [
        Problem(f"backend {stack.name}", f"not verified: {f}") for f in stack.about.unverified
    ]
    if not stack.ours:
        edit = _own_form(edit)
    return Step(patch.build(pod, edit), lost, notes, request)


def _own_form(edit: PodEdit) -> PodEdit:
    """Without what gpu-fraction writes for itself."""
    spelt = {key: value for key, value in edit.rewritten.items() if value is not None}
    return replace(
        edit,
        annotations={
            **{key: value for key, value in edit.annotations.items() if key != keys.REQUEST},
            **{k: v for k, v in spelt.items() if not k.startswith(keys.CONTAINER_PREFIX)},
        },
        rewritten={},
        env={
            container: {key: value for key, value in env.items() if key not in VARIABLES}
            for container, env in edit.env.items()
        },
    )


def _eased(request: Request, pod: Pod, stack: Backend) -> tuple[PodEdit, Request, list[Problem]]:
    """The edit of the request or of what is left of it without some wishes, and what is lost."""
    lost: list[Problem] = []
    edit = stack.render(request, pod)
    for key, ease in _EASIER:
        if not edit.problems:
            break
        easier = ease(request)
        attempt = stack.render(easier, pod)
        if len(attempt.problems) < len(edit.problems):
            gone = [one for one in edit.problems if one not in attempt.problems]
            lost += [Problem(annotation_path(key), one.message) for one in gone]
            request, edit = easier, attempt
    if edit.problems:
        raise Refused(edit.problems)
    return edit, request, lost


def _follow_memory(part: Slice) -> Slice:
    return replace(part, core_milli=None if part.memory_mib else part.memory_milli)


_EASIER: Final[tuple[tuple[str, Callable[[Request], Request]], ...]] = (
    (keys.MODEL, lambda request: replace(request, models=(), not_models=())),
    (keys.UUID, lambda request: replace(request, uuids=())),
    (keys.ISOLATION, lambda request: replace(request, isolation="preferred")),
    (keys.CORES, lambda r: replace(r, slices=tuple(map(_follow_memory, r.slices)))),
)
"""The annotation of each wish that can be left out, and the request without it."""
