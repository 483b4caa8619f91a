"""The GPU-sharing stacks; every module of this folder is one.

``demand`` is the only computation of what a pod costs. Peers with one computation in the webhook,
another in the controller and a third in the daemon disagreed with themselves
(KAI-Scheduler#1369, #1668; LLMKube#1324).
"""

import importlib
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import msgspec

from gpu_fraction.domain import keys
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.pod import Container, ContainerAt, EnvVar, Pod, Resources, resource_names
from gpu_fraction.domain.request_annotation import Rendered
from gpu_fraction.domain.stack import BackendConfig

_FOUND: Final[list[type[Backend]]] = sorted(
    (
        importlib.import_module(f"{__name__}.{module.name}").STACK
        for module in pkgutil.iter_modules(__path__)
    ),
    key=lambda stack: (stack.name != keys.NATIVE, stack.name),
)

BACKENDS: Final[Mapping[str, type[Backend]]] = {stack.name: stack for stack in _FOUND}
"""Every stack that is known, by name; ``native`` is the first."""

Stacks = Mapping[str, Backend]
"""Every stack with a cluster's settings, by name."""


def configured(config: BackendConfig) -> Stacks:
    """Every stack with these settings."""
    return {stack.name: stack(config) for stack in _FOUND}


STACKS: Final = configured(BackendConfig())
"""Every stack with the default settings."""

SETTINGS: Final = tuple(one for stack in _FOUND for one in stack.settings)
"""The settings that single stacks have."""

CHARGED_BY: Final = frozenset(name for stack in _FOUND for name in stack.charged_by)
"""Labels, keys of node selectors and variables that the cost of a pod depends on."""

LEFT_TO: Final = tuple(
    stack.scheduler for stack in _FOUND if stack.reads_our_annotations and stack.scheduler
)
"""Schedulers of other systems that read our annotations themselves."""

_RESOURCES: Final = tuple(dict.fromkeys(name for stack in _FOUND for name in stack.resources))

__all__ = [
    "BACKENDS",
    "CHARGED_BY",
    "LEFT_TO",
    "SETTINGS",
    "STACKS",
    "Backend",
    "BackendConfig",
    "Stacks",
    "any_sets",
    "claiming",
    "configured",
    "demand",
    "is_gpu",
    "placed_late",
]


def is_gpu(name: str) -> bool:
    """True for a resource by which some stack hands out GPUs or parts of them."""
    return name.startswith(_RESOURCES)


def demand(pod: Pod, stacks: Stacks = STACKS) -> Demand:
    """The pod's milli-cores, MiB and cards, on every stack that it asks.

    Containers, sidecars and init containers count as Kubernetes counts them. What the
    resources leave open until a card is chosen is in the ``open_`` amounts.
    """
    total = ZERO
    for stack, seen in claiming(pod, stacks):
        total += stack.demand(seen)
    return total


def claiming(pod: Pod, stacks: Stacks = STACKS) -> Iterator[tuple[Backend, Pod]]:
    """Each stack that claims the pod, with the pod as it is for that stack.

    What another of them takes over is missing there.
    """
    gpus = set(filter(is_gpu, resource_names(pod)))
    found = [stack for stack in stacks.values() if stack.claims(pod, gpus)]
    taken: dict[str, Backend] = {}
    for stack in found:
        taken = {**dict.fromkeys(stack.takes_over, stack), **taken}
    for stack in found:
        hidden = {name for name, taker in taken.items() if taker is not stack}
        yield stack, _without(pod, hidden) if hidden else pod


def _without(pod: Pod, names: Collection[str]) -> Pod:
    """The pod as if none of its containers named these resources."""

    def strip(container: Container) -> Container:
        if container.resources is None:
            return container
        limits, requests = (
            {name: amount for name, amount in (part or {}).items() if name not in names}
            for part in (container.resources.limits, container.resources.requests)
        )
        return msgspec.structs.replace(container, resources=Resources(limits, requests))

    spec = msgspec.structs.replace(
        pod.spec,
        containers=[*map(strip, pod.spec.containers)],
        init_containers=[*map(strip, pod.spec.init_containers or ())],
    )
    return msgspec.structs.replace(pod, spec=spec)


def any_sets(pod: Pod, at: ContainerAt, variable: EnvVar) -> bool:
    """True for a variable by which the components of any known stack tell cards."""
    return any(stack.sets(pod, at, variable) for stack in STACKS.values())


def placed_late(
    rendered: Rendered | None,
    annotations: Mapping[str, str],
    *,
    scheduler_name: str | None,
    node_name: str | None,
) -> bool:
    """Whether a scheduler that keeps limits on models is yet to choose a pod's cards.

    Quotas charge such a pod for a limited model when the cards are chosen, and the extender
    refuses those beyond a limit; every other pod is charged at admission for each limited
    model that it may land on. A pod that was made with a node never meets the extender.

    Args:
        rendered: what ``request_annotation.find`` found.
        annotations: the pod's.
        scheduler_name: its spec's.
        node_name: its spec's; None or empty while it waits.
    """
    if rendered is None or node_name or keys.ASSIGNED in annotations:
        return False
    if rendered.request.models or rendered.request.uuids:
        return False
    backend = BACKENDS.get(rendered.backend)
    return (
        backend is not None and backend.keeps_model_limits and scheduler_name == backend.scheduler
    )
