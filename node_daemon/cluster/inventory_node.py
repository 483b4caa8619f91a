"""The inventory on the Node object, and the patches that bring it there.

Pure: the composition reads the Node and sends the patches. Both are JSON merge patches
(RFC 7386) with our keys alone, so that no other key changes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain import inventory as wire
from gpu_fraction.domain import keys, units
from gpu_fraction.domain.inventory import Card, Inventory

LABELS: Final = (
    keys.LABEL_MODEL,
    keys.LABEL_COUNT,
    keys.LABEL_MEMORY_MIB,
    keys.LABEL_ISOLATION,
    keys.LABEL_SIMULATED,
)
MIXED: Final = "mixed"
"""Label value where the node's cards differ."""

# Source: metav1 label values, k8s.io/apimachinery/pkg/util/validation.
_LABEL_LENGTH: Final = 63
_GIB: Final = 1024
_NOT_IN_LABELS: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class NodeFields:
    """The parts of a Node that are ours or may be."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    capacity: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodePatches:
    """Merge patches for the Node and its ``status`` subresource; None where nothing differs."""

    node: dict[str, object] | None
    status: dict[str, object] | None


def desired(inventory: Inventory, *, offers: bool = True) -> NodeFields:
    """The fields of the Node for this inventory.

    Sick cards count in the labels, which describe the machine, and not in the capacity, which
    the scheduler hands out. Without ``offers`` no card counts there.
    """
    healthy = [card for card in inventory.cards if card.healthy and offers]
    return NodeFields(
        labels=_labels(inventory.cards) | _simulated(inventory),
        annotations={keys.INVENTORY: wire.render(inventory)},
        capacity={
            keys.CORE_MILLI: str(sum(card.core_milli for card in healthy)),
            keys.MEMORY_MIB: str(sum(_sold_as_mib(card) for card in healthy)),
        },
    )


def diff(seen: NodeFields, wanted: NodeFields) -> NodePatches:
    """The patches that bring the Node from ``seen`` to ``wanted``."""
    labels: dict[str, str | None] = _changed(seen.labels, wanted.labels)
    for stale in LABELS:
        if stale in seen.labels and stale not in wanted.labels:
            labels[stale] = None
    annotations = _changed(seen.annotations, wanted.annotations)
    metadata: dict[str, object] = {}
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    capacity = {
        name: amount
        for name, amount in wanted.capacity.items()
        if not _holds(seen.capacity.get(name, ""), int(amount))
    }
    return NodePatches(
        node={"metadata": metadata} if metadata else None,
        status={"status": {"capacity": capacity}} if capacity else None,
    )


def _sold_as_mib(card: Card) -> int:
    """The card's memory, rounded up to the next size under which cards are sold.

    A share may be counted by that size, and scheduler and kubelet must not refuse it: 24 GiB where
    NVML reports 23034 MiB (L4), 80 GiB where it reports 81559. From 8 GiB on, sizes are multiples
    of 8 GiB; below, whole GiB. Cards are chosen by NVML's size.
    Source of the sizes: NVIDIA's data sheets (T4 16, L4 and A10 24, L40S 48, H100 80, H200 141).
    """
    step_mib = 8 * _GIB if card.memory_mib >= 8 * _GIB else _GIB
    return units.ceil_div(card.memory_mib, step_mib) * step_mib


def _changed(seen: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    return {key: value for key, value in wanted.items() if seen.get(key) != value}


def _holds(quantity: str, amount: int) -> bool:
    """Whether the API server has that amount; it writes 8000 back as ``8k``."""
    try:
        return units.parse_quantity(quantity) == amount
    except units.UnitError:
        return False


def _labels(cards: tuple[Card, ...]) -> dict[str, str]:
    labels = {keys.LABEL_COUNT: str(len(cards))}
    if cards:
        labels[keys.LABEL_MODEL] = _common(cards, lambda card: _label(card.model))
        labels[keys.LABEL_MEMORY_MIB] = str(min(card.memory_mib for card in cards))
        labels[keys.LABEL_ISOLATION] = _common(cards, lambda card: card.isolation)
    return labels


def _simulated(inventory: Inventory) -> dict[str, str]:
    return {keys.LABEL_SIMULATED: "true"} if inventory.simulated else {}


def _common(cards: tuple[Card, ...], value: Callable[[Card], str]) -> str:
    values = {value(card) for card in cards}
    return values.pop() if len(values) == 1 else MIXED


def _label(model: str) -> str:
    """``NVIDIA H100 80GB HBM3`` as a label value; what labels may not hold becomes a dash."""
    return _NOT_IN_LABELS.sub("-", model)[:_LABEL_LENGTH].strip("-._")
