"""What the demo shows of its cluster, read from the objects of the API server."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpu_fraction.domain import assignment, inventory, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.kube.resources import GPU_QUOTAS, NODES, PODS
from gpu_fraction.sandbox.apiserver.storage import Storage
from gpu_fraction.sandbox.controlplane.following import objects


@dataclass(frozen=True, slots=True)
class Held:
    """A share of a card.

    Attributes:
        namespace: Of the pod.
        pod: Its name.
        core_milli: Compute, thousandths of a card.
        phase: Of the pod.
    """

    namespace: str
    pod: str
    core_milli: int
    phase: str


@dataclass(frozen=True, slots=True)
class CardRow:
    """A card of a node and who has it."""

    node: str
    index: int
    uuid: str
    model: str
    reason: str
    held: tuple[Held, ...]

    @property
    def used_milli(self) -> int:
        """Compute that is given away, thousandths of the card."""
        return sum(one.core_milli for one in self.held)


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """A GPUQuota: amounts as ``used/hard`` by key."""

    namespace: str
    name: str
    columns: dict[str, str]


def cards(storage: Storage) -> list[CardRow]:
    """The cards of all nodes."""
    held: dict[str, list[Held]] = {}
    for pod in objects(storage, PODS):
        for share in _shares(pod):
            meta = pod["metadata"]
            one = Held(
                meta["namespace"], meta["name"], share.core_milli, pod["status"].get("phase", "")
            )
            held.setdefault(share.uuid, []).append(one)
    rows = []
    for node in objects(storage, NODES):
        notes = node["metadata"].get("annotations") or {}
        if keys.INVENTORY in notes:
            rows += [
                CardRow(
                    node["metadata"]["name"],
                    card.index,
                    card.uuid,
                    card.model,
                    "" if card.healthy else card.health_reason or "sick",
                    tuple(held.get(card.uuid, ())),
                )
                for card in inventory.parse(notes[keys.INVENTORY]).cards
            ]
    return rows


def quotas(storage: Storage) -> list[QuotaRow]:
    """The GPUQuotas, as their controller has counted them."""
    return [
        QuotaRow(
            one["metadata"]["namespace"],
            one["metadata"]["name"],
            (one.get("status") or {}).get("columns") or {},
        )
        for one in objects(storage, GPU_QUOTAS)
    ]


def _shares(pod: dict[str, Any]) -> Iterator[CardShare]:
    assigned = (pod["metadata"].get("annotations") or {}).get(keys.ASSIGNED)
    if assigned is None or pod["status"].get("phase") in {"Succeeded", "Failed"}:
        return
    for shares in assignment.parse(assigned).values():
        yield from shares
