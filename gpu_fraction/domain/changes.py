"""Decides on changes of existing pods.

Pod updates, ``pods/status``, ``pods/ephemeralcontainers`` and the metadata of a Binding can all
write annotations, so one rule covers them. A few labels count as well: quotas charge by them.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from gpu_fraction.domain import formats, guard, keys, request_annotation
from gpu_fraction.domain.admission import uses_gpu
from gpu_fraction.domain.backends import BACKENDS, CHARGED_BY, demand
from gpu_fraction.domain.pod import Pod, containers
from gpu_fraction.domain.problems import Problem, quote
from gpu_fraction.domain.request import annotation_path
from gpu_fraction.domain.root_user import root_problem

_REQUIRED_HINT: Final = (
    f"{keys.ISOLATION} of this pod is required; try kubectl debug --profile=restricted"
)


def update(old: Pod, new: Pod, policy: guard.Policy, *, trusted: bool) -> list[Problem]:
    """Problems of a change from one state of a pod to another.

    Args:
        old: The pod as stored.
        new: The pod after the change.
        policy: Permissions of GPU pods.
        trusted: The caller is a system user, which may set ``assigned``.
    """
    return [
        *_annotations(old.annotations(), new.annotations(), trusted=trusted),
        *_charge(old, new),
        *_new_ephemeral_containers(old, new, policy),
    ]


def binding(annotations: Mapping[str, str], *, trusted: bool) -> list[Problem]:
    """Problems of the annotations of a Binding, which the API server merges into the pod."""
    return [*_annotations({}, annotations, trusted=trusted)]


def _annotations(
    old: Mapping[str, str], new: Mapping[str, str], *, trusted: bool
) -> Iterator[Problem]:
    for key in dict.fromkeys((*old, *new)):
        if not keys.is_ours(key) or old.get(key) == new.get(key):
            continue
        shown = quote(key)[1:-1]
        if key == keys.ASSIGNED and trusted:
            continue
        if key in keys.SYSTEM_KEYS:
            yield Problem(annotation_path(shown), "only gpu-fraction sets it; leave it unchanged")
        else:
            yield Problem(
                annotation_path(shown),
                "cannot change after the pod is created; create a new pod with the new value",
            )


def _charge(old: Pod, new: Pod) -> Iterator[Problem]:
    """Labels by which the pod's stack counted its cards when it was placed."""
    before, after = old.metadata.labels or {}, new.metadata.labels or {}
    changed = sorted(key for key in CHARGED_BY if before.get(key) != after.get(key))
    if changed and demand(old) != demand(new):
        for key in changed:
            yield Problem(
                f"metadata.labels[{key}]",
                "cannot change after the pod is created: the quota charges the pod by it; create "
                "a new pod with the new value",
            )


def _new_ephemeral_containers(old: Pod, new: Pod, policy: guard.Policy) -> Iterator[Problem]:
    known = {c.name for c in old.spec.ephemeral_containers or ()}
    gpu = uses_gpu(new)
    rendered = request_annotation.find(new.annotations())
    # The request of a newer release may require it.
    text = new.annotations().get(keys.REQUEST, "")
    required = bool(formats.other_version(text, request_annotation.VERSION))
    if rendered is not None and rendered.request.isolation == "required":
        backend = BACKENDS.get(rendered.backend)
        required = backend is not None and backend.needs_no_root
    for at in containers(new):
        if at.kind == "ephemeralContainers" and at.container.name not in known:
            yield from guard.container_problems(at, policy, gpu=gpu, holds=False)
            if required:
                # The node daemon checked this when the pod started; it must stay true.
                problem = root_problem(
                    at.path, at.container.security_context, new.spec.security_context
                )
                if problem is not None:
                    yield Problem(problem.path, f"{problem.message} ({_REQUIRED_HINT})")
