"""Intel's device plugin: whole cards, or equal shares of them.

Source: intel/intel-device-plugins-for-kubernetes cmd/gpu_plugin/README.md (2026-08): its flag
``-shared-dev-num`` lets so many containers use a card, with nothing to keep them apart.
"""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.equal_parts import EqualParts
from gpu_fraction.domain.pod import Container, Pod, Toleration
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import About, StackSetting, flag

PREFIX: Final = "gpu.intel.com/"
_KINDS: Final = ("i915", "xe")
"""The kernel drivers, which name the resources."""
_ALL: Final = "_monitoring"
"""Ends the resource by which a monitor sees every card of a node."""

_RESOURCE: Final = StackSetting(
    "intel_resource", "i915", "the GPUs' kernel driver: i915 or xe (backend intel)", _KINDS
)
_SHARED: Final = StackSetting(
    "intel_shared_dev_num",
    0,
    "the plugin's -shared-dev-num; by default GPUs are not shared (backend intel)",
    range(1, 1001),
    charged=True,
)


class Intel(Backend):
    """A count of cards, or one share."""

    name = "intel"
    about = About(
        title="Intel GPU device plugin",
        memory="whole GPUs, or one of N equal parts of a GPU",
        compute="whole GPUs, or one of N equal parts of a GPU",
        cards="a count of whole GPUs, or one part",
        memory_isolation="some nodes",
        compute_isolation="some nodes",
        source="intel/intel-device-plugins-for-kubernetes cmd/gpu_plugin/README.md (2026-08)",
        unverified=("no pod has run with the plugin",),
    )
    resources = (PREFIX,)
    tolerations = tuple(
        Toleration(PREFIX + kind, "Exists", effect="NoSchedule") for kind in _KINDS
    )
    settings = (_RESOURCE, _SHARED)
    model_label = "gpu.intel.com/product"

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """A count of cards where they are not shared, else one part."""
        edit = self.start(request, pod)
        if self._count > 1 and request.isolation == "required":
            edit.refuse(
                keys.ISOLATION,
                '"required" cannot be honoured: nothing keeps the containers of a GPU apart; '
                "allowed: preferred, none",
            )
        eligible = self.config.card_sizes.eligible_mib(request)
        resource = PREFIX + self.config.of(_RESOURCE)
        for part, amounts in self.parts(request, edit):
            resources = {resource: part.cards}
            if self._count > 1:
                parts = self._parts(resource)
                resources = parts.take(edit, asking(part, pod), part, eligible)
            else:
                self.needs_whole(edit, part, pod)
            self.give(edit, part, amounts, resources)
        return edit

    @property
    def _count(self) -> int:
        return self.config.of(_SHARED) or 1

    def _parts(self, resource: str) -> EqualParts:
        whole = "a cluster whose GPUs are not shared"
        return EqualParts(resource, self._count, flag(_SHARED), "refused", whole)

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:  # noqa: ARG002
        """Parts of cards, and whole cards for a resource that shows all of a node's."""
        seen = sum(amount_of(container.resources, PREFIX + kind + _ALL) for kind in _KINDS)
        parts = [asked_for(container, cards=seen, core_milli=units.MILLI)] if seen else []
        found = (self._parts(PREFIX + kind).ask(container, up=up) for kind in _KINDS)
        return [*parts, *(part for part in found if part is not None)]


STACK = Intel
