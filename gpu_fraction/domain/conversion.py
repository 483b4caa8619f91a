"""Turns a pod that was written for one stack into the annotation form or another stack's form.

A pod is taken apart and put together: ``find`` reads its request, ``plain`` removes the form in
which it is written, and ``annotated`` or ``rendered`` adds the new one. What a step loses is
found by comparison: of the pod with what the stack itself renders for the request, and of the
request with what the new form reads as.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from gpu_fraction.domain import (
    keys,
    patch,
    request_annotation,
    sizes,
    units,
    user_annotations,
    written_annotations,
)
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.backends import Stacks, claiming
from gpu_fraction.domain.edit import FieldRef, PodEdit
from gpu_fraction.domain.patch import Operation, escape
from gpu_fraction.domain.pod import ContainerAt, EnvVar, Metadata, Pod, containers
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
    read = [
        (stack, request)
        for stack, seen in claiming(pod, stacks)
        if only in (None, stack.name) and (request := stack.read(seen)) is not None
    ]
    names = ", ".join(stack.name for stack, _ in read)
    if len({request for _, request in read}) > 1:
        raise Refused(
            [Problem("spec", f"asks several stacks ({names}); name one of them with --from")]
        )
    asks = user_annotations.asks(given)
    for stack, request in read:
        if asks and not stack.reads_our_annotations:
            told = f"has GPU annotations beside resources of {names}; remove one of the two"
            raise Refused([Problem("metadata.annotations", told)])
        return Found(request, stack)
    asked = user_annotations.parse(pod, bounds) if asks else None
    return None if asked is None else Found(asked, None)


def plain(pod: Pod, found: Found, stacks: Stacks, *, keep_annotations: bool) -> Step:
    """Remove the form in which the pod asks.

    Args:
        pod: The pod.
        found: What ``find`` found in it.
        stacks: The known stacks.
        keep_annotations: Leave the user's annotations where they say the same.
    """
    step = Step()
    bare = msgspec.structs.replace(pod, metadata=Metadata())
    scheduler = pod.spec.scheduler_name
    worn = [found.stack] if found.stack else []
    # A pod of whole cards can be of a scheduler whose own claim is narrower.
    worn += [
        s for s in stacks.values() if scheduler and s.scheduler == scheduler and s not in worn
    ]
    edits = [stack.render(found.request, bare) for stack in worn]
    kept = keep_annotations and _says(pod, found.request)
    _annotations(pod, worn, edits, step, kept=kept)
    for pointer, present, wanted in (
        ("/metadata/labels", pod.metadata.labels, [edit.labels for edit in edits]),
        ("/spec/nodeSelector", pod.spec.node_selector, [edit.node_selector for edit in edits]),
    ):
        same = {(key, value) for entries in wanted for key, value in entries.items()}
        gone = [key for key, value in (present or {}).items() if (key, value) in same]
        step.operations += _without(pointer, gone)
    _items(step, "/spec/tolerations", pod.spec.tolerations, [e.tolerations for e in edits])
    named = {claim.name for edit in edits for claim in edit.resource_claims}
    claims = [one for one in pod.spec.resource_claims or () if one.name in named]
    _items(step, "/spec/resourceClaims", pod.spec.resource_claims, [claims])
    for at in containers(pod):
        _container(at, found, edits, step)
    if found.recorded:
        step.lost.clear()  # Whatever else it holds, this is the request.
    if scheduler and any(stack.scheduler == scheduler for stack in worn):
        step.operations.append({"op": "remove", "path": "/spec/schedulerName"})
    return step


def _says(pod: Pod, request: Request) -> bool:
    """True where the user's own annotations are this request."""
    try:
        return user_annotations.parse(pod, Bounds()) == request
    except Refused:
        return False


def _annotations(
    pod: Pod, worn: Collection[Backend], edits: Collection[PodEdit], step: Step, *, kept: bool
) -> None:
    """The stacks' annotations, their schedulers' and our own."""
    written = {key: value for edit in edits for key, value in edit.annotations.items()}
    assigned = (keys.REQUEST, keys.ASSIGNED, *(one for s in worn for one in s.assignments))
    names = [*written, *(name for s in worn for name in (*s.resources, *s.takes_over))]
    domains = {name.split("/")[0] for name in names if "/" in name} - {keys.GROUP}
    titles = ", ".join(stack.about.title for stack in worn)
    gone = []
    for key, value in pod.annotations().items():
        path = annotation_path(key)
        if key.startswith(assigned) or (keys.is_ours(key) and not kept):
            gone.append(key)
        elif key in written:
            gone.append(key)
            if value != written[key]:
                step.lost.append(Problem(path, f"{value} is read as {written[key]}"))
        elif key.split("/")[0] in domains:
            step.lost.append(Problem(path, f"only {titles} reads it; it stays as it is"))
    step.operations += _without("/metadata/annotations", gone)


