"""The charge of a pod: its demand on the GPUs that it may get.

Until its GPUs are chosen, a pod is charged the maximum: memory on the largest eligible GPU,
compute on the smallest, and on every limited model that it may get. Choosing the GPUs can only
lower the charge.

A pod that our own scheduler places on any model is the exception: it is charged to no limited
model until its GPUs are known, because the extender enforces the limits when it chooses them
(docs/adr/0073).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from gpu_fraction.domain import amounts, models
from gpu_fraction.domain.amounts import Amounts
from gpu_fraction.domain.demand import ZERO, Demand


@dataclass(frozen=True, slots=True)
class CardType:
    """One kind of GPU in the cluster.

    Attributes:
        model: Product name as NVML gives it, or as the configuration names it; empty where
            only the memory is known.
        memory_mib: Memory of one card, 1 or more.
    """

    model: str
    memory_mib: int


@dataclass(frozen=True, slots=True)
class PodFacts:
    """The facts about one pod that quotas use.

    Attributes:
        uid: The pod's own, final at the validating call.
        name: The pod's own; a generated one is final at the validating call too.
        demand: Its cost before its GPUs are known.
        priority_class: Its priority class; None where it has none.
        cards: Kinds of GPUs that it has or may get; empty where unknown.
        models: Only these models, as its author wrote them; empty for any.
        not_models: None of these models.
        placed_late: True until our scheduler has chosen its GPUs, where the pod names neither
            models nor cards: its model is not decided yet.
        containers: The containers that ask for GPUs, for messages.
    """

    uid: str
    name: str = ""
    demand: Demand = ZERO
    priority_class: str | None = None
    cards: tuple[CardType, ...] = ()
    models: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    placed_late: bool = False
    containers: tuple[str, ...] = ()

    def on(self, cards: tuple[CardType, ...]) -> "PodFacts":
        """A copy with the kinds of GPUs that it may get."""
        return replace(self, cards=cards)


@dataclass(frozen=True, slots=True)
class Charge:
    """The amounts of one pod.

    Attributes:
        amounts: By key; the known part of an unknown amount.
        unknown: Keys whose amount no known GPU size bounds.
    """

    amounts: Amounts
    unknown: frozenset[str] = frozenset()


NOTHING: Final = Charge({})


def charge(facts: PodFacts, limited_models: Iterable[str] = ()) -> Charge:
    """The pod's charge: every key of ``amounts.KEYS``, and those of the limited models."""
    if not facts.demand:
        return NOTHING
    total, open_memory = _amounts_on(facts.demand, facts.cards)
    found = {**total, amounts.PODS: 1}
    unknown = {amounts.MEMORY} if open_memory else set()
    for model in limited_models:
        cards = tuple(c for c in facts.cards if _is(model, c, facts))
        part: Amounts = {}
        open_memory = False
        if not facts.placed_late and (cards or (not facts.cards and _may_be(model, facts))):
            part, open_memory = _amounts_on(facts.demand, cards)
        for kind in amounts.MODEL_KEYS:
            found[amounts.model_key(model, kind)] = part.get(kind, 0)
        if open_memory:
            unknown.add(amounts.model_key(model, amounts.MEMORY))
    return Charge(found, frozenset(unknown))


def _amounts_on(demand: Demand, cards: tuple[CardType, ...]) -> tuple[dict[str, int], bool]:
    """Amounts on any of these cards, and whether memory stays unknown."""
    sizes = [card.memory_mib for card in cards]
    # Without known sizes, a card of 1 MiB gives the upper bound of compute: all of it.
    charged = demand.charged(min(sizes, default=1), max(sizes, default=0))
    found = {
        amounts.CORES: charged.core_milli,
        amounts.MEMORY: charged.memory_mib,
        amounts.GPUS: charged.cards,
    }
    return found, bool(demand.open_memory_milli) and not sizes


def _is(model: str, card: CardType, facts: PodFacts) -> bool:
    """True where a card counts for a model; a card without a known model may be any."""
    return models.matches(model, card.model) if card.model else _may_be(model, facts)


def _may_be(model: str, facts: PodFacts) -> bool:
    """True where a pod may get a model when no card of the cluster is known.

    Names are compared in both directions, because either may be the longer one (A100 and
    A100-80GB).
    """
    if facts.models:
        return any(models.matches(w, model) or models.matches(model, w) for w in facts.models)
    return not any(models.matches(avoided, model) for avoided in facts.not_models)
