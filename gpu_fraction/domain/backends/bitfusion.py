"""VMware Bitfusion: shares of remote cards, which its own webhook turns into a client's command.

Source: vmware-archive/bitfusion-with-kubernetes-integration bitfusion_device_plugin/README.md and
webhook/pkg/webhook/util.go (``updateBFResource``) at 7377ccae (2023-11-03); archived.
"""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod, containers
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import About, StackSetting, flag
from gpu_fraction.domain.traces import Traces

COUNT: Final = "bitfusion.io/gpu-amount"
PERCENT: Final = "bitfusion.io/gpu-percent"
MEMORY: Final = "bitfusion.io/gpu-memory"
TOTAL: Final = "bitfusion.io/gpu"
"""Percents over all cards, which Bitfusion's webhook puts in the place of the others."""

MANAGE: Final = "auto-management/bitfusion"
OS: Final = "bitfusion-client/os"
VERSION: Final = "bitfusion-client/version"
STATUS: Final = "auto-management/status"
"""``injected`` once Bitfusion's webhook has rewritten the pod."""

_MB: Final = 10**6
_OS: Final = StackSetting(
    "bitfusion_os", "", "the client's system, for pods without the annotation (backend bitfusion)"
)
_VERSION: Final = StackSetting(
    "bitfusion_version",
    "",
    "the client's version, for pods without the annotation (backend bitfusion)",
)


class Bitfusion(Backend):
    """A count, and percents or megabytes of each card."""

    name = "bitfusion"
    about = About(
        title="VMware Bitfusion",
        memory="whole percents of each GPU, or MB",
        compute="none of its own; it goes with the memory",
        cards="the same share of each",
        memory_isolation="soft",
        compute_isolation="none",
        source="vmware-archive/bitfusion-with-kubernetes-integration at 7377ccae (2023-11-03)",
        unverified=(
            "Bitfusion is archived and was not run; its webhook has to come after this one",
            "Bitfusion leaves out a container whose command is not in the pod",
        ),
    )
    resources = (TOTAL,)
    traces = Traces(webhooks=("bwki-webhook-cfg",))
    settings = (_OS, _VERSION)

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """Memory in one form; the annotations that Bitfusion needs."""
        edit = self.start(request, pod)
        for key, text, setting in (
            (MANAGE, "all", ""),
            (OS, self.config.of(_OS), flag(_OS)),
            (VERSION, self.config.of(_VERSION), flag(_VERSION)),
        ):
            if key in pod.annotations():
                continue
            if text:
                edit.annotations[key] = text
            else:
                edit.refuse(key, f"is missing, and Bitfusion needs it; set it or {setting}")
        sizes = self.config.card_sizes.eligible_mib(request)
        totals = {at.container.name: at.container.resources for at in containers(pod)}
        injected = pod.annotations().get(STATUS) == "injected"
        for part, amounts in self.parts(request, edit):
            if part.core_milli not in (None, part.memory_milli):
                edit.refuse(
                    asking(part, pod),
                    "cannot be honoured: Bitfusion gives memory only, the compute goes with it; "
                    f"allowed: {keys.FRACTION} or {keys.MEMORY}, without {keys.CORES}",
                )
            resources: dict[str, int | str] = {COUNT: part.cards}
            if part.memory_mib is None:
                milli = part.memory_milli or units.MILLI
                resources[PERCENT] = self.percent(edit, part, milli, "a GPU")
            else:
                megabytes = units.ceil_div(part.memory_mib * units.MIB, _MB)
                resources[MEMORY] = f"{megabytes}M"
                if megabytes * _MB >= max(sizes, default=1 << 43) * units.MIB:
                    edit.refuse(
                        asking(part, pod),
                        "is all of a GPU's memory, which Bitfusion takes as a share only; "
                        f'allowed: {keys.FRACTION} "1"',
                    )
            total = amount_of(totals.get(part.container), TOTAL) if injected else 0
            if total:
                # Bitfusion's webhook came after the first call, and a second is for its form. It
                # made percents of an amount of memory, by a size of cards that only it knows.
                percent = resources.get(PERCENT)
                resources = {TOTAL: total if percent is None else part.cards * int(percent)}
            self.give(edit, part, amounts, resources)
        return edit

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:  # noqa: ARG002
        """The share of each card; after Bitfusion's webhook, percents over all cards."""
        cards, percent, memory, total = (
            amount_of(container.resources, name) for name in (COUNT, PERCENT, MEMORY, TOTAL)
        )
        parts = []
        if cards or percent or memory:
            # Bitfusion rounds bytes down to MB; nothing left counts as all of the card.
            mib = (memory // _MB * _MB + (units.MIB - 1 if up else 0)) // units.MIB
            milli = min(percent or 100, 100) * 10
            core_milli = None if mib else milli
            parts.append(
                asked_for(
                    container,
                    cards=cards,
                    core_milli=core_milli,
                    memory_mib=mib,
                    memory_milli=milli,
                )
            )
        if total:
            cards = units.ceil_div(total, 100)
            milli = units.ceil_div(total * 10, cards)
            parts.append(asked_for(container, cards=cards, core_milli=milli, memory_milli=milli))
        return parts


STACK = Bitfusion
