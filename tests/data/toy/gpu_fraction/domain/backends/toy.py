"""A stack that nobody sells: thousandths of a card, a queue, and a claim of a card's memory.

It uses everything that a backend may.
"""

from dataclasses import replace
from typing import Final, cast

from gpu_fraction.domain import units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, ContainerAt, EnvVar, Pod, ResourceClaim, Toleration
from gpu_fraction.domain.pod_amounts import amount_of, asked_for
from gpu_fraction.domain.request import PLACEMENTS, Placement, Request, Slice
from gpu_fraction.domain.stack import About

MILLI: Final = "toy.example/gpu-milli"
POLICY: Final = "toy.example/policy"


class Toy(Backend):
    """Shares of one card for each container."""

    name = "toy"
    about = About(
        title="Toy",
        memory="thousandths of a GPU, in a claim",
        compute="thousandths of a GPU",
        cards="a total",
        memory_isolation="soft",
        compute_isolation="none",
        source="this file",
    )
    scheduler = "toy-scheduler"
    resources = ("toy.example/gpu-",)
    tolerations = (Toleration("toy.example/gpu", "Exists", effect="NoSchedule"),)
    assignments = ("toy.example/card",)
    chooses_placement = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """Thousandths of a card, and a claim of memory where its size is known."""
        edit = self.start(request, pod)
        edit.annotations[POLICY] = request.placement
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

    def ask(self, container: Container, pod: Pod) -> Slice | None:  # noqa: ARG002
        """As much memory as compute; several cards in equal parts."""
        milli = amount_of(container.resources, MILLI)
        cards = units.ceil_div(milli, units.MILLI)
        each = units.ceil_div(milli, cards or 1)
        return (
            asked_for(container, cards=cards, core_milli=each, memory_milli=each)
            if milli
            else None
        )

    def read(self, pod: Pod) -> Request | None:
        """With the placement of its annotation."""
        found = super().read(pod)
        policy = pod.annotations().get(POLICY)
        if found is None or policy not in PLACEMENTS:
            return found
        return replace(found, placement=cast("Placement", policy))

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
