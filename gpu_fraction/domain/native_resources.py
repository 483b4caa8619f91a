"""Native resources that a pod names itself, and that no node can serve."""

from collections.abc import Iterator

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.asks import AskError, amounts_of, ask_of, refuse_init
from gpu_fraction.domain.pod import ContainerAt, Pod, containers, is_sidecar
from gpu_fraction.domain.problems import Problem, nearest, quote
from gpu_fraction.domain.request import Bounds, Slice


def never_served(pod: Pod, bounds: Bounds) -> Iterator[Problem]:
    """Native amounts with which a container would never be scheduled or never start."""
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
            f"container {ask.container}: requests {ask.cards} GPUs, more than any node has; "
            f"allowed: at most {bounds.max_cards * units.MILLI}",
        )
    if (ask.memory_mib or 0) > bounds.max_memory_mib:
        yield Problem(
            f"{at.path}.resources[{keys.MEMORY_MIB}]",
            f"container {ask.container}: requests {ask.memory_mib} MiB on each GPU, more than any "
            f"GPU has; allowed: at most {bounds.max_memory_mib} on each GPU",
        )


def strange(pod: Pod) -> Iterator[str]:
    """Warnings about resource names of our group that no node offers."""
    for at in containers(pod):
        for name in at.container.resource_names():
            if name.startswith(keys.PREFIX) and name not in keys.NATIVE_RESOURCES:
                yield (
                    f"{at.path}.resources: no node offers {quote(name)[1:-1]}"
                    f"{nearest(name, keys.NATIVE_RESOURCES)}; "
                    f"known: {', '.join(keys.NATIVE_RESOURCES)}"
                )
