"""Decides on new pods; the webhook and ``gpu-fraction mutate`` share this module."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from gpu_fraction.domain import (
    claim_template,
    dra,
    guard,
    keys,
    native_resources,
    patch,
    request_annotation,
    units,
    user_annotations,
)
from gpu_fraction.domain.backends import LEFT_TO, Backend, any_sets, is_gpu
from gpu_fraction.domain.containers import DEFAULT_CONTAINER, MAX_LISTED
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Pod, containers, resource_names
from gpu_fraction.domain.problems import MAX_SHOWN, Problem, quote
from gpu_fraction.domain.request import Bounds, Refused, Request, annotation_path

_OUR_RESOURCES: Final = frozenset((*keys.NATIVE_RESOURCES, *dra.EXTENDED_RESOURCES))


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide on a pod, except its backend.

    Attributes:
        bounds: Limits of requests, and defaults.
        policy: Permissions of GPU pods.
        left_to: Schedulers of other systems; their pods are left unchanged.
    """

    bounds: Bounds = field(default_factory=Bounds)
    policy: guard.Policy = field(default_factory=guard.Policy)
    left_to: frozenset[str] = frozenset(LEFT_TO)

    def leaves(self, pod: Pod, backend: Backend) -> bool:
        """True for a pod of another system's scheduler, unless that system is its backend."""
        named = pod.spec.scheduler_name
        return named in self.left_to and named != backend.scheduler


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision to admit a pod.

    Attributes:
        request: The pod's request; None where it has no GPU annotation.
        operations: The JSON patch; empty where nothing changes.
        warnings: For the user.
    """

    request: Request | None = None
    operations: list[patch.Operation] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def uses_gpu(pod: Pod) -> bool:
    """True where the pod has a GPU annotation, or asks our node daemon by its own means."""
    return user_annotations.asks(pod.annotations()) or _asks_us(pod)


def _asks_us(pod: Pod) -> bool:
    """True for native resources, and for claims and resources of our DRA driver."""
    asks = not _OUR_RESOURCES.isdisjoint(resource_names(pod))
    return asks or any(claim_template.claims_of(pod))


def admit(pod: Pod, backend: Backend, rules: Rules, *, trusted: bool = False) -> Verdict:
    """Decide on one pod at its creation.

    Args:
        pod: The pod as submitted.
        backend: The stack to render it for.
        rules: The cluster's settings.
        trusted: The caller is a system user, which may write system keys.

    Raises:
        Refused: with every problem found.
    """
    if rules.leaves(pod, backend) and not _asks_us(pod):
        return _left_alone(pod, rules, trusted=trusted)
    problems: list[Problem] = []
    asked = None
    try:
        asked = user_annotations.parse(pod, rules.bounds)
    except Refused as e:
        problems += e.problems
    getting = {part.container for part in asked.slices} if asked else frozenset()
    problems += guard.check(
        pod, rules.policy, gpu=uses_gpu(pod), getting=getting, sets=backend.sets
    )
    if not trusted:
        # ``patch`` compares the request annotation where the pod has its own request.
        problems += _system_keys(pod, (keys.ASSIGNED,) if asked else keys.SYSTEM_KEYS)
        if asked is not None:
            problems += _assignments(pod, backend)
    if asked is not None:
        return _render(pod, asked, backend, rules, problems)
    problems += native_resources.never_served(pod, rules.bounds)
    problems += _shared_claims(claim_template.holders(pod))
    if problems:
        raise Refused(problems)
    return Verdict(warnings=tuple(islice(native_resources.strange(pod), MAX_SHOWN)))


def _left_alone(pod: Pod, rules: Rules, *, trusted: bool) -> Verdict:
    """Decide on a pod of another system's scheduler, without letting it bypass the guard."""
    problems = [*guard.check(pod, rules.policy, gpu=False, sets=any_sets)]
    ours = uses_gpu(pod)
    if ours and not trusted:
        problems += _system_keys(pod, keys.SYSTEM_KEYS)
    if ours and rules.policy.node_name == "refuse":
        problems += guard.preset_node(pod)
    if problems:
        raise Refused(problems)
    told = f"gpu-fraction does not change pods that {pod.spec.scheduler_name} schedules"
    return Verdict(warnings=(told,) if ours else ())


def _system_keys(pod: Pod, system: Iterable[str]) -> Iterator[Problem]:
    prefixes = tuple(system)
    for key in pod.annotations():
        if key.startswith(prefixes):
            yield Problem(
                annotation_path(quote(key)[1:-1]), "only gpu-fraction sets it; remove it"
            )


def _assignments(pod: Pod, backend: Backend) -> Iterator[Problem]:
    for field_name in ("annotations", "labels"):
        for key in getattr(pod.metadata, field_name) or ():
            if key.startswith(backend.assignments):
                yield Problem(
                    f"metadata.{field_name}[{quote(key)[1:-1]}]",
                    f"only {backend.about.title} sets it; remove it",
                )


