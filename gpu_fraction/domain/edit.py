"""What a backend wants changed in a pod, as data."""

from dataclasses import dataclass, field

from gpu_fraction.domain.pod import ResourceClaim, Toleration
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import annotation_path


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A field of the pod as a variable's value, such as ``metadata.uid``."""

    path: str


@dataclass(slots=True)
class PodEdit:
    """Changes to one pod; ``domain.patch`` turns them into the smallest JSON patch.

    Attributes:
        annotations: To set; a different value that is there already is a conflict.
        rewritten: The user's own annotations in the stack's spelling; None removes one. They
            must read as the same request.
        resources: Container name to resource name to amount, for limits and requests alike.
        env: Container name to variable name to value; a variable that is there stays.
        scheduler_name: To set where the pod has none or the default; None leaves it.
        runtime_class_name: To set where the pod has none; None leaves it.
        labels: To set, as annotations.
        node_selector: To set, as annotations.
        tolerations: To add where the pod has no equal one.
        resource_claims: Claims of devices for the pod (dynamic resource allocation); another
            of the same name is a conflict.
        container_claims: Container name to the names of the claims that it uses.
        warnings: For the user: what was rounded, defaulted or ignored.
        problems: What the stack cannot give; with one, the pod is refused.
    """

    annotations: dict[str, str] = field(default_factory=dict)
    rewritten: dict[str, str | None] = field(default_factory=dict)
    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    env: dict[str, dict[str, str | FieldRef]] = field(default_factory=dict)
    scheduler_name: str | None = None
    runtime_class_name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    resource_claims: tuple[ResourceClaim, ...] = ()
    container_claims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """One more line for the user."""
        self.warnings += (text,)

    def refuse(self, key: str, text: str) -> None:
        """What the stack cannot give.

        Args:
            key: The annotation that asks for it.
            text: The reason, and what is allowed instead.
        """
        self.problems.append(Problem(annotation_path(key), text))
