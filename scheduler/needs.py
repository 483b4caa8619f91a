"""What decides beside cards whether a pod fits on a node."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import chain

from gpu_fraction.domain import keys, units
from gpu_fraction.scheduler.pods import Pod
from gpu_fraction.scheduler.views import PodView

Requests = Mapping[str, Decimal]
"""Resource to its amount."""


def entangled(view: PodView) -> bool:
    """True where more than resources decides whether the pod fits beside others."""
    spec = view.pod.spec
    ties = spec.affinity
    return (
        bool(spec.topology_spread_constraints)
        or (ties is not None and bool(ties.pod_affinity or ties.pod_anti_affinity))
        or any(v.persistent_volume_claim or v.ephemeral for v in spec.volumes or ())
        or any(p.host_port for c in spec.containers or () for p in c.ports or ())
    )


def requested(views: Iterable[PodView], *, with_init: bool = False) -> Requests:
    """What the pods request of everything but cards.

    Args:
        views: The pods.
        with_init: Add init containers' requests, so that the sum is never too low.
    """
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for view in views:
        for name, amount in _of_pod(view.pod, with_init=with_init).items():
            if name not in keys.NATIVE_RESOURCES:
                total[name] += amount
    return total


def _of_pod(pod: Pod, *, with_init: bool) -> Requests:
    """What one pod requests.

    A resource that it requests as a whole (KEP-2837) stands for its containers' sum, and
    overhead is added. Source: PodRequests in k8s.io/component-helpers/resource.
    """
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    initial = pod.spec.init_containers if with_init else None
    for container in chain(pod.running_containers(), initial or ()):
        for name, text in (container.resources.all() if container.resources else {}).items():
            sums[name] += units.parse_quantity(text)
    whole = pod.spec.resources.requests if pod.spec.resources else None
    for name, text in (whole or {}).items():
        sums[name] = units.parse_quantity(text)
    for name, text in (pod.spec.overhead or {}).items():
        sums[name] += units.parse_quantity(text)
    return sums
