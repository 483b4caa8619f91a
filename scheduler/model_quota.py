"""Keeps what a namespace holds of a GPU model within its quotas, where the cards are chosen.

The claims are all there is to know: one extender chooses all cards, and a claim is made before
its Binding is sent. What a quota says is somebody else's to read; see ``ModelLimits``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from gpu_fraction.domain import models
from gpu_fraction.domain.placement import NOTHING_BARRED, Ask, Kind, share_of
from gpu_fraction.domain.placement.table import ABSENT
from scheduler.model_use import NOTHING, UNKNOWN, Amounts, ModelUse
from scheduler.views import PodView

__all__ = ["NO_LIMITS", "ModelLimit", "ModelLimits", "ModelQuota"]

NEEDS_KEPT: Final = 4096
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
        """The limits of one namespace; called for every pod, so it must be quick."""
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
        self._needs: dict[tuple[tuple[Ask, ...], str], Amounts] = {}

    def barred(self, view: PodView) -> Mapping[str, str]:
        """Product names that the pod may not use now, with the reason, one line each.

        A model is barred where all of the pod's cards, taken of that model, would exceed a
        limit. Cards of several models that one limit means never come to more than as many of
        one that is not barred: memory by share grows with the card's memory, compute by memory
        with the card's compute for each MiB, and all else is the same on every card.
        """
        limits = self._of(view)
        if not limits:
            return NOTHING_BARRED
        products = [model for model in self._products() if _allowed(view.asks, model)]
        barred: dict[str, str] = {}
        for limit in limits:
            matching = [product for product in products if _means(limit.model, product)]
            if not matching:
                continue
            used, kept = self._used(view, limit), self._kept(view, limit)
            for product in matching:
                need = self._need(view.asks, product)
                why = _objection(limit, need, used, kept)
                if why is not None:
                    barred.setdefault(product, why)
        return barred

    def _of(self, view: PodView) -> Sequence[ModelLimit]:
        """The limits that count the pod."""
        limits = self._limits.limits(view.namespace)
        return limits and [limit for limit in limits if limit.counts(view.priority_class)]

    def _used(self, view: PodView, limit: ModelLimit) -> Amounts:
        """What other pods hold. The pod's own claims are in doubt: only one can take effect."""
        return _sum(self._use.placed(view.namespace, limit.counts, view.uid), limit.model)

    def _kept(self, view: PodView, limit: ModelLimit) -> Amounts:
        """What others were promised who, unlike this pod, were charged for the model already."""
        total = NOTHING
        if view.charged_early:
            return total
        for asks, number in self._use.wishes(view.namespace, limit.counts):
            most = NOTHING
            for product in self._products():
                if _means(limit.model, product) and _allowed(asks, product):
                    most = most.most(self._need(asks, product))
            total = total.plus(most, number)
        return total

    def _products(self) -> Iterable[str]:
        """Product names of the cluster."""
        kinds = self._kinds()
        if len(kinds) != self._known:
            self._by_model.clear()
            self._needs.clear()
            self._known = len(kinds)
            for kind in kinds[ABSENT + 1 :]:
                self._by_model.setdefault(kind.model, []).append(kind)
        return self._by_model

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
        if len(self._needs) >= NEEDS_KEPT:
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
