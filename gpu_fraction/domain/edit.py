"""What a backend wants changed in a pod, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PodEdit"]


@dataclass(frozen=True, slots=True)
class PodEdit:
    """Changes to one pod; ``domain.patch`` turns them into the smallest JSON patch.

    Attributes:
        annotations: To set; a different value that is there already is a conflict.
        resources: Container name to resource name to amount, for limits and requests alike.
        env: Container name to variable name to value; a variable that is there stays.
        scheduler_name: To set where the pod has none or the default; None leaves it.
        runtime_class_name: To set where the pod has none; None leaves it.
        warnings: For the user: what was rounded, defaulted or ignored.
    """

    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    scheduler_name: str | None = None
    runtime_class_name: str | None = None
    warnings: tuple[str, ...] = ()
