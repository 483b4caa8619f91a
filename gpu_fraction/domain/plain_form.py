"""Removes from a pod the form in which it asks for GPUs.

What a stack's form consists of is what the stack itself renders for the same request; a difference
between the two is what the request does not say.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from gpu_fraction.domain import conversion, keys, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.backends import Stacks
from gpu_fraction.domain.conversion import VARIABLES, Found, Step
from gpu_fraction.domain.edit import FieldRef, PodEdit
from gpu_fraction.domain.patch import Operation, escape
from gpu_fraction.domain.pod import ContainerAt, EnvVar, Metadata, Pod, Resources, containers
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import annotation_path

UNSAID: Final = frozenset(keys.USER_KEYS) - {
    *(keys.FRACTION, keys.MEMORY, keys.CORES, keys.NUM_DEVICES, keys.CONTAINER_NAME),
    *(keys.MODEL, keys.UUID, keys.PLACEMENT, keys.ISOLATION),
}
"""Annotations of users that are no part of a request."""


def plain(pod: Pod, found: Found, stacks: Stacks, *, keep_annotations: bool) -> Step:
    """Remove the form in which the pod asks.

    Args:
        pod: The pod.
        found: What ``find`` found in it.
        stacks: The known stacks.
        keep_annotations: Leave the user's annotations where they say the same.
    """
    step = Step()
    bare = _bare(pod)
    scheduler = pod.spec.scheduler_name
    worn = [found.stack] if found.stack else []
    # A pod of whole cards can be of a scheduler whose own claim is narrower.
    worn += [
        s for s in stacks.values() if scheduler and s.scheduler == scheduler and s not in worn
    ]
    edits = [
        stack.edit(found.request, bare) if found.recorded else stack.render(found.request, bare)
        for stack in worn
    ]
    kept = keep_annotations and conversion.says(pod, found.request)
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
    named |= {name for stack in worn for name in stack.own_claims(pod)}
    claims = [one for one in pod.spec.resource_claims or () if one.name in named]
    _items(step, "/spec/resourceClaims", pod.spec.resource_claims, [claims])
    for at in containers(pod):
        _container(at, found, edits, named, step)
    if found.recorded:  # Whatever the pod holds besides, this is the request.
        step.lost = [one for one in step.lost if one.path in map(annotation_path, UNSAID)]
    if scheduler and any(stack.scheduler == scheduler for stack in worn):
        step.operations.append({"op": "remove", "path": "/spec/schedulerName"})
    return step


def _bare(pod: Pod) -> Pod:
    """The pod without what a form consists of beside resources."""
    lists = {
        kind: [msgspec.structs.replace(one, env=None) for one in found]
        for kind in ("containers", "init_containers")
        if (found := getattr(pod.spec, kind))
    }
    return Pod(Metadata(), msgspec.structs.replace(pod.spec, **lists))


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
            if key in UNSAID:
                step.lost.append(Problem(path, f"{value} is dropped"))
        elif key in written:
            gone.append(key)
            if value != written[key]:
                step.lost.append(Problem(path, f"{value} is read as {written[key]}"))
        elif key.split("/")[0] in domains:
            step.lost.append(Problem(path, f"only {titles} reads it; it stays as it is"))
    step.operations += _without("/metadata/annotations", gone)


def _container(
    at: ContainerAt, found: Found, edits: Sequence[PodEdit], claims: Collection[str], step: Step
) -> None:
    """One container's resources, claims and variables of the form."""
    name = at.container.name
    resources = at.container.resources
    if resources is not None and found.stack is not None:
        made = edits[0].resources.get(name, {})
        own = _resources(at, resources, found.stack, made, step)
        for part, amounts in (("limits", resources.limits), ("requests", resources.requests)):
            gone = [resource for resource in own if resource in (amounts or {})]
            step.operations += _without(f"{at.pointer}/resources/{part}", gone)
        indices = [i for i, one in enumerate(resources.claims or ()) if one.name in claims]
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


def _resources(
    at: ContainerAt, given: Resources, stack: Backend, made: Mapping[str, str], step: Step
) -> list[str]:
    """The stack's resources in a container; what the stack does not render is lost."""
    own = [
        name
        for name in given.names()
        if name.startswith(stack.resources) or name in {*stack.takes_over, *made}
    ]
    gets = ", ".join(f"{name}: {amount}" for name, amount in made.items()) or "nothing"
    for name in own:
        text = given.of(name) or ""
        amount, again = units.whole_amount(text), units.whole_amount(made.get(name, "0"))
        if amount != again:
            told = f"{text} is dropped; for the request, {stack.about.title} gets {gets}"
            if again:
                told = f"{text} is read as {made[name]}"
            step.lost.append(Problem(f"{at.path}.resources[{name}]", told))
    return own


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