def _render(
    pod: Pod, asked: Request, backend: Backend, rules: Rules, problems: list[Problem]
) -> Verdict:
    before = request_annotation.find(pod.annotations())
    if before is not None and before.backend != backend.name:
        told = (
            f"was written for the backend {quote(before.backend)}, and the pod's backend is "
            f"{backend.name}; create the pod from its manifest as it was before gpu-fraction"
        )
        raise Refused([*problems, Problem(annotation_path(keys.REQUEST), told)])
    edit = backend.edit(asked, pod)
    if edit.problems:
        raise Refused([*problems, *edit.problems])
    problems += _other_resources(pod, edit)
    problems += _other_claims(pod, edit)
    problems += _other_scheduler(pod, edit, rules.policy)
    operations: list[patch.Operation] = []
    try:
        operations = patch.build(pod, edit)
    except Refused as e:
        problems += e.problems
    if problems:
        raise Refused(problems)
    return Verdict(asked, operations, (*_ambiguous(pod), *_rounded(pod), *edit.warnings))


def _other_resources(pod: Pod, edit: PodEdit) -> Iterator[Problem]:
    """GPU resources in addition to the annotations.

    A pod with the request annotation was mutated before, so it should already have the edit's
    resources; ``patch`` compares the amounts.
    """
    again = keys.REQUEST in pod.annotations()
    for at in containers(pod):
        ours: Mapping[str, str] = edit.resources.get(at.container.name, {}) if again else {}
        for name in at.container.resource_names():
            if is_gpu(name) and name not in ours:
                yield Problem(
                    f"{at.path}.resources[{quote(name)[1:-1]}]",
                    "requests a GPU in addition to the GPU annotations; remove one of the two",
                )


def _other_claims(pod: Pod, edit: PodEdit) -> Iterator[Problem]:
    """Claims of our driver in addition to the annotations, and the edit's in wrong hands."""
    given = pod.spec.resource_claims or ()
    ours = edit.resource_claims if keys.REQUEST in pod.annotations() else ()
    for index, _, _ in claim_template.claims_of(pod):
        if given[index] not in ours:
            yield Problem(
                f"spec.resourceClaims[{index}]",
                "claims a GPU in addition to the GPU annotations; remove one of the two",
            )
    holders = claim_template.holders(pod, [claim.name for claim in edit.resource_claims])
    for container, claims in edit.container_claims.items():
        for claim in claims:
            if container not in holders[claim]:
                holders[claim].append(container)
    yield from _shared_claims(holders)


def _shared_claims(holders: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """Claims of GPUs that several containers use, and containers that use several.

    The limits of a claim hold in each container by itself, and what tells a container its share
    has room for one.
    """
    seen: dict[str, str] = {}
    for claim, names in holders.items():
        if len(names) > 1:
            yield Problem(
                "spec.containers",
                f"{', '.join(quote(name)[1:-1] for name in names)} use the GPU claim "
                f"{quote(claim)} together; give each its own share with "
                f"{keys.CONTAINER_PREFIX}<name>",
            )
        for name in names:
            if (other := seen.setdefault(name, claim)) != claim:
                yield Problem(
                    "spec.containers",
                    f"{quote(name)[1:-1]} uses the GPU claims {quote(other)} and {quote(claim)}; "
                    f"allowed: one, for several GPUs with {keys.NUM_DEVICES}",
                )


def _other_scheduler(pod: Pod, edit: PodEdit, policy: guard.Policy) -> Iterator[Problem]:
    named = pod.spec.scheduler_name
    if (
        edit.scheduler_name is None
        or policy.other_scheduler == "allow"
        or named in (None, "", patch.DEFAULT_SCHEDULER, edit.scheduler_name)
    ):
        return
    yield Problem(
        "spec.schedulerName",
        f"{quote(named or '')} cannot place shares of GPUs; remove the field and "
        f"{edit.scheduler_name} is set (cluster setting policy_other_scheduler)",
    )


def _ambiguous(pod: Pod) -> Iterator[str]:
    """A warning where another webhook may have inserted its container before the intended one.

    Of the regular containers without a share of their own the first gets the GPU, unless an
    annotation or an earlier call chose one.
    """
    given = pod.annotations()
    if keys.REQUEST in given or keys.CONTAINER_NAME in given:
        return
    if keys.FRACTION not in given and keys.MEMORY not in given:
        return
    names = [container.name for container in pod.spec.containers]
    if given.get(DEFAULT_CONTAINER) in names:
        return
    found = [name for name in names if keys.CONTAINER_PREFIX + name not in given][:MAX_LISTED]
    if len(found) > 1:
        first, *others = (quote(name)[1:-1] for name in found)
        yield (
            f"container {first} gets the GPU because it is the first container; to give it to "
            f"another ({', '.join(others)}), set the annotation {keys.CONTAINER_NAME}"
        )


def _rounded(pod: Pod) -> Iterator[str]:
    """A warning for each amount that is not taken as it is written."""
    for key, text in pod.annotations().items():
        if key == keys.MEMORY:
            mib, rounded = units.parse_memory_mib(text)
            if rounded:
                yield f"{key} {text} is rounded up to {mib} MiB"
        elif _is_share(key) and not units.is_exact(text):
            taken = units.format_milli(units.parse_fraction_milli(text))
            yield f"{key} {text} is taken as {taken}, the nearest 0.001 of a GPU"


def _is_share(key: str) -> bool:
    return key in {keys.FRACTION, keys.CORES} or key.startswith(keys.CONTAINER_PREFIX)
