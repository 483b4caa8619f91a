"""Claims of our DRA driver: the stock scheduler keeps the books of every card.

A pod's claims are made of templates, which ``gpu_fraction.claims`` keeps in its namespace.
"""

from collections.abc import Collection

from gpu_fraction.domain import claim_template, dra, keys
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.claim_template import Shape, Template
from gpu_fraction.domain.demand import ZERO, Demand, demand_of
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod, ResourceClaim, containers
from gpu_fraction.domain.pod_amounts import asking, whole_cards
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import NVIDIA_TAINT, About
from gpu_fraction.domain.traces import Traces


class Dra(Backend):
    """Shares of cards by dynamic resource allocation with consumable capacity."""

    name = "dra"
    about = About(
        title="Dynamic Resource Allocation",
        memory="millionths of each card's memory; MiB where the cards' sizes are configured",
        compute="thousandths of a GPU",
        cards="the same share of each",
        memory_isolation="some nodes",
        compute_isolation="some nodes",
        source="docs/dra.md, run on Kubernetes 1.37.2",
    )
    resources = dra.EXTENDED_RESOURCES
    traces = Traces(resources=(), drivers=(dra.DRIVER,))
    tolerations = (NVIDIA_TAINT,)
    chooses_models = True
    chooses_uuids = True
    chooses_placement = True
    needs_no_root = True
    ours = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """One claim for each container, from the template of its shape."""
        edit = self.start(request, pod)
        if request.placement != "binpack" and keys.PLACEMENT in pod.annotations():
            edit.warn(
                f"{keys.PLACEMENT} {request.placement} is ignored: kube-scheduler fills the cards "
                "of a node one after the other, and does not compare nodes by their cards"
            )
        if any(len(text) > dra.MAX_EXPRESSION for text in claim_template.expressions(request)):
            edit.refuse(
                keys.MODEL if request.models or request.not_models else keys.UUID,
                f"is too long for a claim, whose expressions have at most {dra.MAX_EXPRESSION} "
                "characters; name fewer",
            )
        for number, (part, amounts) in enumerate(self.parts(request, edit)):
            shape = self._shape(request, pod, part, edit)
            if shape is None:
                continue
            made = claim_template.template(shape, request)
            claim = f"{dra.CLAIM}{number}"
            edit.resource_claims += (ResourceClaim(claim, resource_claim_template_name=made.name),)
            edit.container_claims[part.container] = (claim,)
            self.give(edit, part, amounts, {})
        return edit

    def templates(self, request: Request, pod: Pod) -> list[Template]:
        """The templates that ``render`` names; none where it refuses the pod."""
        edit = self.start(request, pod)
        shapes = [self._shape(request, pod, part, edit) for part, _ in self.parts(request, edit)]
        if edit.problems:
            return []
        return [claim_template.template(shape, request) for shape in shapes if shape]

    def _shape(self, request: Request, pod: Pod, part: Slice, edit: PodEdit) -> Shape | None:
        """The shape of one container's claim; None, with a problem, where there can be none."""
        if part.cards > dra.MAX_DEVICES:
            edit.refuse(
                keys.NUM_DEVICES if keys.NUM_DEVICES in pod.annotations() else asking(part, pod),
                f"container {part.container} asks for {part.cards} GPUs, more than one claim "
                f"holds; allowed: at most {dra.MAX_DEVICES}",
            )
            return None
        if part.memory_mib is None:
            return Shape(part)
        eligible = self.config.card_sizes.eligible_mib(request)
        sizes = tuple(sorted(size for size in eligible if size >= part.memory_mib))
        if not eligible:
            edit.refuse(
                keys.MEMORY,
                f"container {part.container}: an amount of memory is claimed as a part of a card "
                f"whose size is known, and none is configured for it; use {keys.FRACTION}, or ask "
                "the administrator to set --gpu-memory-mib or --gpu-memory-by-model",
            )
            return None
        if len(sizes) > dra.MAX_ALTERNATIVES:
            edit.refuse(
                keys.MEMORY,
                f"container {part.container}: cards of {len(sizes)} memory sizes are eligible, "
                f"and a claim lists at most {dra.MAX_ALTERNATIVES}; name models with {keys.MODEL}",
            )
            return None
        # Without a size that is large enough, ``parts`` has refused the pod.
        return Shape(part, sizes) if sizes else None

    def claims(self, pod: Pod, gpus: Collection[str]) -> bool:
        """True for a pod with a claim of ours, or with the resource of a class of ours."""
        return any(claim_template.claims_of(pod)) or super().claims(pod, gpus)

    def own_claims(self, pod: Pod) -> Collection[str]:
        """Those of our templates."""
        return {name for _, name, _ in claim_template.claims_of(pod)}

    def ask(self, container: Container, pod: Pod) -> Slice | None:
        """The share of the first claim of ours that the container uses, else whole cards."""
        used = {claim.name for claim in (container.resources and container.resources.claims) or ()}
        for _, claim, shape in claim_template.claims_of(pod):
            if claim in used:
                part = shape.share
                return Slice(
                    container.name, part.cards, part.core_milli, part.memory_mib, part.memory_milli
                )
        return whole_cards(container, dra.EXTENDED_RESOURCES)

    def demand(self, pod: Pod) -> Demand:
        """What its claims take for the whole life of the pod, whichever containers use them.

        Containers that name a class's resource count one by one: the scheduler makes one claim
        of them all.
        """
        total = sum((shape.demand for _, _, shape in claim_template.claims_of(pod)), ZERO)
        for at in containers(pod):
            if at.container.resources is not None:
                total += demand_of(whole_cards(at.container, dra.EXTENDED_RESOURCES))
        return total


STACK = Dra
