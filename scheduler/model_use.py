"""How much of each GPU model the pods of a namespace hold, and what others wait for.

Kept up to date as claims and pods come and go, so that a question about one namespace looks
at its models and not at its pods. No method does I/O or reads a clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gpu_fraction.domain.assignment import Assignment, CardShare
from gpu_fraction.domain.placement import Ask, CardState
from gpu_fraction.scheduler.claims import Claim
from gpu_fraction.scheduler.views import PodView

Counts = Callable[[str], bool]
"""Whether pods of a priority class are counted; empty for pods of none."""

UNKNOWN: Final = ""
"""The model of a card whose node was never seen: it may be any."""


class Amounts(NamedTuple):
    """Parts of cards, under the names that a GPUQuota has for them.

    Attributes:
        cores: Thousandths of a GPU's compute.
        memory: MiB.
        gpus: Cards, each container's counted.
    """

    cores: int
    memory: int
    gpus: int

    def plus(self, other: "Amounts", times: int = 1) -> "Amounts":
        """The sum of this and so many times the other."""
        return Amounts(*(a + times * b for a, b in zip(self, other, strict=True)))

    def most(self, other: "Amounts") -> "Amounts":
        """The larger of the two in each."""
        return Amounts(*map(max, self, other))


NOTHING: Final = Amounts(0, 0, 0)

_Group = tuple[str, str]
"""Namespace and priority class."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one claim was counted as; small, because there is one for each pod with cards.

    Attributes:
        node: The claim's.
        namespace: The claim's.
        priority_class: The claim's.
        assignment: What was counted.
        models: The model of each share, in the assignment's order.
    """

    node: str
    namespace: str
    priority_class: str
    assignment: Assignment
    models: tuple[str, ...]

    def by_card(self) -> dict[str, str]:
        """Model by card."""
        return {share.uuid: m for share, m in zip(self._shares(), self.models, strict=True)}

    def by_model(self) -> Iterator[tuple[str, Amounts]]:
        """Model and amounts of each share."""
        for share, model in zip(self._shares(), self.models, strict=True):
            yield model, Amounts(share.core_milli, share.memory_mib, 1)

    def _shares(self) -> Iterator[CardShare]:
        return (share for shares in self.assignment.values() for share in shares)


class ModelUse:
    """Cards in use by namespace, priority class and model; it listens to ``Claims``."""

    def __init__(self) -> None:
        """Nothing is in use."""
        self._models: dict[str, dict[str, str]] = {}
        self._entries: dict[str, tuple[_Entry, ...]] = {}
        self._placed: dict[str, dict[str, dict[str, Amounts]]] = {}
        self._waiting: dict[str, PodView] = {}
        self._wished: dict[str, tuple[_Group, tuple[Ask, ...]]] = {}
        self._wishes: dict[str, Counter[tuple[str, tuple[Ask, ...]]]] = {}
        self._wished_at: dict[str, int] = {}
        self._changes = 0

    # What happens

    def node_changed(self, node: str, cards: Sequence[CardState], claims: Iterable[Claim]) -> None:
        """Learn the models of a node's cards.

        Args:
            node: The node.
            cards: Its cards; none leaves what its claims were counted for, because the cards
                of a node that is gone, or unreadable, are still held.
            claims: The claims on the node.
        """
        models = {card.uuid: card.kind.model for card in cards}
        if models == self._models.get(node, {}):
            return
        if not models:
            del self._models[node]
            return
        self._models[node] = models
        for claim in claims:
            self._count(claim)

    def put(self, claim: Claim) -> None:
        """A claim was made or changed."""
        known = self._entry(claim)
        if known is None or known.assignment != claim.assignment:
            self._count(claim)
            self._weigh(claim.uid)

    def drop(self, claim: Claim) -> None:
        """A claim was given up."""
        self._replace(claim, None)
        self._weigh(claim.uid)

    def pod_changed(self, view: PodView) -> None:
        """A pod that wants or holds cards, as the watch shows it."""
        if view.charged_early and view.asks and not view.leaving:
            self._waiting[view.uid] = view
            self._weigh(view.uid)
        else:
            self.pod_removed(view.uid)

    def pod_removed(self, uid: str) -> None:
        """A pod is gone or needs no cards."""
        if self._waiting.pop(uid, None) is not None:
            self._weigh(uid)

    # What is known

    def placed(self, namespace: str, counts: Counts, without: str = "") -> dict[str, Amounts]:
        """Amounts in use by model; ``UNKNOWN`` where that is not known.

        Args:
            namespace: Whose.
            counts: Which priority classes.
            without: The uid of a pod to leave out.
        """
        found: dict[str, Amounts] = {}
        for priority_class, by_model in self._placed.get(namespace, {}).items():
            if counts(priority_class):
                for model, amounts in by_model.items():
                    found[model] = found.get(model, NOTHING).plus(amounts)
        for entry in self._entries.get(without, ()):
            if entry.namespace == namespace and counts(entry.priority_class):
                for model, amounts in entry.by_model():
                    found[model] = found[model].plus(amounts, -1)
        return found

    def wishes(self, namespace: str, counts: Counts) -> Iterator[tuple[tuple[Ask, ...], int]]:
        """The asks of pods that were charged for models and have no cards yet, with their number.

        Args:
            namespace: Whose.
            counts: Which priority classes.
        """
        for (priority_class, asks), number in self._wishes.get(namespace, {}).items():
            if counts(priority_class):
                yield asks, number

    def wishes_version(self, namespace: str) -> int:
        """Changes whenever the namespace's ``wishes`` do."""
        return self._wished_at.get(namespace, 0)

    def _entry(self, claim: Claim) -> _Entry | None:
        entries = self._entries.get(claim.uid, ())
        return next((entry for entry in entries if entry.node == claim.node), None)

    def _count(self, claim: Claim) -> None:
        known = self._entry(claim)
        models = self._models.get(claim.node, {})
        if known is not None:
            models = {**known.by_card(), **models}
        shares = (share for part in claim.assignment.values() for share in part)
        entry = _Entry(
            claim.node,
            claim.namespace,
            claim.priority_class,
            claim.assignment,
            tuple(models.get(share.uuid, UNKNOWN) for share in shares),
        )
        self._replace(claim, entry)

    def _replace(self, claim: Claim, new: _Entry | None) -> None:
        """Put an entry, or nothing, in place of the claim's."""
        old = self._entry(claim)
        others = [entry for entry in self._entries.get(claim.uid, ()) if entry is not old]
        entries = (*others, new) if new is not None else tuple(others)
        if entries:
            self._entries[claim.uid] = entries
        else:
            self._entries.pop(claim.uid, None)
        for entry, times in ((old, -1), (new, 1)):
            if entry is not None:
                self._add(entry, times)

    def _add(self, entry: _Entry, times: int) -> None:
        classes = self._placed.setdefault(entry.namespace, {})
        sums = classes.setdefault(entry.priority_class, {})
        for model, amounts in entry.by_model():
            sums[model] = sums.get(model, NOTHING).plus(amounts, times)
            if not sums[model].gpus:
                del sums[model]
        if not sums:
            del classes[entry.priority_class]
        if not classes:
            del self._placed[entry.namespace]

    def _weigh(self, uid: str) -> None:
        """Count a pod among those who wait, or no longer: one that holds cards does not."""
        view = None if uid in self._entries else self._waiting.get(uid)
        new = None if view is None else ((view.namespace, view.priority_class), view.asks)
        old = self._wished.pop(uid, None)
        if new is not None:
            self._wished[uid] = new
        if new == old:
            return
        self._changes += 1
        for wish, number in ((old, -1), (new, 1)):
            if wish is not None:
                (namespace, priority_class), asks = wish
                counter = self._wishes.setdefault(namespace, Counter())
                counter[priority_class, asks] += number
                if not counter[priority_class, asks]:
                    del counter[priority_class, asks]
                self._wished_at[namespace] = self._changes
                if not counter:
                    del self._wishes[namespace], self._wished_at[namespace]
