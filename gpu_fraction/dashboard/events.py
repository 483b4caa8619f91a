"""Events of one object, on demand: a cluster has too many to read them all."""

from collections.abc import Sequence
from typing import Final

from gpu_fraction.dashboard.objects import Event
from gpu_fraction.dashboard.snapshot import TIMEOUT_S
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import EVENTS

CLUSTER_WIDE: Final = "default"
"""Namespace of the Events of objects without one. Source: client-go tools/record/event.go."""


async def about(
    client: Client,
    kind: str,
    name: str,
    *,
    namespace: str = "",
    uid: str = "",
    timeout_s: float = TIMEOUT_S,
) -> Sequence[Event]:
    """The Events of one object, oldest first; Kubernetes keeps them for an hour by default.

    Args:
        client: The connection.
        kind: The object's kind, such as ``Pod``.
        name: Its name.
        namespace: Its namespace; empty for a cluster-wide object.
        uid: Its UID; empty for every object that had the name.
        timeout_s: Seconds for the answer.

    Raises:
        KubeError: they cannot be read; ForbiddenError without the right to.
    """
    fields = {"involvedObject.kind": kind, "involvedObject.name": name, "involvedObject.uid": uid}
    selection = Selection(fields=",".join(f"{k}={v}" for k, v in fields.items() if v))
    address = EVENTS.at(namespace=namespace or CLUSTER_WIDE)
    found = await client.list(address, Event, selection, timeout_s=timeout_s)
    return sorted(found.items, key=lambda event: event.at)
