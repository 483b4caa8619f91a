"""HAMi: ``nvidia.com/gpu`` cards, with memory and compute for each of them.

Names, units and rules: HAMi pkg/device/nvidia/device.go and charts/hami/values.yaml.
"""

from dataclasses import dataclass, field
from typing import Final

from gpu_fraction.domain import units
from gpu_fraction.domain.backends.base import BackendConfig, Draft, amount_of, settled
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.request import Refused, Request, Slice
from gpu_fraction.domain.sizes import Amounts
from gpu_fraction.domain.tally import Demand, aggregate

GPU: Final = "nvidia.com/gpu"
MEMORY: Final = "nvidia.com/gpumem"
MEMORY_PERCENT: Final = "nvidia.com/gpumem-percentage"
CORES: Final = "nvidia.com/gpucores"
SHARE_RESOURCES: Final = (MEMORY, MEMORY_PERCENT, CORES)

SCHEDULER: Final = "hami-scheduler"
USE_TYPE: Final = "nvidia.com/use-gputype"
AVOID_TYPE: Final = "nvidia.com/nouse-gputype"
USE_UUID: Final = "nvidia.com/use-gpuuuid"
NODE_POLICY: Final = "hami.io/node-scheduler-policy"
GPU_POLICY: Final = "hami.io/gpu-scheduler-policy"

__all__ = ["GPU", "SHARE_RESOURCES", "Hami"]


@dataclass(frozen=True, slots=True)
class Hami:
    """Shares that HAMi hands out; all its amounts are for each card."""

    config: BackendConfig = field(default_factory=BackendConfig)
    name: str = "hami"

    def render(self, request: Request, pod: Pod) -> PodEdit:  # noqa: ARG002 - the Protocol's
        """Count, memory and compute of each card; never both forms of memory."""
        draft = Draft(self.config)
        parts, problems = settled(self.config, request, draft)
        if problems:
            raise Refused(problems)
        draft.annotations.update(_annotations(request))
        for part, amounts in parts:
            if request.isolation == "none":
                # HAMi's own switch: without it, HAMi enforces whatever the pod says.
                draft.env[part.container] = {"CUDA_DISABLE_CONTROL": "true"}
            draft.add(part, amounts, _resources(part, amounts, draft))
        return draft.finish(self.name, request, scheduler=SCHEDULER)

    def demand(self, pod: Pod) -> Demand:
        """Count times the amounts of each card, as HAMi reads them."""
        return aggregate(pod, _container_demand)


def _resources(part: Slice, amounts: Amounts, draft: Draft) -> dict[str, int]:
    resources = {GPU: part.cards}
    milli = part.memory_milli
    # Whole percents are exact on every card; a configured size may be larger than the card is.
    if milli is not None and (amounts.memory_mib is None or milli % 10 == 0):
        resources[MEMORY_PERCENT] = _percent(part, milli, "memory", draft)
    elif amounts.memory_mib is not None:
        # A plain count of MiB: HAMi reads 16Gi as that many MiB and drops the request.
        resources[MEMORY] = amounts.memory_mib
    if amounts.core_milli is not None:
        resources[CORES] = _percent(part, amounts.core_milli, "compute", draft)
    return resources


def _percent(part: Slice, milli: int, what: str, draft: Draft) -> int:
    """Rounded up, because HAMi knows whole percents only and 0 means no limit to it."""
    percent = units.ceil_div(milli, 10)
    if percent * 10 != milli:
        draft.warnings.append(
            f"container {part.container}: {units.format_milli(milli)} of {what} is rounded up to "
            f"{percent}%, HAMi knows whole percents"
        )
    return percent


def _annotations(request: Request) -> dict[str, str]:
    annotations = {}
    if request.models:
        annotations[USE_TYPE] = ",".join(request.models)
    if request.not_models:
        annotations[AVOID_TYPE] = ",".join(request.not_models)
    if request.uuids:
        annotations[USE_UUID] = ",".join(request.uuids)
    if request.placement == "topology":
        annotations[GPU_POLICY] = "topology-aware"
    else:
        annotations[NODE_POLICY] = request.placement
        annotations[GPU_POLICY] = request.placement
    return annotations


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
