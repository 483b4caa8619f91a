"""Usage of each GPU model by the pods of a namespace, and the requests of pods that wait.

Both change with each claim and each pod, so a question about a namespace reads its models and not
its pods. No method does I/O or reads a clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from gpu_fraction.domain.placement import Ask, CardState
from gpu_fraction.scheduler.claims import Claim
from gpu_fraction.scheduler.pod_info import PodInfo

Counts = Callable[[str], bool]
"""Whether pods of a priority class are counted; empty for pods of none."""

UNKNOWN: Final = ""
"""The model of a card whose node was never seen: it can be any model."""


class Usage(NamedTuple):
    """Parts of cards, under the names that a GPUQuota has for them.

    Attributes:
        cores: Thousandths of a GPU's compute.
        memory: MiB.
        gpus: Cards, each container's counted.
    """

    cores: int
    memory: int
    gpus: int

    def plus(self, other: "Usage", times: int = 1) -> "Usage":
        """The sum of this and ``times`` the other."""
        return Usage(*(a + times * b for a, b in zip(self, other, strict=True)))

    def most(self, other: "Usage") -> "Usage":
        """The larger of the two in each."""
        return Usage(*map(max, self, other))


NOTHING: Final = Usage(0, 0, 0)


class ModelUsage:
    """Usage by namespace, priority class and model."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, str]] = {}
        self._held: dict[str, dict[str, dict[str, Usage]]] = {}
        self._waiting: dict[str, PodInfo] = {}
        self._requests: dict[str, Counter[tuple[str, tuple[Ask, ...]]]] = {}
        self._versions: dict[str, int] = {}
        self._changes = 0

    def set_cards(self, node: str, cards: Sequence[CardState]) -> bool:
        """Replace the models of a node's cards; True where its claims must be counted again.

        A node without cards, or with an unreadable inventory, keeps the models of its claims,
        because their cards are still held.
        """
        models = {card.uuid: card.kind.model for card in cards}
        old = self._models.pop(node, {})
        if models:
            self._models[node] = models
        return bool(models) and models != old

    def put(self, claim: Claim, old: Claim | None) -> Claim:
        """Count a claim in place of the pod's old one on the node; the claim with its models."""
        known = self._models.get(claim.node, {})
        if old is not None:
            before = {s.uuid: m for s, m in zip(old.shares(), old.models, strict=True)}
            known = {**before, **known}
        models = tuple(known.get(share.uuid, UNKNOWN) for share in claim.shares())
        claim = replace(claim, models=models)
        if old is None or (old.models, old.assignment) != (models, claim.assignment):
            if old is not None:
                self._add(old, -1)
            self._add(claim, 1)
        return claim

    def drop(self, claim: Claim) -> None:
        """Count a claim no longer."""
        self._add(claim, -1)

    def _add(self, claim: Claim, times: int) -> None:
        classes = self._held.setdefault(claim.namespace, {})
        sums = classes.setdefault(claim.priority_class, {})
        for model, usage in _by_model(claim):
            sums[model] = sums.get(model, NOTHING).plus(usage, times)
            if not sums[model].gpus:
                del sums[model]
        if not sums:
            del classes[claim.priority_class]
        if not classes:
            del self._held[claim.namespace]

    def set_waiting(self, uid: str, info: PodInfo | None) -> None:
        """Record a pod that was charged at admission and holds no cards; None ends the wait."""
        old = self._waiting.pop(uid, None)
        if info is not None:
            self._waiting[uid] = info
        if _request(old) == _request(info):
            return
        self._changes += 1
        for pod, number in ((old, -1), (info, 1)):
            if pod is not None:
                requests = self._requests.setdefault(pod.namespace, Counter())
                requests[pod.priority_class, pod.asks] += number
                self._versions[pod.namespace] = self._changes
                if not requests[pod.priority_class, pod.asks]:
                    del requests[pod.priority_class, pod.asks]
                if not requests:
                    del self._requests[pod.namespace], self._versions[pod.namespace]

    def held(
        self, namespace: str, counts: Counts, without: Iterable[Claim] = ()
    ) -> dict[str, Usage]:
        """Usage by model; ``UNKNOWN`` is the model of cards that were never seen.

        Args:
            namespace: The namespace.
            counts: Selects priority classes.
            without: Claims that do not count.
        """
        found: dict[str, Usage] = {}
        for priority_class, by_model in self._held.get(namespace, {}).items():
            if counts(priority_class):
                for model, usage in by_model.items():
                    found[model] = found.get(model, NOTHING).plus(usage)
        for claim in without:
            if claim.namespace == namespace and counts(claim.priority_class):
                for model, usage in _by_model(claim):
                    found[model] = found[model].plus(usage, -1)
        return found

    def waiting(self, namespace: str, counts: Counts) -> Iterator[tuple[tuple[Ask, ...], int]]:
        """The asks of pods that wait, with the number of pods.

        Args:
            namespace: The namespace.
            counts: Selects priority classes.
        """
        for (priority_class, asks), number in self._requests.get(namespace, {}).items():
            if counts(priority_class):
                yield asks, number

    def waiting_version(self, namespace: str) -> int:
        """A number that changes with the result of ``waiting``."""
        return self._versions.get(namespace, 0)


def _by_model(claim: Claim) -> Iterator[tuple[str, Usage]]:
    """Model and usage of each share."""
    for share, model in zip(claim.shares(), claim.models, strict=True):
        yield model, Usage(share.core_milli, share.memory_mib, 1)


def _request(info: PodInfo | None) -> tuple[str, str, tuple[Ask, ...]] | None:
    return None if info is None else (info.namespace, info.priority_class, info.asks)
