"""The cluster's GPUs, and the ones that a pod has or may get."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from gpu_fraction.domain import inventory, keys, models
from gpu_fraction.domain.backends import BackendConfig, configured
from gpu_fraction.kube.objects import Meta
from gpu_fraction.quota.charge import CardType, PodFacts
from gpu_fraction.quota.pods import PodRecord, assigned_uuids

# Labels of NVIDIA's GPU feature discovery (NVIDIA/k8s-device-plugin docs/gpu-feature-discovery).
NVIDIA_MODEL: Final = "nvidia.com/gpu.product"
NVIDIA_MEMORY_MIB: Final = "nvidia.com/gpu.memory"


class NodeMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """A node's identity, labels and annotations."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a Node that are read."""

    metadata: NodeMeta = NodeMeta()


class ClusterCards:
    """The cluster's GPUs as the Nodes publish them, else as configured.

    Attributes:
        version: Grows with every change of the answers.
        stacks: Every GPU-sharing stack with the settings that costs depend on.
    """

    def __init__(self, costs: BackendConfig | None = None) -> None:
        """No Nodes yet.

        Args:
            costs: The configured GPUs, and the stacks' own settings.
        """
        costs = costs or BackendConfig()
        sizes = costs.card_sizes
        self.stacks = configured(costs)
        self._configured = [CardType(model, mib) for model, mib in sizes.by_model_mib.items()]
        self._others = () if sizes.one_mib is None else (CardType("", sizes.one_mib),)
        self._nodes: dict[str, Mapping[str, CardType]] = {}
        self._kinds: Counter[CardType] = Counter()
        self.version = 0

    def change(self, old: NodeRecord | None, new: NodeRecord | None) -> None:
        """A node appeared, changed or vanished."""
        before = self._nodes.pop(old.metadata.name, {}) if old else {}
        after = self._cards(new) if new else {}
        if new and after:
            self._nodes[new.metadata.name] = after
        if dict(before) == dict(after):
            return
        self._kinds.subtract(before.values())
        self._kinds.update(after.values())
        self._kinds = +self._kinds
        self.version += 1

    def cards_for(self, pod: PodRecord, facts: PodFacts) -> tuple[CardType, ...]:
        """The pod's assigned cards, else the kinds of its node, else every allowed kind."""
        node = self._nodes.get(pod.spec.node_name) if pod.spec.node_name else None
        if node is not None:
            chosen = {node[uuid] for uuid in assigned_uuids(pod) if uuid in node}
            # Another stack's scheduler may match a longer model name than the wanted one.
            given = chosen or _allowed(node.values(), facts) or node.values()
            return tuple(dict.fromkeys(given))
        return self.eligible(facts)

    def eligible(self, facts: PodFacts) -> tuple[CardType, ...]:
        """Every allowed kind."""
        found = _allowed(self._kinds, facts)
        return found or (*_allowed(self._configured, facts), *self._others)

    def _cards(self, node: NodeRecord) -> dict[str, CardType]:
        """The node's cards by uuid; where only labels describe them, one card stands for all."""
        annotations, labels = node.metadata.annotations or {}, node.metadata.labels or {}
        if (text := annotations.get(keys.INVENTORY)) is not None:
            try:
                found = inventory.parse(text).cards
            except inventory.InventoryError:
                found = ()
            if found:
                # A share of a MIG instance is one of its physical card.
                sizes = ((card, card.parent_memory_mib or card.memory_mib) for card in found)
                return {card.uuid: CardType(card.model, mib) for card, mib in sizes if mib}
        for stack in self.stacks.values():
            if registered := stack.cards(annotations):
                return {uuid: CardType(*card) for uuid, card in registered.items()}
        for model, memory in (
            (keys.LABEL_MODEL, keys.LABEL_MEMORY_MIB),
            (NVIDIA_MODEL, NVIDIA_MEMORY_MIB),
        ):
            size = labels.get(memory, "")
            if size.isascii() and size.isdigit() and len(size) < 12 and int(size):
                return {"": CardType(labels.get(model, ""), int(size))}
        return {}


def _allowed(kinds: Iterable[CardType], facts: PodFacts) -> tuple[CardType, ...]:
    return tuple(
        kind
        for kind in dict.fromkeys(kinds)
        if models.allowed(kind.model, facts.models, facts.not_models)
    )
