"""Pods and nodes as the API server sends them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gpu_fraction.domain import inventory, keys
from gpu_fraction.domain.placement import Ask
from scheduler.pods import Pod


def request(*asks: Ask) -> str:
    """The request annotation of these asks, in the form the webhook writes."""
    first = asks[0]
    containers = [
        {
            key: value
            for key, value in (
                ("name", ask.container),
                ("cards", ask.cards),
                ("coreMilli", ask.core_milli),
                ("memoryMib", ask.memory_mib),
                ("memoryMilli", ask.memory_milli),
            )
            if value is not None
        }
        for ask in asks
    ]
    return json.dumps(
        {
            "v": 1,
            "backend": "native",
            "containers": containers,
            "placement": first.placement,
            "isolation": first.isolation,
            "models": first.models_in,
            "notModels": first.models_out,
            "uuids": first.uuids,
        }
    )


def manifest(
    name: str,
    *asks: Ask,
    uid: str = "",
    priority: int = 0,
    node: str = "",
    assigned: str = "",
    nominated: str = "",
    phase: str = "Pending",
    deleting: bool = False,
    cpu: str = "",
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A pod whose containers ask by annotation and by resources, as after the webhook."""
    annotations = {keys.REQUEST: request(*asks)} if asks else {}
    if assigned:
        annotations[keys.ASSIGNED] = assigned
    containers = []
    for ask in asks or (None,):
        amounts = {"cpu": cpu} if cpu else {}
        if ask is not None:
            amounts[keys.SLOT] = "1"
            if ask.core_milli is not None:
                amounts[keys.CORE_MILLI] = str(ask.core_milli * ask.cards)
            if ask.memory_mib is not None:
                amounts[keys.MEMORY_MIB] = str(ask.memory_mib * ask.cards)
        resources = {"requests": amounts, "limits": amounts}
        containers.append(
            {"name": ask.container if ask else "main", "image": "x", "resources": resources}
        )
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "team",
        "uid": uid or f"uid-{name}",
        "resourceVersion": "1",
        "annotations": annotations,
    }
    if deleting:
        metadata["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "spec": {
            "containers": containers,
            "priority": priority,
            **({"schedulerName": keys.SCHEDULER} if asks else {}),
            **({"nodeName": node} if node else {}),
            **(spec or {}),
        },
        "status": {"phase": phase, **({"nominatedNodeName": nominated} if nominated else {})},
    }


def pod(name: str, *asks: Ask, **fields: Any) -> Pod:
    """The same, decoded."""
    return msgspec.convert(manifest(name, *asks, **fields), Pod)


def inventory_of(cards: Iterable[inventory.Card]) -> str:
    """The node daemon's annotation."""
    return inventory.render(inventory.Inventory(cards=tuple(cards)))
