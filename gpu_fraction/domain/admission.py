"""From a pod to the verdict on it: the one path that the webhook and the command share."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from gpu_fraction.domain import guard, keys, patch, units, user_annotations
from gpu_fraction.domain.asks import AskError, amounts_of, ask_of, refuse_init
from gpu_fraction.domain.backends import LEFT_TO, Backend, any_sets, is_gpu
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.layout import Layout
from gpu_fraction.domain.pod import ContainerAt, Pod, containers, is_sidecar
from gpu_fraction.domain.problems import MAX_SHOWN, Problem, nearest, quote
from gpu_fraction.domain.request import Bounds, Refused, Request, Slice, annotation_path


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything configured that decides on a pod, but the backend.

    Attributes:
        bounds: What no request may exceed, and defaults.
        policy: What GPU pods may do.
        left_to: Scheduler names whose pods are another system's; they are not touched.
    """

    bounds: Bounds = field(default_factory=Bounds)
    policy: guard.Policy = field(default_factory=guard.Policy)
    left_to: frozenset[str] = frozenset(LEFT_TO)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to happen to a pod that may be admitted.

    Attributes:
        request: What it asks for; None where it carries no annotation of ours.
        operations: The JSON patch; empty where there is nothing to change.
        warnings: For the user.
    """

    request: Request | None = None
    operations: list[patch.Operation] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def uses_gpu(pod: Pod) -> bool:
    """True where the pod carries an annotation of ours or asks for native resources."""
    return user_annotations.asks(pod.annotations()) or _asks_natively(pod)


def _asks_natively(pod: Pod) -> bool:
    return any(
        at.container.resources is not None
        and any(name in keys.NATIVE_RESOURCES for name in at.container.resources.names())
        for at in containers(pod)
    )


def admit(pod: Pod, backend: Backend, rules: Rules, *, trusted: bool = False) -> Verdict:
    """The verdict on one pod at its creation.

    Args:
        pod: The pod as it stands.
        backend: The stack it is rendered for.
        rules: What is configured.
        trusted: The caller is one of the system's own users, who may write system keys.

    Raises:
        Refused: with every problem found.
    """
    if pod.spec.scheduler_name in rules.left_to and not _asks_natively(pod):
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
        # Beside a request of the pod's own, the request annotation is compared in ``patch``.
        system = (keys.ASSIGNED, *backend.assignments) if asked else keys.SYSTEM_KEYS
        problems += _system_keys(pod, system)
    if asked is not None:
        return _render(pod, asked, backend, rules, problems)
    problems += _never_served(pod, rules.bounds)
    if problems:
        raise Refused(problems)
    return Verdict(warnings=tuple(islice(_strange_resources(pod), MAX_SHOWN)))


def _left_alone(pod: Pod, rules: Rules, *, trusted: bool) -> Verdict:
    """A pod of another system's scheduler, whose name must not be a way round ours."""
    problems = [*guard.check(pod, rules.policy, gpu=False, sets=any_sets)]
    ours = uses_gpu(pod)
    if ours and not trusted:
        problems += _system_keys(pod, keys.SYSTEM_KEYS)
    if ours and rules.policy.node_name == "refuse":
        problems += guard.preset_node(pod)
    if problems:
        raise Refused(problems)
    told = f"left to {pod.spec.scheduler_name}: gpu-fraction does not rewrite its pods"
    return Verdict(warnings=(told,) if ours else ())


def _system_keys(pod: Pod, system: Iterable[str]) -> Iterator[Problem]:
    for key in system:
        if key in pod.annotations():
            yield Problem(annotation_path(key), "only the system writes it; remove it")


