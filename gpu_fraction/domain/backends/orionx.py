"""VirtAI OrionX: virtual cards, whose size is in the container's variables.

Source: virtaitech/orion doc/Orion-User-Guide.md at 2287c5f3, doc/Orion-k8s-device-plugin.md: the
amounts count for each virtual card. OrionX is proprietary; no newer manual was found.
"""

from typing import Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import FieldRef, PodEdit
from gpu_fraction.domain.pod import Container, Pod, containers
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.sizes import Amounts
from gpu_fraction.domain.stack import About

GPU: Final = "virtaitech.com/gpu"
COUNT: Final = "ORION_VGPU"
MEMORY: Final = "ORION_GMEM"
RATIO: Final = "ORION_RATIO"
GROUP: Final = "ORION_GROUP_ID"


class OrionX(Backend):
    """A count of virtual cards; memory and compute of each in variables."""

    name = "orionx"
    about = About(
        title="VirtAI OrionX",
        memory="MiB of each GPU",
        compute="whole percents of each GPU",
        cards="the same share of each",
        memory_isolation="soft",
        compute_isolation="soft",
        source="virtaitech/orion doc/Orion-User-Guide.md at 2287c5f3",
        unverified=(
            "isolation is the vendor's claim, and the smallest step of ORION_RATIO is not known",
            "the image needs Orion's client, and the manual sets hostIPC, which is left to you",
        ),
    )
    scheduler = "orion-scheduler"
    resources = (GPU,)
    charged_by = frozenset({COUNT, MEMORY, RATIO})

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """The count, and the variables; memory is always in MiB."""
        edit = self.start(request, pod)
        present = {at.container.name: _variables(at.container) for at in containers(pod)}
        for part, amounts in self.parts(request, edit):
            if amounts.memory_mib is None:
                edit.refuse(
                    asking(part, pod),
                    f"container {part.container} asks for a share, but OrionX takes MiB and no "
                    "setting says how much memory the GPUs have; set --gpu-memory-mib, or ask "
                    f"for {keys.MEMORY}",
                )
            wanted = self._wanted(part, amounts, edit)
            for name, text in present.get(part.container, {}).items():
                if name in wanted and text != wanted[name]:
                    edit.refuse(
                        asking(part, pod),
                        f"container {part.container} sets {name}={text}, the annotations ask for "
                        f"{wanted[name]}; remove one of the two",
                    )
            edit.env[part.container] = {**wanted, GROUP: FieldRef("metadata.uid")}
            self.give(edit, part, amounts, {GPU: part.cards})
        return edit

    def _wanted(self, part: Slice, amounts: Amounts, edit: PodEdit) -> dict[str, str]:
        wanted = {COUNT: str(part.cards)}
        if amounts.memory_mib is not None:
            wanted[MEMORY] = str(amounts.memory_mib)
        if amounts.core_milli:
            wanted[RATIO] = str(self.percent(edit, part, amounts.core_milli, "compute"))
        return wanted

    def ask(self, container: Container, pod: Pod) -> Slice | None:  # noqa: ARG002
        """The variables' amounts; all of a card where one is missing or cannot be read."""
        cards = amount_of(container.resources, GPU)
        if not cards:
            return None
        told = _variables(container)
        count, memory, ratio = (units.count_in(told.get(name)) for name in (COUNT, MEMORY, RATIO))
        # A ConfigMap or Secret of the tenant's can hold the variables that are not there.
        follows = memory and RATIO not in told and not container.env_from
        core_milli = None if follows else min(ratio or 100, 100) * 10
        return asked_for(
            container, cards=max(cards, count), core_milli=core_milli, memory_mib=memory
        )


STACK = OrionX


def _variables(container: Container) -> dict[str, str]:
    return {variable.name: variable.value or "" for variable in container.env or ()}
