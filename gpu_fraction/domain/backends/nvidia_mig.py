"""MIG instances from NVIDIA's device plugin, strategies ``mixed`` and ``single``.

Source: NVIDIA/k8s-device-plugin README, api/config/v1/resources.go and internal/lm/resource.go at
1b826acc (2026-08-19): the product label of a node whose cards are all divided alike ends in
``-MIG-`` and the profile. The profiles are in ``gpu_fraction.domain.mig``.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from gpu_fraction.domain import keys, mig, mig_choice, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, Pod
from gpu_fraction.domain.pod_amounts import amount_of, asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import NVIDIA_PRODUCT, NVIDIA_TAINT, About, StackSetting, flag
from gpu_fraction.domain.traces import Traces

GPU: Final = "nvidia.com/gpu"
PREFIX: Final = "nvidia.com/mig-"
_INFIX: Final = "-MIG-"
_SHARED: Final = "-SHARED"
"""Ends the product label where instances have replicas; each counts as an instance."""

_MODEL: Final = StackSetting(
    "nvidia_mig_model",
    "",
    "GPU model of the nodes with MIG, or its product label (backend nvidia-mig)",
    charged=True,
)
_STRATEGY: Final = StackSetting(
    "nvidia_mig_strategy",
    "mixed",
    "the nodes' MIG strategy (backend nvidia-mig)",
    ("mixed", "single"),
)


class NvidiaMig(Backend):
    """The smallest instance that holds a share."""

    name = "nvidia-mig"
    about = About(
        title="NVIDIA device plugin, MIG",
        memory="the smallest MIG profile that holds it",
        compute="the smallest MIG profile that holds it",
        cards="a count of instances, which can be of one GPU",
        memory_isolation="hard",
        compute_isolation="hard",
        source="NVIDIA MIG User Guide r610; NVIDIA/k8s-device-plugin at 1b826acc (2026-08-19)",
    )
    resources = (PREFIX,)
    # With the strategy single, nodes offer instances by the name of whole cards.
    traces = Traces(labels=("nvidia.com/gpu.product=*-MIG-*",), owns=("nvidia.com/gpu",))
    takes_over = frozenset({GPU})
    tolerations = (NVIDIA_TAINT,)
    settings = (_MODEL, _STRATEGY)
    charged_by = frozenset({NVIDIA_PRODUCT})
    chooses_models = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """A count of instances; the product label where the strategy or a model needs it."""
        edit = self.start(request, pod)
        product, model = self._model(edit, request)
        single = self.config.of(_STRATEGY) == "single"
        labels = set()
        for part in request.slices:
            if model is None:
                break
            profile, told = mig_choice.instance(edit, asking(part, pod), part, model)
            if profile is None:
                continue
            labels.add(f"{product}{_INFIX}{profile.name}" if single else product)
            self.give(edit, part, told, {GPU if single else PREFIX + profile.name: part.cards})
        if len(labels) > 1:
            edit.refuse(
                keys.CONTAINER_PREFIX + request.slices[-1].container,
                "needs another MIG profile than the containers before it, and with the strategy "
                "single a node has one; allowed: equal shares, or one container with a GPU",
            )
        if label := next(iter(labels), ""):
            edit.node_selector[NVIDIA_PRODUCT] = label
        return edit

    def _model(self, edit: PodEdit, request: Request) -> tuple[str, mig.Model | None]:
        """The product label to select, empty where none is needed, and the model."""
        configured = self.config.of(_MODEL)
        wished = request.models[0] if len(request.models) == 1 else ""
        if request.not_models or len(request.models) > 1:
            edit.refuse(
                keys.MODEL,
                "cannot be honoured: MIG profiles depend on the GPU model; allowed: one model",
            )
            return "", None
        model = mig_choice.the_model(edit, wished or configured, flag(_MODEL))
        if model is None:
            return "", None
        product = next((text for text in (wished, configured) if _is_product(text)), "")
        if wished and not _is_product(wished) and [model] != mig.find(configured):
            edit.refuse(
                keys.MODEL,
                f"{wished} cannot be chosen: a node is selected by its label {NVIDIA_PRODUCT}; "
                "allowed: the label's value, such as NVIDIA-H100-80GB-HBM3"
                + (f", or {configured} ({flag(_MODEL)})" if configured else ""),
            )
        elif not product and self.config.of(_STRATEGY) == "single":
            edit.refuse(
                keys.MODEL,
                "is needed as a product label, because the strategy single shows in the label "
                f"{NVIDIA_PRODUCT}; allowed: its value before {_INFIX}, here or in {flag(_MODEL)}",
            )
        return product if wished or self.config.of(_STRATEGY) == "single" else "", model

    def claims(self, pod: Pod, gpus: Collection[str]) -> bool:
        """True for instances by name, and for pods that select nodes divided alike."""
        return super().claims(pod, gpus) or bool(_single(pod))

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:
        """Each kind of instance by its profile."""
        product = _product(pod).partition(_INFIX)[0]
        among = mig.find(product or self.config.of(_MODEL))
        found = {
            name.removeprefix(PREFIX): amount_of(container.resources, name)
            for name in container.resource_names()
            if name.startswith(PREFIX)
        }
        parts = [
            mig_choice.charge(container, count, profile, among, up=up)
            for profile, count in found.items()
            if count
        ]
        if cards := amount_of(container.resources, GPU):
            parts.append(mig_choice.charge(container, cards, _single(pod), among, up=up))
        return parts

    def read(self, pod: Pod) -> Request | None:
        """With the model that the pod selects."""
        found = super().read(pod)
        product = _product(pod).partition(_INFIX)[0]
        return replace(found, models=(product,)) if found and product else found


STACK = NvidiaMig


def _is_product(text: str) -> bool:
    return text.startswith("NVIDIA-")


def _single(pod: Pod) -> str:
    """The profile of the nodes that a pod selects by their product; empty for none."""
    return _product(pod).partition(_INFIX)[2].removesuffix(_SHARED)


def _product(pod: Pod) -> str:
    """The product of the nodes that a pod selects; empty for none, and for what no label holds."""
    product = (pod.spec.node_selector or {}).get(NVIDIA_PRODUCT, "")
    return product if len(product) <= units.MAX_LABEL_CHARS else ""
