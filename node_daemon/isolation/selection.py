"""Chooses the engines of each card: pure functions.

A card has one engine for memory and one for compute. An engine that does both does both;
``cgroup``, which limits memory alone, can stand beside another for compute. A card without
either is ``none``: containers take turns on it, and the amounts are bookkeeping alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_fraction.domain.units import MILLI
from gpu_fraction.node_daemon.cards.inventory import CardIsolation
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Engine, Part, Resource, Strength
from gpu_fraction.node_daemon.state.allocation import Binding


@dataclass(frozen=True, slots=True)
class Choice:
    """The engines of one card; None where nothing limits that resource."""

    memory: Engine | None = None
    compute: Engine | None = None

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines in use; one that limits both resources appears twice."""
        return tuple(e for e in (self.memory, self.compute) if e is not None)

    def engine(self, resource: Resource) -> Engine | None:
        """The one for this resource."""
        return self.memory if resource is Resource.MEMORY else self.compute

    def strength(self, resource: Resource) -> Strength:
        """How far this resource is limited."""
        engine = self.engine(resource)
        return Strength.NONE if engine is None else engine.enforces(resource)

    def better_than(self, other: "Choice") -> bool:
        """Stronger in one resource and weaker in none."""
        pairs = [(self.strength(r), other.strength(r)) for r in Resource]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def choose(engines: Sequence[Engine]) -> Choice:
    """The best that these engines make together.

    Args:
        engines: Those that can serve the card, most wanted first.
    """
    memory = _strongest(engines, Resource.MEMORY)
    if memory is not None and memory.enforces(Resource.COMPUTE):
        return Choice(memory, memory)
    # Two engines that each want memory and compute would get in each other's way; one that
    # leaves compute alone does not.
    return Choice(memory, _strongest(engines, Resource.COMPUTE))


def _strongest(engines: Sequence[Engine], resource: Resource) -> Engine | None:
    able = [engine for engine in engines if engine.enforces(resource)]
    return max(able, key=lambda engine: engine.enforces(resource), default=None)


def published(choice: Choice, accept: Strength) -> CardIsolation:
    """The isolation that the inventory shows; a limit weaker than ``accept`` is not enforced."""
    used = choice.engines
    bounds = [engine.max_containers for engine in used if engine.max_containers is not None]
    return CardIsolation(
        name=used[0].name if used else "none",
        enforces_memory=choice.strength(Resource.MEMORY) >= accept,
        enforces_compute=choice.strength(Resource.COMPUTE) >= accept,
        max_containers=min(bounds, default=None),
    )


def parts(binding: Binding, choices: Mapping[str, Choice]) -> list[tuple[Engine, Part]]:
    """The work of each engine for a container.

    A pod that asks for no isolation is spared the engines it could get round anyway; those that
    shield the others from it stay.
    """
    found: list[tuple[Engine, Part]] = []
    chosen = [choices.get(share.uuid, Choice()) for share in binding.shares]
    engines = dict.fromkeys(engine for choice in chosen for engine in choice.engines)
    for engine in engines:
        if engine.optional and binding.isolation == "none":
            continue
        mine = {
            resource: [
                share
                for share in binding.shares
                if choices.get(share.uuid, Choice()).engine(resource) is engine
            ]
            for resource in Resource
        }
        shares = tuple(s for s in binding.shares if any(s in m for m in mine.values()))
        resources = frozenset(resource for resource, held in mine.items() if held)
        found.append((engine, Part(binding, shares, resources)))
    return found


def unenforced(
    binding: Binding,
    choices: Mapping[str, Choice],
    cards: Mapping[str, CardFacts],
    accept: Strength,
) -> str:
    """The part of a slice that would not be enforced, and why; empty where all of it is.

    A share that is the whole card, and compute that is not limited, need no enforcement.
    """
    for share in binding.shares:
        card = cards.get(share.uuid, CardFacts(share.uuid))
        choice = choices.get(share.uuid, Choice())
        needed = {
            Resource.MEMORY: not card.memory_mib or share.memory_mib < card.memory_mib,
            Resource.COMPUTE: 0 < share.core_milli < MILLI,
        }
        for resource in (r for r, limited in needed.items() if limited and not card.mig_instance):
            engine = choice.engine(resource)
            if engine is None or engine.enforces(resource) < accept:
                by = engine.name if engine else "none"
                return f"card {share.uuid} does not enforce {resource.value} (isolation: {by})"
            if loophole := engine.loophole(resource, binding):
                return f"card {share.uuid} cannot enforce {resource.value}: {loophole}"
    return ""
