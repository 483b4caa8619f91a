"""The containers of a pod by name, and which of them can get a GPU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self

from gpu_fraction.domain import keys, request_annotation
from gpu_fraction.domain.pod import ContainerAt, Pod, containers, is_sidecar
from gpu_fraction.domain.problems import nearest, quote

MAX_LISTED: Final = 64
"""Container names in one message: chosen, more than a pod has."""

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
"""Annotation with the pod's main container, for kubectl. Source: Kubernetes, well-known labels,
annotations and taints; sidecar injectors set it too."""


@dataclass(frozen=True, slots=True)
class Containers:
    """The containers of one pod by name, in the pod's order.

    Attributes:
        by_name: Each container.
        main: The regular container that an earlier call chose for the pod-level share, else the
            one that ``DEFAULT_CONTAINER`` names; None where neither names one.
    """

    by_name: Mapping[str, ContainerAt]
    main: str | None = None

    @classmethod
    def of(cls, pod: Pod) -> Self:
        """Index the containers of a pod."""
        by_name: dict[str, ContainerAt] = {}
        for at in containers(pod):
            # The API server refuses duplicate names, but only after this webhook.
            by_name.setdefault(at.container.name, at)
        regular = {name for name, at in by_name.items() if at.kind == "containers"}
        named = (_chosen_before(pod), pod.annotations().get(DEFAULT_CONTAINER))
        return cls(by_name, next((name for name in named if name in regular), None))

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def default(self) -> str | None:
        """The regular container that gets the pod-level share: ``main``, else the first.

        Another webhook can insert a container before it between two calls, so later calls keep
        the choice of the first.
        """
        return self.main or next(self._regular(), None)

    def _regular(self) -> Iterator[str]:
        return (name for name, at in self.by_name.items() if at.kind == "containers")

    def refusal(self, name: str, *, suggest: bool) -> str | None:
        """Why the named container cannot get a GPU; None where it can.

        Args:
            name: The name in the annotation.
            suggest: Whether to search for the closest name, the expensive part of the answer.
        """
        at = self.by_name.get(name)
        if at is None:
            listed = islice(self.by_name.items(), MAX_LISTED)
            names = [other for other, at in listed if _may_hold(at)]
            meant = nearest(name, names) if suggest else ""
            shown = ", ".join(quote(other)[1:-1] for other in names)
            return f"the pod has no container {quote(name)}{meant}; its containers: {shown}"
        if not _may_hold(at):
            return (
                f"container {quote(name)} is an {at.kind[:-1]}; only regular containers and "
                "sidecars (init containers with restartPolicy: Always) can use a GPU"
            )
        return None


def _chosen_before(pod: Pod) -> str | None:
    """The container with the pod-level share in the request annotation."""
    rendered = request_annotation.find(pod.annotations())
    names = (part.container for part in (rendered.request.slices if rendered else ()))
    given = pod.annotations()
    return next((name for name in names if keys.CONTAINER_PREFIX + name not in given), None)


def _may_hold(at: ContainerAt) -> bool:
    return at.kind == "containers" or is_sidecar(at)
