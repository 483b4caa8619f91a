"""A stack that nobody sells: thousandths of a card, a queue, and a claim of a card's memory.

It uses everything that a backend may.
"""

from typing import Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import Backend, amount_of
from gpu_fraction.domain.demand import Demand, aggregate
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, ContainerAt, EnvVar, Pod, ResourceClaim, Toleration
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Refused, Request, annotation_path

MILLI: Final = "toy.example/gpu-milli"


class Toy(Backend):
    """Shares of one card for each container."""

    name = "toy"
    scheduler = "toy-scheduler"
    resources = ("toy.example/gpu-",)
    tolerations = (Toleration("toy.example/gpu", "Exists", effect="NoSchedule"),)
    assignments = ("toy.example/card",)

    def render(self, request: Request, pod: Pod) -> PodEdit:  # noqa: ARG002 - the base class's
        """Thousandths of a card, and a claim of memory where its size is known."""
        if request.models or request.not_models:
            problem = Problem(annotation_path(keys.MODEL), "cannot be honoured by the toy backend")
            raise Refused([problem])
        edit = self.start(request)
        edit.annotations["toy.example/policy"] = request.placement
        edit.labels["toy.example/queue"] = "default"
        edit.node_selector["toy.example/ready"] = "true"
        for part, amounts in self.parts(request, edit):
            milli = part.cards * (amounts.core_milli or units.MILLI)
            self.give(edit, part, amounts, {MILLI: milli})
            if amounts.memory_mib is not None:
                claim, template = f"toy-{part.container}", f"toy-{amounts.memory_mib}"
                edit.resource_claims += (
                    ResourceClaim(claim, resource_claim_template_name=template),
                )
                edit.container_claims[part.container] = (claim,)
        return edit

    def demand(self, pod: Pod) -> Demand:
        """As much memory as compute."""
        return aggregate(pod, _container_demand)

    def sets(self, pod: Pod, at: ContainerAt, variable: EnvVar) -> bool:
        """Its webhook names a ConfigMap that its scheduler fills, in a pod that it places."""
        source = variable.value_from.config_map_key_ref if variable.value_from else None
        return (
            pod.spec.scheduler_name == self.scheduler
            and not pod.spec.node_name
            and source is not None
            and source.name == f"toy-cards-{at.index}"
        )


STACK = Toy


def _container_demand(container: Container) -> Demand:
    milli = amount_of(container.resources, MILLI)
    cards = units.ceil_div(milli, units.MILLI)
    return Demand(cards=cards, core_milli=milli, open_memory_milli=milli)
