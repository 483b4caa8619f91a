"""Which objects the webhook has to see, by the domain's own rules.

``deploy/webhook/configurations.yaml`` says the same in CEL, which nothing but an API server
evaluates: tests/property shows that what is left out needs no verdict, tests/cluster that a
server sends exactly this.
"""

from gpu_fraction.domain import dra, guard, user_annotations
from gpu_fraction.domain.admission import uses_gpu
from gpu_fraction.domain.backends import STACKS
from gpu_fraction.domain.keys import is_ours
from gpu_fraction.domain.pod import Container, Pod, containers

COUNT_LABELS = ("aliyun.com/gpu-count", "volcano.sh/gpu-num")
"""Labels that say how many cards a pod of cGPU or xGPU has."""

COUNTED = tuple(name for stack in STACKS.values() for name in stack.resources)
"""Resources that a quota may count."""

MOST = 1000
"""Annotations, containers and what else a tenant chooses the number of that a server searches; of
more the webhook is told at once."""


def mutated(pod: Pod) -> bool:
    """A new pod that ``/mutate`` may have to change."""
    return user_annotations.asks(pod.annotations()) or len(pod.annotations()) > MOST


def judged(pod: Pod) -> bool:
    """A new pod that ``/validate`` may have to refuse, warn of or charge."""
    found = [at.container for at in containers(pod)]
    system = any(
        volume.host_path and volume.host_path.path in guard.PLUGIN_FOLDERS
        for volume in pod.spec.volumes or ()
    )
    return (
        mutated(pod)
        or _long(pod)
        or any(map(_names_gpu, found))
        or _names_template(pod)
        or (not system and any(_names_cards(c) and not _privileged(c) for c in found))
    )


def changes(old: Pod | None, new: Pod, subresource: str | None = None) -> bool:
    """A change, or a Binding without ``old``, that ``/validate`` may have to refuse."""
    before, after = old.annotations() if old else {}, new.annotations()
    if any(is_ours(key) and before.get(key) != after.get(key) for key in {*before, *after}):
        return True
    if before != after and max(len(before), len(after)) > MOST:
        return True
    said, says = ((one and one.metadata.labels) or {} for one in (old, new))
    if any(said.get(key) != says.get(key) for key in COUNT_LABELS):
        return True
    return subresource == "ephemeralcontainers" and (
        uses_gpu(new)
        or _names_template(new)
        or any(map(_names_cards, new.spec.ephemeral_containers or ()))
    )


def _long(pod: Pod) -> bool:
    spec = pod.spec
    lists = (spec.containers, spec.init_containers, spec.resource_claims, spec.volumes)
    inner = sum(
        len((at.container.resources and at.container.resources.limits) or ())
        + len(at.container.env or ())
        for at in containers(pod)
    )
    return any(len(one or ()) > MOST for one in lists) or inner > MOST


def _names_gpu(container: Container) -> bool:
    names = container.resources.names() if container.resources else ()
    return any("gpu" in name or name.startswith(COUNTED) for name in names)


def _names_template(pod: Pod) -> bool:
    claims = pod.spec.resource_claims or ()
    return any((c.resource_claim_template_name or "").startswith(dra.CLAIM) for c in claims)


def _privileged(container: Container) -> bool:
    return container.security_context is not None and bool(container.security_context.privileged)


def _names_cards(container: Container) -> bool:
    return any(variable.name == guard.VISIBLE for variable in container.env or ())
