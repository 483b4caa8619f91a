"""Limits of a namespace on a GPU model, applied where the cards are chosen.

The claims are complete: one extender chooses all cards, and a claim begins before its Binding is
sent. The limits come from a ``ModelLimits``.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from gpu_fraction.domain import models
from gpu_fraction.domain.placement import NOTHING_BARRED, Ask, Kind, share_of
from gpu_fraction.domain.placement.table import ABSENT
from gpu_fraction.scheduler.model_usage import NOTHING, UNKNOWN, Usage
from gpu_fraction.scheduler.pod_info import PodInfo
from gpu_fraction.scheduler.state import ClusterState

CACHED: Final = 4096
"""Sums cached. Chosen: a cluster has a few models and some hundred kinds of pods."""


class ModelLimit(Protocol):
    """The most that pods of a namespace may hold of one model, by one quota."""

    @property
    def model(self) -> str:
        """The model as the quota's author wrote it."""
        ...

    @property
    def hard(self) -> Mapping[str, int]:
        """The limits under the names of ``Usage``; an absent name is not limited."""
        ...

    def counts(self, priority_class: str) -> bool:
        """Whether the quota counts pods of that priority class; empty for none."""
        ...

    def refusal(
        self, wanted: Mapping[str, int], used: Mapping[str, int], kept: Mapping[str, int]
    ) -> str:
        """One line for the pod's events.

        Args:
            wanted: The pod's usage, under the names that exceed the limit.
            used: The usage of other pods, under the same names.
            kept: The room kept for pods that were admitted for this model and wait.
        """
        ...


class ModelLimits(Protocol):
    """The current limits of every namespace."""

    def limits(self, namespace: str) -> Sequence[ModelLimit]:
        """The limits of one namespace, the same object until they change.

        The extender calls it for every pod, so it must be quick.
        """
        ...

    def unsynced(self) -> str | None:
        """Why the limits are not known yet, in a few words; None where they are."""
        ...


class _NoLimits:
    """A cluster without limits."""

    def limits(self, namespace: str) -> Sequence[ModelLimit]:  # noqa: ARG002 - the Protocol's
        """No limits."""
        return ()

    def unsynced(self) -> str | None:
        """Always synced."""


NO_LIMITS: Final[ModelLimits] = _NoLimits()


class _Room(NamedTuple):
    """The room kept for waiting pods, by limit, with the versions that it was computed from."""

    limits: Sequence[ModelLimit]
    version: int
    usages: Sequence[Usage]


class ModelQuota:
    """Checks pods against the limits and the usage of their namespace."""

    def __init__(self, state: ClusterState, limits: ModelLimits) -> None:
        """Check against this state.

        Args:
            state: The cluster.
            limits: The limits.
        """
        self._state = state
        self._limits = limits
        self._known = 0
        self._kinds: dict[str, tuple[Kind, ...]] = {}
        self._rooms: dict[str, _Room] = {}

    def barred(self, info: PodInfo) -> Mapping[str, str]:
        """Product names that the pod may not use now, with the reason, one line each.

        A model is barred if all of the pod's cards, taken of that model, exceed a limit. Cards
        of several models under one limit never use more than the same number of cards of one
        model that is not barred: memory by share grows with the card's memory, compute by memory
        with the card's compute for each MiB, and everything else is equal on every card.
        """
        limits = self._limits.limits(info.namespace)
        if not limits:
            return NOTHING_BARRED
        self._learn_kinds()
        # A pod that was charged early is itself one of those for which room is kept.
        kept = (NOTHING,) * len(limits) if info.charged_early else self._room(info, limits)
        # The pod's own claims are in doubt: only one of them can take effect.
        own = self._state.claims.of_pod(info.uid)
        barred: dict[str, str] = {}
        for limit, room in zip(limits, kept, strict=True):
            if not limit.counts(info.priority_class):
                continue
            held = self._state.model_usage.held(info.namespace, limit.counts, without=own)
            used = NOTHING
            for model, usage in held.items():
                if model == UNKNOWN or models.matches(limit.model, model):
                    used = used.plus(usage)
            for product in self._products(limit):
                if _allowed(info.asks, product):
                    why = _objection(limit, _usage(info.asks, self._kinds[product]), used, room)
                    if why is not None:
                        barred.setdefault(product, why)
        return barred

    def _room(self, info: PodInfo, limits: Sequence[ModelLimit]) -> Sequence[Usage]:
        """For each limit, the room kept for pods that were charged for the model and wait."""
        known = self._rooms.get(info.namespace)
        version = self._state.model_usage.waiting_version(info.namespace)
        if known is None or known.limits is not limits or known.version != version:
            if len(self._rooms) >= CACHED:
                self._rooms.clear()
            usages = [self._reserved(info.namespace, limit) for limit in limits]
            known = self._rooms[info.namespace] = _Room(limits, version, usages)
        return known.usages

    def _reserved(self, namespace: str, limit: ModelLimit) -> Usage:
        total = NOTHING
        products = self._products(limit)
        for asks, number in self._state.model_usage.waiting(namespace, limit.counts):
            most = NOTHING
            for product in products:
                if _allowed(asks, product):
                    most = most.most(_usage(asks, self._kinds[product]))
            total = total.plus(most, number)
        return total

    def _learn_kinds(self) -> None:
        kinds = self._state.table().kinds  # a list that only grows
        if len(kinds) != self._known:
            self._known = len(kinds)
            self._rooms.clear()
            self._kinds.clear()
            for kind in kinds[ABSENT + 1 :]:
                self._kinds[kind.model] = (*self._kinds.get(kind.model, ()), kind)

    def _products(self, limit: ModelLimit) -> list[str]:
        """Product names that the limit is about."""
        return [m for m in self._kinds if m == UNKNOWN or models.matches(limit.model, m)]


def _allowed(asks: Sequence[Ask], model: str) -> bool:
    return any(models.allowed(model, ask.models_in, ask.models_out) for ask in asks)


@lru_cache(maxsize=CACHED)
def _usage(asks: tuple[Ask, ...], kinds: tuple[Kind, ...]) -> Usage:
    """The most that the asks use on cards of these kinds, which can differ in size."""
    total = NOTHING
    for ask in asks:
        most = NOTHING
        for kind in kinds:
            share = share_of(ask, kind)
            most = most.most(Usage(share.core_milli, share.memory_mib, 1))
        total = total.plus(most, ask.cards)
    return total


def _objection(limit: ModelLimit, need: Usage, used: Usage, kept: Usage) -> str | None:
    """Why the pod exceeds the limit; names that it does not use are not checked."""
    wanted, held, waiting = need._asdict(), used._asdict(), kept._asdict()
    over = [
        name
        for name, most in limit.hard.items()
        if wanted[name] > 0 and held[name] + waiting[name] + wanted[name] > most
    ]
    if not over:
        return None
    return limit.refusal(*({name: of[name] for name in over} for of in (wanted, held, waiting)))
