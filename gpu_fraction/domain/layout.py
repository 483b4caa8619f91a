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

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
"""Annotation with the pod's main container, for kubectl. Source: Kubernetes, well-known labels,
annotations and taints; injectors of sidecars set it too."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The containers of one pod by name, in the pod's order.

    Attributes:
        found: Each of them.
        chosen: The regular one that gets the share that names no container: by an earlier call,
            else by ``DEFAULT_CONTAINER``; None where only the order tells.
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
        regular = {name for name, at in found.items() if at.kind == "containers"}
        wanted = (_chosen(pod), pod.annotations().get(DEFAULT_CONTAINER))
        return cls(found, next((name for name in wanted if name in regular), None))

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def default(self) -> str | None:
        """The regular container that gets a share that names none: the first, if none is chosen.

        Another webhook may put a container before it between two calls, so what the first
        call chose stays chosen.
        """
        return self.chosen or next(self._regular(), None)

    def guessed(self, annotations: Mapping[str, str]) -> str | None:
        """Why another container than the default may be meant; None where that is clear.

        Args:
            annotations: The pod's; containers with a share of their own are not meant.
        """
        could = (n for n in self._regular() if keys.CONTAINER_PREFIX + n not in annotations)
        first, *others = [quote(name)[1:-1] for name in islice(could, MAX_LISTED)] or [""]
        if self.chosen or not others:
            return None
        return (
            f"container {first} gets the GPU because it is the first, and {', '.join(others)} "
            f"could be meant; name one by the annotation {keys.CONTAINER_NAME}"
        )

    def _regular(self) -> Iterator[str]:
        return (name for name, at in self.found.items() if at.kind == "containers")

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
