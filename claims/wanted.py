"""Which templates pods and workloads need."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from gpu_fraction.claims.objects import FINISHED, ClaimingPod
from gpu_fraction.domain import claim_template, keys, request_annotation, user_annotations
from gpu_fraction.domain.backends.dra import Dra
from gpu_fraction.domain.claim_template import Shape, Template
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.request import Bounds, Refused

Key = tuple[str, str]
"""Namespace and name of a template."""

Owner = tuple[str, str, str]
"""Kind, namespace and name of an object that needs templates."""

Named = Mapping[str, Template | None]
"""Templates by name; None for one whose specification its user does not tell."""

_BOUNDS: Final = Bounds(max_cards=1024)
"""Wide: the webhook has the cluster's, and refuses the pods."""


def of_pod(pod: ClaimingPod) -> Named:
    """The templates of ours that a pod names, whole where its request is known.

    The request and the sizes in a template's name determine the specification, so no setting
    is needed. A name that does not follow from the request is the author's own; a template is
    never made for it.
    """
    if pod.status is not None and pod.status.phase in FINISHED:
        return {}
    named = (claim.resource_claim_template_name or "" for claim in pod.spec.resource_claims or ())
    names = tuple(name for name in named if claim_template.parse(name) is not None)
    if not names:
        return {}
    text = (pod.metadata.annotations or {}).get(keys.REQUEST, "")
    return {**dict.fromkeys(names), **_rendered(text, names)}


# Chosen: a burst of pods has a few shapes.
@lru_cache(maxsize=1024)
def _rendered(text: str, names: tuple[str, ...]) -> dict[str, Template]:
    rendered = request_annotation.find({keys.REQUEST: text})
    if rendered is None or rendered.backend != Dra.name:
        return {}
    shapes = [shape for name in names if (shape := claim_template.parse(name)) is not None]
    sizes = {shape.sizes_mib for shape in shapes}
    made = (
        claim_template.template(Shape(part, given), rendered.request)
        for part in rendered.request.slices
        for given in sizes
        if bool(given) == (part.memory_mib is not None)
    )
    return {one.name: one for one in made if one.name in names}


def of_workload(pods: Iterable[Pod], backend: Dra) -> Named:
    """The templates that the pods of a workload will name; none for what would be refused."""
    found = {}
    for pod in pods:
        try:
            request = user_annotations.parse(pod, _BOUNDS)
        except Refused:
            continue
        if request is not None:
            found.update({one.name: one for one in backend.templates(request, pod)})
    return found


class Wanted:
    """The templates that are needed, by their users."""

    def __init__(self) -> None:
        self._named: dict[Owner, Named] = {}
        self._users: dict[Key, set[Owner]] = {}

    def put(self, owner: Owner, named: Named) -> Iterator[Key]:
        """Replace what an object needs; yields the templates that begin or end to be needed."""
        before = self._named.get(owner, {})
        namespace = owner[1]
        if named:
            self._named[owner] = named
        else:
            self._named.pop(owner, None)
        for name in before.keys() - named.keys():
            users = self._users[namespace, name]
            users.discard(owner)
            if not users:
                del self._users[namespace, name]
                yield namespace, name
        for name, template in named.items():
            users = self._users.setdefault((namespace, name), set())
            if owner not in users or template != before.get(name):
                new = not users or template is not None
                users.add(owner)
                if new:
                    yield namespace, name

    def used(self, key: Key) -> bool:
        """Whether some object names it."""
        return key in self._users

    def template(self, key: Key) -> Template | None:
        """Its specification; None where no user tells it."""
        name = key[1]
        found = (self._named[owner].get(name) for owner in self._users.get(key, ()))
        return next((template for template in found if template is not None), None)