def _container(at: ContainerAt, found: Found, edits: Sequence[PodEdit], step: Step) -> None:
    """One container's resources, claims and variables of the form."""
    name = at.container.name
    resources, stack = at.container.resources, found.stack
    if resources is not None and stack is not None:
        own = [
            r for r in resources.names() if r.startswith(stack.resources) or r in stack.takes_over
        ]
        made = edits[0].resources.get(name, {})
        for resource in own:
            given = resources.of(resource) or ""
            amount, again = units.whole_amount(given), units.whole_amount(made.get(resource, "0"))
            if amount != again:
                told = f"{given} is read as {made[resource]}" if again else f"{given} is dropped"
                step.lost.append(Problem(f"{at.path}.resources[{resource}]", told))
        for part, amounts in (("limits", resources.limits), ("requests", resources.requests)):
            gone = [resource for resource in own if resource in (amounts or {})]
            step.operations += _without(f"{at.pointer}/resources/{part}", gone)
        used = {claim for edit in edits for claim in edit.container_claims.get(name, ())}
        indices = [i for i, one in enumerate(resources.claims or ()) if one.name in used]
        step.operations += _without(f"{at.pointer}/resources/claims", indices)
    wanted = {key: value for edit in edits for key, value in edit.env.get(name, {}).items()}
    indices = []
    for index, variable in enumerate(at.container.env or ()):
        if variable.name in VARIABLES:
            # Of a pod from the webhook; its values depend on the cluster's settings.
            if found.recorded and (variable.value or "").replace(".", "", 1).isdigit():
                indices.append(index)
        elif variable.name in wanted:
            indices.append(index)
            if not _same(variable, wanted[variable.name]):
                told = f"{variable.name}={variable.value} is read as {wanted[variable.name]}"
                step.lost.append(Problem(f"{at.path}.env[{index}]", told))
    step.operations += _without(f"{at.pointer}/env", indices)


def _same(variable: EnvVar, wanted: str | FieldRef) -> bool:
    return variable.value == (None if isinstance(wanted, FieldRef) else wanted)


def _items(
    step: Step,
    pointer: str,
    present: Collection[object] | None,
    wanted: Collection[Collection[object]],
) -> None:
    ours = [one for items in wanted for one in items]
    step.operations += _without(pointer, [i for i, one in enumerate(present or ()) if one in ours])


def _without(pointer: str, gone: Collection[str | int]) -> list[Operation]:
    """Operations that remove entries; of a list, the last first."""
    return [
        {"op": "remove", "path": f"{pointer}/{escape(str(one))}"} for one in reversed(list(gone))
    ]


def annotated(pod: Pod, request: Request, bounds: Bounds) -> Step:
    """Write the annotation form into a pod without a form.

    Raises:
        Refused: annotations cannot say this, or the webhook would refuse them.
    """
    if _says(pod, request):
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
    if stack.name != keys.NATIVE:
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


def pruned(before: Pod, after: Pod) -> list[Operation]:
    """Operations that remove the mappings and lists that a conversion has emptied."""
    gone = [
        pointer
        for pointer, had, has in (
            ("/metadata/annotations", before.metadata.annotations, after.metadata.annotations),
            ("/metadata/labels", before.metadata.labels, after.metadata.labels),
            ("/spec/nodeSelector", before.spec.node_selector, after.spec.node_selector),
            ("/spec/tolerations", before.spec.tolerations, after.spec.tolerations),
            ("/spec/resourceClaims", before.spec.resource_claims, after.spec.resource_claims),
        )
        if had and has is not None and not has
    ]
    for was, at in zip(containers(before), containers(after), strict=True):
        if was.container.env and at.container.env == []:
            gone.append(f"{at.pointer}/env")
        had, has = was.container.resources, at.container.resources
        if had is None or has is None or had == has:
            continue
        parts = {"limits": has.limits, "requests": has.requests, "claims": has.claims}
        if not any(parts.values()):
            gone.append(f"{at.pointer}/resources")
        else:
            empty = [part for part, held in parts.items() if held is not None and not held]
            gone += [f"{at.pointer}/resources/{part}" for part in empty]
    return [{"op": "remove", "path": pointer} for pointer in gone]


def differences(
    asked: Request, got: Request | None, eligible_mib: frozenset[int]
) -> Iterator[Problem]:
    """What a form does not say of a request.

    Args:
        asked: The request that was written.
        got: The request that the form is read as; None for none.
        eligible_mib: The cards' sizes, by which shares and MiB are compared.
    """
    for key, wanted, read in _compared(asked, got, eligible_mib):
        if wanted != read:
            yield Problem(annotation_path(key), f"{wanted or 'none'} becomes {read or 'none'}")


def _compared(
    asked: Request, got: Request | None, eligible_mib: frozenset[int]
) -> Iterator[tuple[str, str, str]]:
    if got is None:
        yield keys.FRACTION, "the request", ""
        return
    for key, of in _CHOICES.items():
        yield key, of(asked), of(got)
    for part in asked.slices:
        read = got.of(part.container)
        name = f"container {part.container}: "
        if read is None:
            yield keys.CONTAINER_PREFIX + part.container, "a share", ""
            continue
        yield keys.NUM_DEVICES, f"{name}{part.cards}", f"{name}{read.cards}"
        ours, theirs = (_amounts(one, eligible_mib) for one in (part, read))
        yield keys.MEMORY, name + ours[0], name + theirs[0]
        yield keys.CORES, name + ours[1], name + theirs[1]


_CHOICES: Final[Mapping[str, Callable[[Request], str]]] = {
    keys.MODEL: lambda r: ",".join((*r.models, *(f"!{name}" for name in r.not_models))),
    keys.UUID: lambda r: ",".join(r.uuids),
    keys.PLACEMENT: lambda r: r.placement,
    keys.ISOLATION: lambda r: r.isolation,
}


def _amounts(part: Slice, eligible_mib: frozenset[int]) -> tuple[str, str]:
    """Memory and compute of each card in words; shares in MiB where the size is known."""
    amounts = sizes.resolve(part, eligible_mib)
    memory = (
        f"{units.format_percent(part.memory_milli or units.MILLI)} of the memory"
        if amounts.memory_mib is None
        else units.format_memory(amounts.memory_mib)
    )
    if amounts.core_milli is None:
        return memory, "compute in proportion to the memory"
    if not amounts.core_milli:
        return memory, "compute without a limit"
    return memory, f"{units.format_milli(amounts.core_milli)} of the compute"
