"""Which containers of a pod may get a GPU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self

from gpu_fraction.domain import keys, request_annotation
from gpu_fraction.domain.pod import ContainerAt, Pod, containers, is_sidecar
from gpu_fraction.domain.problems import nearest, quote

MAX_LISTED: Final = 64
"""Names of containers in one message: chosen, more than a pod has."""

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The containers of one pod by name, in the pod's order.

    Attributes:
        found: Each of them.
        chosen: The one that an earlier call gave the share that names no container.
    """

    found: Mapping[str, ContainerAt]
    chosen: str | None = None

    @classmethod
    def of(cls, pod: Pod) -> Self:
        """The pod's."""
        found: dict[str, ContainerAt] = {}
        for at in containers(pod):
            # The API server refuses a name that is there twice, but only after us.
            found.setdefault(at.container.name, at)
        return cls(found, _chosen(pod))

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def default(self) -> str | None:
        """The regular container that gets a share that names none: the first.

        Another webhook may put a container before it between two calls, so what the first
        call chose stays chosen.
        """
        regular = [name for name, at in self.found.items() if at.kind == "containers"]
        return self.chosen if self.chosen in regular else next(iter(regular), None)

    def why_not(self, name: str, *, suggest: bool) -> str | None:
        """Why no container of that name may get a GPU; None where one may.

        Args:
            name: What was given.
            suggest: Whether to look for the name that was meant, the dear part of the answer.
        """
        at = self.found.get(name)
        if at is None:
            first = islice(self.found.items(), MAX_LISTED)
            names = [other for other, at in first if _may_hold(at)]
            meant = nearest(name, names) if suggest else ""
            listed = ", ".join(quote(other)[1:-1] for other in names)
            return f"the pod has no container {quote(name)}{meant}; its containers: {listed}"
        if not _may_hold(at):
            return (
                f"container {quote(name)} is an {at.kind[:-1]}; only regular containers and "
                "sidecars (init containers with restartPolicy: Always) may hold a GPU"
            )
        return None


def _chosen(pod: Pod) -> str | None:
    rendered = request_annotation.find(pod.annotations())
    return next(
        (
            part.container
            for part in (rendered.request.slices if rendered else ())
            if keys.CONTAINER_PREFIX + part.container not in pod.annotations()
        ),
        None,
    )


def _may_hold(at: ContainerAt) -> bool:
    return at.kind == "containers" or is_sidecar(at)