def _render(
    pod: Pod, asked: Request, backend: Backend, rules: Rules, problems: list[Problem]
) -> Verdict:
    try:
        edit = backend.render(asked, pod)
    except Refused as e:
        raise Refused([*problems, *e.problems]) from None
    problems += _other_resources(pod, edit)
    problems += _other_scheduler(pod, edit, rules.policy)
    operations: list[patch.Operation] = []
    try:
        operations = patch.build(pod, edit)
    except Refused as e:
        problems += e.problems
    if problems:
        raise Refused(problems)
    return Verdict(asked, operations, (*_guessed(pod), *_rounded(pod), *edit.warnings))


def _other_resources(pod: Pod, edit: PodEdit) -> Iterator[Problem]:
    """GPU resources beside the annotations.

    A pod that already carries the request annotation went through here before, so that the
    edit's own resources are what it should hold; ``patch`` compares the amounts.
    """
    again = keys.REQUEST in pod.annotations()
    for at in containers(pod):
        if at.container.resources is None:
            continue
        ours: Mapping[str, str] = edit.resources.get(at.container.name, {}) if again else {}
        for name in at.container.resources.names():
            if is_gpu(name) and name not in ours:
                yield Problem(
                    f"{at.path}.resources[{quote(name)[1:-1]}]",
                    "asks for a GPU beside the annotations; give one of the two",
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
        f"{quote(named or '')} does not know about shares of GPUs; leave it out, "
        f"{edit.scheduler_name} is filled in (cluster setting policy_other_scheduler)",
    )


def _guessed(pod: Pod) -> Iterator[str]:
    """Another webhook may have put its container before the one that is meant."""
    given = pod.annotations()
    if (
        len(pod.spec.containers) > 1
        and keys.CONTAINER_NAME not in given
        and (keys.FRACTION in given or keys.MEMORY in given)
    ):
        yield from filter(None, [Layout.of(pod).guessed(given)])


def _rounded(pod: Pod) -> Iterator[str]:
    text = pod.annotations().get(keys.MEMORY)
    if text is not None:
        mib, rounded = units.parse_memory_mib(text)
        if rounded:
            yield f"{keys.MEMORY} {text} is rounded up to {mib} MiB"


def _never_served(pod: Pod, bounds: Bounds) -> Iterator[Problem]:
    """Amounts of our resources by which a container would wait, or fail to start, for ever."""
    for at in containers(pod):
        if at.container.resources is None:
            continue
        name = quote(at.container.name)[1:-1]
        named = amounts_of(at.container.resources.limits, at.container.resources.requests)
        try:
            if at.kind == "initContainers" and not is_sidecar(at):
                refuse_init(name, named)
            elif (ask := ask_of(name, named, None)) is not None:
                yield from _beyond(at, ask, bounds)
        except AskError as e:
            yield Problem(f"{at.path}.resources[{e.resource}]", str(e))


def _beyond(at: ContainerAt, ask: Slice, bounds: Bounds) -> Iterator[Problem]:
    if ask.cards > bounds.max_cards:
        yield Problem(
            f"{at.path}.resources[{keys.CORE_MILLI}]",
            f"container {ask.container}: comes to {ask.cards} GPUs, more than any node has; "
            f"allowed: at most {bounds.max_cards * units.MILLI}",
        )
    if (ask.memory_mib or 0) > bounds.max_memory_mib:
        yield Problem(
            f"{at.path}.resources[{keys.MEMORY_MIB}]",
            f"container {ask.container}: comes to {ask.memory_mib} MiB on each GPU, more than any "
            f"card has; allowed: at most {bounds.max_memory_mib} on each GPU",
        )


def _strange_resources(pod: Pod) -> Iterator[str]:
    """Names in our group that no node will ever offer, so that the pod would wait for ever."""
    for at in containers(pod):
        if at.container.resources is None:
            continue
        for name in at.container.resources.names():
            if name.startswith(keys.PREFIX) and name not in keys.NATIVE_RESOURCES:
                yield (
                    f"{at.path}.resources: no node offers {quote(name)[1:-1]}"
                    f"{nearest(name, keys.NATIVE_RESOURCES)}; "
                    f"known: {', '.join(keys.NATIVE_RESOURCES)}"
                )
