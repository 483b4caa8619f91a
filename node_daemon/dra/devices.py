"""The cards as ResourceSlices: pure functions on plain JSON.

Generated types would drop fields that are newer than they are, and a lost
``allowMultipleAllocations`` gives each share a whole card.
Source: resource.k8s.io/v1, ResourceSlice; Kubernetes KEP-5075 (consumable capacity).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gpu_fraction.domain import dra
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.domain.units import UnitError, parse_quantity
from gpu_fraction.kube.resources import RESOURCE_SLICES

MAX_DEVICES: Final = 64
"""Devices of a slice in which one has taints. Source: resource/v1,
ResourceSliceMaxDevicesWithAdvancedFeatures."""

NAME_LENGTH: Final = 253
"""Source: apimachinery, DNS1123SubdomainMaxLength."""

TEXT_LENGTH: Final = 64
"""Source: resource/v1, DeviceAttributeMaxValueLength."""

GATES: Final = {
    "allowMultipleAllocations": "DRAConsumableCapacity",
    "requestPolicy": "DRAConsumableCapacity",
    "taints": "DRADeviceTaints",
}
"""Fields that a server drops, and the feature gate of each; both are on from Kubernetes 1.36."""

Json = dict[str, Any]

_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9-]+")


def device_name(card: Card) -> str:
    """The card as a device; it names the same card for good, as an index would not."""
    return _NOT_IN_NAMES.sub("-", card.uuid.lower())[:63].strip("-")


def devices(inventory: Inventory, *, taints: bool = True) -> list[Json]:
    """A device for each card with a size, in the order in which they are filled.

    Args:
        inventory: The cards.
        taints: Whether the server keeps taints; without, a sick card is left out.
    """
    sized = [card for card in inventory.cards if card.memory_mib and card.core_milli]
    simulated = {dra.SIMULATED: {"bool": inventory.simulated}}
    return [_device(card, simulated) for card in sized if card.healthy or taints]


def _device(card: Card, simulated: Json) -> Json:
    device: Json = {"name": device_name(card), "attributes": _attributes(card) | simulated}
    if card.parent:
        # An instance serves one claim, so its capacities only say which claims it is enough for.
        whole_mib = card.parent_memory_mib or card.memory_mib
        ppm = dra.CARD_MEMORY_PPM * card.memory_mib // whole_mib
        capacity = {dra.CORES: _amount(card.core_milli), dra.MEMORY_PPM: _amount(ppm)}
    else:
        device["allowMultipleAllocations"] = True
        capacity = {
            # 0 is a share whose compute is not limited.
            dra.CORES: _shared(dra.CARD_CORES, dra.CARD_CORES, least=0),
            dra.MEMORY_PPM: _shared(dra.CARD_MEMORY_PPM, dra.CARD_MEMORY_PPM, least=1),
            dra.SLOTS: _shared(card.slots, 1, least=1),
        }
    device["capacity"] = capacity
    if not card.healthy:
        device["taints"] = [{"key": dra.UNHEALTHY, "effect": "NoSchedule"}]
    return device


def _attributes(card: Card) -> Json:
    texts = {
        dra.MODEL: card.model or "unknown",
        dra.UUID: card.uuid,
        dra.ISOLATION: card.isolation,
    }
    truths = {
        dra.ENFORCES_MEMORY: card.enforces_memory,
        dra.ENFORCES_COMPUTE: card.enforces_compute,
        dra.MIG: bool(card.parent),
    }
    return {
        **{name: {"string": text[:TEXT_LENGTH]} for name, text in texts.items()},
        **{name: {"bool": truth} for name, truth in truths.items()},
        dra.MEMORY_MIB: {"int": card.memory_mib},
    }


def _amount(value: int) -> Json:
    return {"value": str(value)}


def _shared(value: int, default: int, *, least: int) -> Json:
    """A capacity that shares consume, in whole units."""
    allowed: Json = {"validRange": {"min": str(least), "max": str(value), "step": "1"}}
    if least == value:  # a range must have room for a step
        allowed = {"validValues": [str(value)]}
    return _amount(value) | {"requestPolicy": {"default": str(default), **allowed}}


def slices(node: str, node_uid: str, generation: int, cards: Sequence[Json]) -> Iterator[Json]:
    """The slices of a node's pool, which belong to the Node and go with it."""
    chunks = [cards[at : at + MAX_DEVICES] for at in range(0, len(cards), MAX_DEVICES)]
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": True}
    pool = {"name": node, "generation": generation, "resourceSliceCount": len(chunks)}
    for index, chunk in enumerate(chunks):
        yield {
            "apiVersion": RESOURCE_SLICES.api_version,
            "kind": RESOURCE_SLICES.kind,
            "metadata": {"name": _slice_name(node, index), "ownerReferences": [owner]},
            "spec": {"driver": dra.DRIVER, "nodeName": node, "pool": pool, "devices": chunk},
        }


def _slice_name(node: str, index: int) -> str:
    name = f"{node}-{dra.DRIVER}-{index}"
    if len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(node.encode()).hexdigest()[:16]
    return f"{node[:200].rstrip('-.')}-{digest}-{dra.DRIVER}-{index}"


def dropped(sent: Any, got: Any, path: str = "") -> set[str]:
    """The names of the fields that were sent and have not come back with the same value."""
    if isinstance(sent, Mapping):
        there = got if isinstance(got, Mapping) else {}
        lost = {key for key in sent if key not in there}
        return lost.union(*(dropped(sent[key], there[key], key) for key in sent.keys() - lost))
    if isinstance(sent, list):
        if not isinstance(got, list) or len(got) != len(sent):
            return {path}
        return set().union(*(dropped(s, g, path) for s, g in zip(sent, got, strict=True)))
    return set() if _equal(sent, got) else {path}


def _equal(sent: Any, got: Any) -> bool:
    """By value: the server writes 1000 back as ``1k``."""
    if sent == got or not isinstance(sent, str) or not isinstance(got, str):
        return bool(sent == got)
    try:
        return parse_quantity(sent) == parse_quantity(got)
    except UnitError:
        return False


def lasting(spec: Any) -> Any:
    """The specification without the times that the server sets."""
    if isinstance(spec, Mapping):
        return {key: lasting(value) for key, value in spec.items() if key != "timeAdded"}
    return [lasting(item) for item in spec] if isinstance(spec, list) else spec
