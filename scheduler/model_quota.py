"""Keeps what a namespace holds of a GPU model within its quotas, where the cards are chosen.

The claims are all there is to know: one extender chooses all cards, and a claim is made before
its Binding is sent. What a quota says is somebody else's to read; see ``ModelLimits``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from gpu_fraction.domain import models
from gpu_fraction.domain.placement import NOTHING_BARRED, Ask, Kind, share_of
from gpu_fraction.domain.placement.table import ABSENT
from gpu_fraction.scheduler.model_use import NOTHING, UNKNOWN, Amounts, ModelUse
from gpu_fraction.scheduler.views import PodView

REMEMBERED: Final = 4096
"""Sums remembered. Chosen: a cluster has a few models and some hundred kinds of pods."""


class ModelLimit(Protocol):
    """The most that pods of a namespace may hold of one model, by one quota."""

    @property
    def model(self) -> str:
        """The model as the quota's author wrote it."""
        ...

    @property
    def hard(self) -> Mapping[str, int]:
        """The limits under the names of ``Amounts``; an absent one is not limited."""
        ...

    def counts(self, priority_class: str) -> bool:
        """Whether the quota counts pods of that priority class; empty for none."""
        ...

    def refusal(
        self, wanted: Mapping[str, int], used: Mapping[str, int], kept: Mapping[str, int]
    ) -> str:
        """One line for the pod's events.

        Args:
            wanted: What the pod would take, by the names that it exceeds.
            used: What other pods hold, under the same names.
            kept: What is kept for pods that were admitted for this model and wait.
        """
        ...


class ModelLimits(Protocol):
    """Every namespace's limits, as they are now."""

    def limits(self, namespace: str) -> Sequence[ModelLimit]:
        """The limits of one namespace, the same object until they change.

        It is asked about every pod, so it must be quick.
        """
        ...

    def unsynced(self) -> str | None:
        """Why the answers cannot be trusted yet, in a few words; None where they can."""
        ...


class _NoLimits:
    """A cluster without limits."""

    def limits(self, namespace: str) -> Sequence[ModelLimit]:  # noqa: ARG002 - the Protocol's
        """None."""
        return ()

    def unsynced(self) -> str | None:
        """Nothing to wait for."""
        return None


NO_LIMITS: Final[ModelLimits] = _NoLimits()


class _Kept(NamedTuple):
    """What is kept for waiting pods, for these very limits and wishes."""

    limits: Sequence[ModelLimit]
    version: int
    amounts: Sequence[Amounts]


