"""NVIDIA's driver for dynamic resource allocation, by extended resources of its device classes.

The scheduler turns ``deviceclass.resource.kubernetes.io/CLASS: N`` into a claim of N devices of
the class (KEP-5004, beta and on by default since 1.36, stable in 1.37). Source: Kubernetes 1.37
pkg/scheduler/framework/plugins/dynamicresources/extendeddynamicresources.go; driver
kubernetes-sigs/dra-driver-nvidia-gpu v0.5.0 (2026-08), whose ``--consumable-shares=N`` (PR #1257,
alpha) lets N claims use a card, one share each by default. The classes of MIG profiles are in
deploy/dra/nvidia-mig-classes.yaml.
"""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.domain import keys, mig, mig_choice
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.equal_parts import EqualParts
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import amount_of, asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import NVIDIA_TAINT, About, StackSetting, flag
from gpu_fraction.domain.traces import Traces

CLASS: Final = "deviceclass.resource.kubernetes.io/"
GPU: Final = f"{CLASS}gpu.nvidia.com"
MIG: Final = f"{CLASS}mig-"
ANY_MIG: Final = f"{CLASS}mig.nvidia.com"
VFIO: Final = f"{CLASS}vfio.gpu.nvidia.com"
"""Whole cards for virtual machines; charged, never written."""
_DOMAIN: Final = ".nvidia.com"

_MODE: Final = StackSetting(
    "nvidia_dra_mode",
    "whole",
    "what pods get: whole GPUs, MIG instances, or the driver's consumable shares "
    "(backend nvidia-dra)",
    ("whole", "mig", "shares"),
    charged=True,
)
_MODEL: Final = StackSetting(
    "nvidia_dra_mig_model",
    "",
    "GPU model of the nodes with MIG (backend nvidia-dra)",
    charged=True,
)
_SHARES: Final = StackSetting(
    "nvidia_dra_shares",
    0,
    "the driver's --consumable-shares (backend nvidia-dra)",
    range(1, 1001),
    charged=True,
)


class NvidiaDra(Backend):
    """Whole cards, MIG instances or shares, as the setting says."""

    name = "nvidia-dra"
    about = About(
        title="NVIDIA DRA driver",
        memory="whole GPUs, the smallest MIG profile, or one of N equal shares",
        compute="whole GPUs, the smallest MIG profile, or one of N equal shares",
        cards="a count; MIG instances can be of one GPU",
        memory_isolation="some nodes",
        compute_isolation="some nodes",
        source="kubernetes-sigs/dra-driver-nvidia-gpu v0.5.0 (2026-08); Kubernetes 1.37",
        unverified=("no pod has run with the driver; it needs Kubernetes 1.36 or newer",),
    )
    resources = (GPU, MIG, ANY_MIG, VFIO)
    traces = Traces(resources=(), drivers=("gpu.nvidia.com",))
    tolerations = (NVIDIA_TAINT,)
    settings = (_MODE, _MODEL, _SHARES)

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """A count of devices of one class."""
        edit = self.start(request, pod)
        mode = self.config.of(_MODE)
        if mode == "shares" and request.isolation == "required":
            edit.refuse(
                keys.ISOLATION,
                '"required" cannot be honoured: the driver does not enforce shares; '
                "allowed: preferred, none",
            )
        if mode == "mig":
            self._instances(request, pod, edit)
            return edit
        warnings = edit.warnings
        parts = self.parts(request, edit)
        if mode == "whole":
            edit.warnings = warnings  # a whole card's memory is all of it, whatever its size
        for part, amounts in parts:
            resources = {GPU: part.cards}
            if mode == "whole":
                self.needs_whole(edit, part, pod)
            else:
                eligible = self.config.card_sizes.eligible_mib(request)
                resources = self._shares.take(edit, asking(part, pod), part, eligible)
            self.give(edit, part, amounts, resources)
        return edit

    def _instances(self, request: Request, pod: Pod, edit: PodEdit) -> None:
        model = mig_choice.the_model(edit, self.config.of(_MODEL), flag(_MODEL))
        for part in request.slices:
            if model is None:
                break
            profile, told = mig_choice.instance(edit, asking(part, pod), part, model)
            if profile is not None:
                self.give(edit, part, told, {f"{MIG}{profile.name}{_DOMAIN}": part.cards})

    @property
    def _shares(self) -> EqualParts:
        whole = f"{flag(_MODE)} whole in a cluster without shares"
        # In the other modes a device of the class is a card.
        count = self.config.of(_SHARES) if self.config.of(_MODE) == "shares" else 1
        return EqualParts(GPU, count, flag(_SHARES), "cards", whole)

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:  # noqa: ARG002
        """Cards or shares, and each kind of instance; others as whole cards."""
        shares = self._shares.ask(container, up=up)
        parts = [] if shares is None else [shares]
        among = mig.find(self.config.of(_MODEL))
        for name in container.resource_names():
            count = amount_of(container.resources, name)
            if count and name.startswith((MIG, ANY_MIG, VFIO)):
                profile = name.removeprefix(MIG).removesuffix(_DOMAIN)
                parts.append(mig_choice.charge(container, count, profile, among, up=up))
        return parts


STACK = NvidiaDra
