"""What the accounts of our programs must be allowed, as in deploy/."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_ADMISSION: Final = "admissionregistration.k8s.io"
_COORDINATION: Final = "coordination.k8s.io"
_OURS: Final = "gpu-fraction.dev"


@dataclass(frozen=True, slots=True)
class Needed:
    """One right.

    Attributes:
        component: Whose account needs it.
        verb: What is done.
        group: API group of the resource.
        resource: Its plural, with ``/`` and the subresource.
        own_namespace: Whether it is needed in the installation's namespace alone.
    """

    component: str
    verb: str
    group: str
    resource: str
    own_namespace: bool = False

    @property
    def qualified(self) -> str:
        """``plural.group``, with the subresource."""
        plural, _, sub = self.resource.partition("/")
        name = f"{plural}.{self.group}" if self.group else plural
        return f"{name}/{sub}" if sub else name


_TABLE: Final = (
    ("webhook", "list watch", _OURS, "gpuquotas", False),
    ("webhook", "patch", _OURS, "gpuquotas/status", False),
    ("webhook", "list watch", "", "namespaces nodes", False),
    ("webhook", "create", "", "events", False),
    ("webhook", "create", _COORDINATION, "leases", True),
    ("controller", "list watch", _OURS, "gpuquotas", False),
    ("controller", "update", _OURS, "gpuquotas/status", False),
    ("controller", "list watch", "", "pods nodes", False),
    ("controller", "list", "", "events", False),
    ("controller", "patch", "apps", "replicasets/status statefulsets/status", False),
    ("controller", "patch", "batch", "jobs/status", False),
    ("controller", "create", _COORDINATION, "leases", True),
    ("scheduler", "list watch", "", "pods nodes", False),
    ("scheduler", "create", "", "pods/binding", False),
    ("scheduler", "list watch", _OURS, "gpuquotas", False),
    ("scheduler", "create", _COORDINATION, "leases", True),
    ("node-daemon", "list watch patch", "", "nodes", False),
    ("node-daemon", "patch", "", "nodes/status", False),
    ("node-daemon", "list watch", "", "pods", False),
    ("node-daemon", "create", "", "events", False),
)


def needed() -> Iterator[Needed]:
    """Every right; those of named objects are left out, because names differ by installation."""
    for component, verbs, group, resources, own in _TABLE:
        for verb in verbs.split():
            for resource in resources.split():
                yield Needed(component, verb, group, resource, own)