class ModelQuota:
    """Judges pods by the limits and by what is in use."""

    def __init__(
        self, use: ModelUse, limits: ModelLimits, kinds: Callable[[], Sequence[Kind]]
    ) -> None:
        """Judge by these.

        Args:
            use: What is in use.
            limits: What may be used.
            kinds: ``ClusterTable.kinds``: every kind of card, a list that only grows.
        """
        self._use = use
        self._limits = limits
        self._kinds = kinds
        self._known = 0
        self._by_model: dict[str, list[Kind]] = {}
        self._meant: dict[str, tuple[str, ...]] = {}
        self._needs: dict[tuple[tuple[Ask, ...], str], Amounts] = {}
        self._kept: dict[str, _Kept] = {}

    def barred(self, view: PodView) -> Mapping[str, str]:
        """Product names that the pod may not use now, with the reason, one line each.

        A model is barred where all of the pod's cards, taken of that model, would exceed a
        limit. Cards of several models that one limit means never come to more than as many of
        one that is not barred: memory by share grows with the card's memory, compute by memory
        with the card's compute for each MiB, and all else is the same on every card.
        """
        limits = self._limits.limits(view.namespace)
        if not limits:
            return NOTHING_BARRED
        self._learn_kinds()
        # Who was charged already is one of those for whom room is kept.
        none = (NOTHING,) * len(limits)
        keeping = none if view.charged_early else self._keeping(view.namespace, limits)
        barred: dict[str, str] = {}
        for limit, kept in zip(limits, keeping, strict=True):
            if not limit.counts(view.priority_class):
                continue
            # The pod's own claims are in doubt: only one of them can take effect.
            placed = self._use.placed(view.namespace, limit.counts, without=view.uid)
            used = _sum(placed, limit.model)
            for product in self._products(limit, view.asks):
                why = _objection(limit, self._need(view.asks, product), used, kept)
                if why is not None:
                    barred.setdefault(product, why)
        return barred

    def _keeping(self, namespace: str, limits: Sequence[ModelLimit]) -> Sequence[Amounts]:
        """For each limit, what is kept for pods that were charged for the model and wait."""
        known = self._kept.get(namespace)
        version = self._use.wishes_version(namespace)
        if known is None or known.limits is not limits or known.version != version:
            amounts = tuple(self._promised(namespace, limit) for limit in limits)
            if len(self._kept) >= REMEMBERED:
                self._kept.clear()
            known = self._kept[namespace] = _Kept(limits, version, amounts)
        return known.amounts

    def _promised(self, namespace: str, limit: ModelLimit) -> Amounts:
        total = NOTHING
        for asks, number in self._use.wishes(namespace, limit.counts):
            most = NOTHING
            for product in self._products(limit, asks):
                most = most.most(self._need(asks, product))
            total = total.plus(most, number)
        return total

    def _learn_kinds(self) -> None:
        kinds = self._kinds()
        if len(kinds) == self._known:
            return
        for known in (self._by_model, self._meant, self._needs, self._kept):
            known.clear()
        self._known = len(kinds)
        for kind in kinds[ABSENT + 1 :]:
            self._by_model.setdefault(kind.model, []).append(kind)

    def _products(self, limit: ModelLimit, asks: Sequence[Ask]) -> Iterator[str]:
        """Product names that the limit is about and that the pod may be given."""
        meant = self._meant.get(limit.model)
        if meant is None:
            meant = tuple(model for model in self._by_model if _means(limit.model, model))
            if len(self._meant) >= REMEMBERED:
                self._meant.clear()
            self._meant[limit.model] = meant
        return (model for model in meant if _allowed(asks, model))

    def _need(self, asks: tuple[Ask, ...], product: str) -> Amounts:
        """The most that the asks come to on cards of a model, whose sizes may differ."""
        known = self._needs.get((asks, product))
        if known is not None:
            return known
        total = NOTHING
        for ask in asks:
            most = NOTHING
            for kind in self._by_model[product]:
                share = share_of(ask, kind)
                most = most.most(Amounts(share.core_milli, share.memory_mib, 1))
            total = total.plus(most, ask.cards)
        if len(self._needs) >= REMEMBERED:
            self._needs.clear()
        self._needs[asks, product] = total
        return total


def _allowed(asks: Sequence[Ask], model: str) -> bool:
    return any(models.allowed(model, ask.models_in, ask.models_out) for ask in asks)


def _means(pattern: str, model: str) -> bool:
    """Whether a limit on a model is about cards of a product, or may be."""
    return model == UNKNOWN or models.matches(pattern, model)


def _sum(by_model: Mapping[str, Amounts], pattern: str) -> Amounts:
    """The amounts of all models that a limit is about."""
    total = NOTHING
    for model, amounts in by_model.items():
        if _means(pattern, model):
            total = total.plus(amounts)
    return total


def _objection(limit: ModelLimit, need: Amounts, used: Amounts, kept: Amounts) -> str | None:
    """Why the need does not fit; an exact fit fits, and what is not needed is not looked at."""
    wanted, held, waiting = need._asdict(), used._asdict(), kept._asdict()
    over = [
        name
        for name, most in limit.hard.items()
        if wanted[name] > 0 and held[name] + waiting[name] + wanted[name] > most
    ]
    if not over:
        return None
    return limit.refusal(*({name: of[name] for name in over} for of in (wanted, held, waiting)))
