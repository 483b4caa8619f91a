"""HAMi: ``nvidia.com/gpu`` cards, with memory and compute for each of them.

Names, units and rules: HAMi pkg/device/nvidia/device.go and charts/hami/values.yaml.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Final

import msgspec

from gpu_fraction.domain import models, units
from gpu_fraction.domain.backend import NVIDIA_TAINT, Backend, amount_of
from gpu_fraction.domain.demand import Demand, aggregate
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.sizes import Amounts

GPU: Final = "nvidia.com/gpu"
MEMORY: Final = "nvidia.com/gpumem"
MEMORY_PERCENT: Final = "nvidia.com/gpumem-percentage"
CORES: Final = "nvidia.com/gpucores"
SHARE_RESOURCES: Final = (MEMORY, MEMORY_PERCENT, CORES)

USE_TYPE: Final = "nvidia.com/use-gputype"
AVOID_TYPE: Final = "nvidia.com/nouse-gputype"
USE_UUID: Final = "nvidia.com/use-gpuuuid"
NODE_POLICY: Final = "hami.io/node-scheduler-policy"
GPU_POLICY: Final = "hami.io/gpu-scheduler-policy"
REGISTERED: Final = "hami.io/node-nvidia-register"


class _Card(msgspec.Struct):
    """A card as HAMi's device plugin registers it (HAMi pkg/device/devices.go, DeviceInfo)."""

    id: str = ""
    type: str = ""
    devmem: int = 0


_CARDS: Final = msgspec.json.Decoder(list[_Card])


class Hami(Backend):
    """Shares that HAMi hands out; all its amounts are for each card."""

    name = "hami"
    scheduler = "hami-scheduler"
    resources = ("nvidia.com/gpumem", "nvidia.com/gpucores", "nvidia.com/priority")
    takes_over = frozenset({GPU})
    tolerations = (NVIDIA_TAINT,)
    assignments = ("hami.io/vgpu-devices-to-allocate", "hami.io/vgpu-devices-allocated")

    def render(self, request: Request, pod: Pod) -> PodEdit:  # noqa: ARG002 - the base class's
        """Count, memory and compute of each card; never both forms of memory."""
        edit = self.start(request)
        parts = self.parts(request, edit)
        _choose_cards(request, edit, self.config.card_sizes.by_model_mib)
        for part, amounts in parts:
            if request.isolation == "none":
                # HAMi's own switch: without it, HAMi enforces whatever the pod says.
                edit.env[part.container] = {"CUDA_DISABLE_CONTROL": "true"}
            self.give(edit, part, amounts, _resources(part, amounts, edit))
        return edit

    def demand(self, pod: Pod) -> Demand:
        """Count times the amounts of each card, as HAMi reads them."""
        return aggregate(pod, _container_demand)

    def cards(self, annotations: Mapping[str, str]) -> dict[str, tuple[str, int]]:
        """The memory that HAMi takes percentages of, ``deviceMemoryScaling`` included."""
        try:
            found = _CARDS.decode(annotations.get(REGISTERED, "[]"))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return {}
        return {card.id: (card.type, card.devmem) for card in found if card.devmem > 0}


STACK = Hami


def _resources(part: Slice, amounts: Amounts, edit: PodEdit) -> dict[str, int]:
    resources = {GPU: part.cards}
    milli = part.memory_milli
    # Whole percents are exact on every card; a configured size may be larger than the card is.
    if milli is not None and (amounts.memory_mib is None or milli % 10 == 0):
        resources[MEMORY_PERCENT] = _percent(part, milli, "memory", edit)
    elif amounts.memory_mib is not None:
        # A plain count of MiB: HAMi reads 16Gi as that many MiB and drops the request.
        resources[MEMORY] = amounts.memory_mib
    if amounts.core_milli is not None:
        resources[CORES] = _percent(part, amounts.core_milli, "compute", edit)
    return resources


def _percent(part: Slice, milli: int, what: str, edit: PodEdit) -> int:
    """Rounded up, because HAMi knows whole percents only and 0 means no limit to it."""
    percent = units.ceil_div(milli, 10)
    if percent * 10 != milli:
        edit.warn(
            f"container {part.container}: {units.format_milli(milli)} of {what} is rounded up to "
            f"{percent}%, HAMi knows whole percents"
        )
    return percent


def _choose_cards(request: Request, edit: PodEdit, configured: Iterable[str]) -> None:
    """HAMi's annotations for models, cards and placement."""
    annotations = edit.annotations
    avoided = _spelt(request.not_models)
    if request.models:
        annotations[USE_TYPE] = ",".join(_spelt(request.models))
        # What is a part of a wanted name as well would keep the pod off that one.
        mistaken = _mistaken(request.models, configured)
        wanted = ",".join(request.models).casefold()
        avoided = [name for name in mistaken if name.casefold() not in wanted]
        if mistaken:
            edit.warn(
                f"HAMi looks for {','.join(request.models)} anywhere in a card's name: "
                f"{AVOID_TYPE} keeps the pod off {', '.join(avoided) or 'none'}; other names "
                "that hold it are not told apart"
            )
    elif also := _mistaken(request.not_models, configured):
        edit.warn(
            f"HAMi looks for {','.join(request.not_models)} anywhere in a card's name: the pod "
            f"stays off {', '.join(also)} too"
        )
    if avoided:
        annotations[AVOID_TYPE] = ",".join(avoided)
    if request.uuids:
        annotations[USE_UUID] = ",".join(request.uuids)
    if request.placement == "topology":
        annotations[GPU_POLICY] = "topology-aware"
    else:
        annotations[NODE_POLICY] = request.placement
        annotations[GPU_POLICY] = request.placement


def _spelt(names: Iterable[str]) -> list[str]:
    """Each name with hyphens and with spaces, which ``models.matches`` takes for one."""
    spelt = ((n, n.replace(" ", "-"), n.replace("-", " ")) for n in names)
    return list(dict.fromkeys(chain.from_iterable(spelt)))


def _mistaken(names: Collection[str], configured: Iterable[str]) -> list[str]:
    """Models that HAMi takes for one of these, because the name is a part of theirs.

    Source of the comparison: HAMi pkg/device/devices.go, CheckType.
    """
    found = {
        model
        for model in (*models.KNOWN, *configured)
        if any(name.casefold() in model.casefold() for name in _spelt(names))
        and models.allowed(model, (), names)
    }
    return sorted(found)


def _container_demand(container: Container) -> Demand:
    cards, mib, percent, cores = (
        amount_of(container.resources, name) for name in (GPU, *SHARE_RESOURCES)
    )
    if not (cards or mib or percent or cores):
        return Demand()
    cards = cards or 1  # defaultGPUNum
    percent = 0 if mib else min(percent or 100, 100)
    if not mib and not cores:
        # HAMi adds 100 to exclusive memory and leaves the rest without a limit: the rest is
        # charged as much compute as memory.
        cores = percent
    follows = mib and not cores
    return Demand(
        cards=cards,
        core_milli=min(cores, 100) * 10 * cards,
        memory_mib=mib * cards,
        open_memory_milli=percent * 10 * cards,
        open_core_mib=mib * cards if follows else 0,
        open_cards=cards if follows else 0,
    )
