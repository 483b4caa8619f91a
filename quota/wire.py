"""A GPUQuota as the API server stores it (deploy/crd/gpuquotas.yaml)."""

from collections.abc import Iterator
from typing import Final

import msgspec

from gpu_fraction.domain import keys
from gpu_fraction.domain.amounts import KEYS
from gpu_fraction.kube.objects import Meta

API_VERSION: Final = f"{keys.GROUP}/v1alpha1"
KIND: Final = "GPUQuota"

READY: Final = "Ready"
AMOUNT_UNKNOWN: Final = "AmountUnknown"
"""Reason of the condition Ready where the memory of counted pods is not known."""

SET_SIZES: Final = (
    "set --gpu-memory-mib or --gpu-memory-by-model of gpu-fraction controller as for the webhook"
)
"""The remedy for an administrator."""

Quantity = str | int


class QuotaMeta(Meta, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Identity, and the version of the specification."""

    generation: int = 0


class ModelAmounts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Amounts of the GPUs of one model."""

    cores: Quantity | None = None
    memory: Quantity | None = None
    gpus: Quantity | None = None

    def quantities(self, model: str = "") -> Iterator[tuple[str, str, Quantity]]:
        """Model, kind and quantity of each amount; the model is empty for all GPUs."""
        for kind in KEYS:
            if (value := getattr(self, kind, None)) is not None:
                yield model, kind, value


class AmountsWire(ModelAmounts, frozen=True, omit_defaults=True, kw_only=True):
    """Amounts of all GPUs, and of some models besides."""

    pods: Quantity | None = None
    models: dict[str, ModelAmounts] | None = None

    def quantities(self, model: str = "") -> Iterator[tuple[str, str, Quantity]]:
        """The amounts of all GPUs, then of each model."""
        yield from super().quantities(model)
        for name, part in (self.models or {}).items():
            yield from part.quantities(name)


class PerPodWire(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"):
    """Bounds of every single pod."""

    max: ModelAmounts | None = None
    min: ModelAmounts | None = None
    default_fraction: str | None = None


class ScopeExpression(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"
):
    """One requirement on the pods that are counted."""

    scope_name: str
    operator: str
    values: list[str] | None = None


class ScopeSelector(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"):
    """All requirements on the pods that are counted."""

    match_expressions: list[ScopeExpression] | None = None


class SpecWire(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"):
    """The specification of a GPUQuota."""

    hard: AmountsWire = AmountsWire()
    per_pod: PerPodWire | None = None
    scope_selector: ScopeSelector | None = None
    enforcement: str = "Deny"


class ReservationWire(AmountsWire, frozen=True, omit_defaults=True, kw_only=True):
    """An admitted pod that the controller has not counted yet.

    Attributes:
        pod_uid: The pod's uid.
        pod_name: The pod's name.
        expires: When it ends if the pod does not appear.
        counted: Cost of another pod of that name in ``status.used``.
    """

    pod_uid: str = msgspec.field(name="podUID")
    pod_name: str = msgspec.field(name="podName", default="")
    expires: str
    counted: AmountsWire | None = None


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """metav1.Condition."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class StatusWire(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"):
    """The status; the controller writes it, and admission adds to ``reserved``.

    Attributes:
        hard: The limits that ``used`` is compared with.
        used: None until the controller has counted for the first time.
        reserved: Admitted pods that are not in ``used`` yet.
        columns: ``used/hard`` by key, for kubectl.
        summary: The columns in one line.
        conditions: Ready, Exceeded, NearLimit.
        observed_generation: The generation of the specification that was counted for.
        pods_resource_version: Resource version of the counted pods.
        claims_resource_version: The same of claims; empty where claims are not counted.
    """

    hard: AmountsWire | None = None
    used: AmountsWire | None = None
    reserved: list[ReservationWire] | None = None
    columns: dict[str, str] | None = None
    summary: str = ""
    conditions: list[Condition] | None = None
    observed_generation: int = 0
    pods_resource_version: str = ""
    claims_resource_version: str = ""


class GPUQuota(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One namespace's budget, or one of several."""

    metadata: QuotaMeta = QuotaMeta()
    spec: SpecWire = SpecWire()
    status: StatusWire = StatusWire()
