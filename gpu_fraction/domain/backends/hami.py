"""HAMi: ``nvidia.com/gpu`` cards with memory and compute for each, and other vendors' devices.

Names, units and rules: HAMi pkg/device/nvidia/device.go and charts/hami/values.yaml; of other
vendors, ``gpu_fraction.domain.hami_vendors``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, cast

import msgspec

from gpu_fraction.domain import hami_devices, keys
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.hami_models import choose_models, names_in, read_models
from gpu_fraction.domain.hami_vendors import SLICES, VENDORS, WHOLE, Vendor
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, asking
from gpu_fraction.domain.request import PLACEMENTS, Placement, Request, Slice
from gpu_fraction.domain.sizes import Amounts, CardSizes
from gpu_fraction.domain.stack import NVIDIA_TAINT, About, StackSetting
from gpu_fraction.domain.traces import Traces

GPU: Final = "nvidia.com/gpu"
MEMORY: Final = "nvidia.com/gpumem"
MEMORY_PERCENT: Final = "nvidia.com/gpumem-percentage"
CORES: Final = "nvidia.com/gpucores"
SHARE_RESOURCES: Final = (MEMORY, MEMORY_PERCENT, CORES)

USE_UUID: Final = "nvidia.com/use-gpuuuid"
NODE_POLICY: Final = "hami.io/node-scheduler-policy"
GPU_POLICY: Final = "hami.io/gpu-scheduler-policy"
UNLIMITED: Final = "CUDA_DISABLE_CONTROL"
REGISTERED: Final = "hami.io/node-nvidia-register"


NVIDIA: Final = "nvidia"
AMD_GPU: Final = "amd.com/gpu"
"""The resource of AMD's own plugin too, which HAMi counts as its devices."""

_BY_NAME: Final = {vendor.name: vendor for vendor in VENDORS}
_VENDOR: Final = StackSetting(
    "hami_vendor", NVIDIA, "whose devices pods get (backend hami)", (NVIDIA, *_BY_NAME)
)


class _Card(msgspec.Struct):
    """A card as HAMi's device plugin registers it (HAMi pkg/device/devices.go, DeviceInfo)."""

    id: str = ""
    type: str = ""
    devmem: int = 0


_CARDS: Final = msgspec.json.Decoder(list[_Card])


class Hami(Backend):
    """Shares that HAMi hands out; all its amounts are for each card."""

    name = "hami"
    about = About(
        title="HAMi",
        memory="MiB or whole percents of each GPU",
        compute="whole percents of each GPU",
        cards="the same share of each",
        memory_isolation="soft",
        compute_isolation="soft",
        source="Project-HAMi/HAMi at 4707fb02 (2026-08-21), run on Kubernetes 1.37.2",
    )
    scheduler = "hami-scheduler"
    resources = (
        "nvidia.com/gpumem",
        "nvidia.com/gpucores",
        "nvidia.com/priority",
        *(name for vendor in VENDORS for name in hami_devices.names(vendor) if name != AMD_GPU),
        *WHOLE,
        *SLICES,
    )
    takes_over = frozenset({GPU, AMD_GPU})
    tolerations = (NVIDIA_TAINT,)
    settings = (_VENDOR,)
    # Its nodes offer nvidia.com/gpu alone; the scheduler's extender counts the rest.
    traces = Traces(
        resources=(),
        annotations=("hami.io/node-*register*",),
        webhooks=("vgpu.hami.io",),
        owns=(GPU, AMD_GPU),
    )
    # Its scheduler counts a pod of any vendor's devices by the node (pkg/util/types.go).
    assignments = ("hami.io/vgpu-", "hami.io/bind-")
    chooses_models = True
    chooses_uuids = True
    chooses_placement = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """Count, memory and compute of each card; never both forms of memory."""
        edit = self.start(request, pod)
        vendor = _BY_NAME.get(self.config.of(_VENDOR))
        if vendor is not None:
            return self._other_vendor(request, pod, edit, vendor)
        parts = self.parts(request, edit)
        choose_models(request, edit, self.config.card_sizes.by_model_mib, self.about.title)
        _choose_cards(request, edit)
        for part, amounts in parts:
            if request.isolation == "none":
                # HAMi's own switch: without it, HAMi enforces whatever the pod says.
                edit.env[part.container] = {UNLIMITED: "true"}
            self.give(edit, part, amounts, self._resources(part, amounts, edit))
        return edit

    def _other_vendor(self, request: Request, pod: Pod, edit: PodEdit, vendor: Vendor) -> PodEdit:
        edit.tolerations = ()
        for key, wish in (
            (keys.MODEL, request.models or request.not_models),
            (keys.UUID, request.uuids),
        ):
            if wish:
                edit.refuse(
                    key,
                    f"cannot be honoured for {vendor.name}: each vendor has HAMi annotations of "
                    "its own; use a nodeSelector on a label of the nodes",
                )
        edit.warn(f"not verified for the backend {self.name}: no pod for {vendor.name} has run")
        _place(request, edit)
        sized = self
        if vendor.card_mib:
            sized = Hami(replace(self.config, card_sizes=CardSizes(vendor.card_mib)))
        for part, amounts in sized.parts(request, edit):
            key = asking(part, pod)
            given = hami_devices.resources(edit, key, part, amounts, vendor)
            self.give(edit, part, amounts, given)
        return edit

    def _resources(self, part: Slice, amounts: Amounts, edit: PodEdit) -> dict[str, int]:
        resources = {GPU: part.cards}
        milli = part.memory_milli
        # Whole percents are exact on every card; a configured size may be larger than the card is.
        if milli is not None and (amounts.memory_mib is None or milli % 10 == 0):
            resources[MEMORY_PERCENT] = self.percent(edit, part, milli, "memory")
        elif amounts.memory_mib is not None:
            # A plain count of MiB: HAMi reads 16Gi as that many MiB and drops the request.
            resources[MEMORY] = amounts.memory_mib
        if amounts.core_milli is not None:
            resources[CORES] = self.percent(edit, part, amounts.core_milli, "compute")
        return resources

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:
        """NVIDIA's cards, and other vendors' devices."""
        return (*super().asks(container, pod), *hami_devices.asks(container, up=up))

    def ask(self, container: Container, pod: Pod) -> Slice | None:  # noqa: ARG002
        """The amounts of each of NVIDIA's cards, as HAMi reads them."""
        cards, mib, percent, cores = (
            amount_of(container.resources, name) for name in (GPU, *SHARE_RESOURCES)
        )
        if not (cards or mib or percent or cores):
            return None
        percent = min(percent or 100, 100)
        core_milli: int | None = min(cores, 100) * 10
        if not cores:
            # HAMi adds 100 to exclusive memory and leaves the rest without a limit: the rest is
            # charged as much compute as memory.
            core_milli = None if mib else percent * 10
        return asked_for(
            container,
            cards=cards,  # defaultGPUNum
            core_milli=core_milli,
            memory_mib=mib,
            memory_milli=percent * 10,
        )

    def read(self, pod: Pod) -> Request | None:
        """With the models, cards and placement of HAMi's annotations."""
        found = super().read(pod)
        if found is None:
            return None
        given = pod.annotations()
        policy = given.get(GPU_POLICY, "").replace("topology-aware", "topology")
        return replace(
            read_models(found, given),
            uuids=names_in(given.get(USE_UUID)),
            isolation="none" if _unlimited(found, pod) else found.isolation,
            placement=cast("Placement", policy) if policy in PLACEMENTS else found.placement,
        )

    def cards(self, annotations: Mapping[str, str]) -> dict[str, tuple[str, int]]:
        """The memory that HAMi takes percentages of, ``deviceMemoryScaling`` included."""
        try:
            found = _CARDS.decode(annotations.get(REGISTERED, "[]"))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return {}
        return {card.id: (card.type, card.devmem) for card in found if card.devmem > 0}


STACK = Hami


def _choose_cards(request: Request, edit: PodEdit) -> None:
    """HAMi's annotations for cards and placement."""
    annotations = edit.annotations
    if request.uuids:
        annotations[USE_UUID] = ",".join(request.uuids)
    _place(request, edit)


def _place(request: Request, edit: PodEdit) -> None:
    if request.placement == "topology":
        edit.annotations[GPU_POLICY] = "topology-aware"
    else:
        edit.annotations[NODE_POLICY] = request.placement
        edit.annotations[GPU_POLICY] = request.placement


def _unlimited(request: Request, pod: Pod) -> bool:
    """True where HAMi limits none of the containers."""
    return all(
        any(variable.name == UNLIMITED and variable.value == "true" for variable in at.env or ())
        for at in (*pod.spec.containers, *(pod.spec.init_containers or ()))
        if request.of(at.name) is not None
    )
