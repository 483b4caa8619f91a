"""The isolation of this node: assesses its cards, and sets up and takes down slices.

The methods block, each for a bounded time; on an event loop they belong in a thread.
"""

import threading
from collections.abc import Mapping, Sequence
from itertools import chain

import structlog

from gpu_fraction.domain.inventory import Isolation
from gpu_fraction.node_daemon.cards.inventory import CardIsolation
from gpu_fraction.node_daemon.cards.inventory_reader import NodeReading
from gpu_fraction.node_daemon.isolation.engine import (
    CardFacts,
    ContainerEdits,
    Engine,
    Strength,
)
from gpu_fraction.node_daemon.isolation.selection import (
    Choice,
    choose,
    parts,
    published,
    unenforced,
)
from gpu_fraction.node_daemon.state.allocation import Binding
from gpu_fraction.node_daemon.state.errors import EngineFailedError, NotEnforceableError

_log = structlog.get_logger()


def facts(reading: NodeReading) -> tuple[CardFacts, ...]:
    """The facts that engines need about the cards that answer."""
    found: list[CardFacts] = []
    for one in reading.cards:
        if one.lost:
            continue
        major, _, minor = one.compute_capability.partition(".")
        version = (int(major), int(minor)) if major and minor else (0, 0)
        if one.mig:
            found += [
                CardFacts(i.uuid, one.index, i.memory_mib, version, mig_instance=True)
                for i in one.instances
            ]
        else:
            found.append(CardFacts(one.uuid, one.index, one.memory_mib, version))
    return tuple(found)


class NodeIsolation:
    """The configured engines over the node's cards.

    ``assess`` first, then ``restore``, then the others in any order.

    Args:
        engines: Most wanted first.
        accept: The least strength that counts as enforced.
        special: Cards that have engines of their own instead, by UUID, most wanted first.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        accept: Strength = Strength.ENFORCED,
        special: Mapping[str, Sequence[Engine]] | None = None,
    ) -> None:
        self._accept = accept
        self.configure(engines, special or {})
        self._lock = threading.Lock()
        self._choices: dict[str, Choice] = {}
        self._cards: dict[str, CardFacts] = {}
        self._work = threading.Lock()
        self._active: dict[str, Binding] | None = None
        """The bindings that are set up, by tag; None before the first ``restore``."""

    def configure(
        self, engines: Sequence[Engine], special: Mapping[str, Sequence[Engine]]
    ) -> None:
        """Use these engines; before anything else is called."""
        self._default = tuple(engines)
        self._special = {uuid: tuple(own) for uuid, own in special.items()}
        self._engines = tuple(dict.fromkeys(chain(engines, *self._special.values())))

    def assess(self, cards: Sequence[CardFacts]) -> Mapping[str, CardIsolation]:
        """Find the engines of each card; also for cards seen before that are not given now.

        A card never gets worse: an engine that stops working must keep containers from
        starting, not let them start without limits.
        """
        unfit = {engine: self._probe(engine, cards) for engine in self._engines}
        with self._lock:
            for card in cards:
                self._cards[card.uuid] = card
                able = [e for e in self._wanted(card) if card.uuid not in unfit[e]]
                choice, before = choose(able), self._choices.get(card.uuid)
                if before is None or choice.better_than(before):
                    self._choices[card.uuid] = choice
                    self._log(card.uuid, choice, unfit)
            return {u: published(c, self._accept) for u, c in self._choices.items()}

    def engines(self, uuid: str) -> frozenset[Isolation]:
        """The names of the engines that a card has."""
        with self._lock:
            choice = self._choices.get(uuid, Choice())
        return frozenset(engine.name for engine in choice.engines)

    def _wanted(self, card: CardFacts) -> Sequence[Engine]:
        return self._special.get(card.uuid, self._default)

    def _probe(self, engine: Engine, cards: Sequence[CardFacts]) -> dict[str, str]:
        """A probe may change the card, so an engine sees only the cards that it may have."""
        mine = [c for c in cards if engine in self._wanted(c)]
        others = [c.uuid for c in cards if c not in mine]
        return dict(engine.probe(mine)) | dict.fromkeys(others, "not configured for this card")

    def _log(self, uuid: str, choice: Choice, unfit: Mapping[Engine, Mapping[str, str]]) -> None:
        _log.info(
            "card_isolation",
            card=uuid,
            memory=choice.memory.name if choice.memory else "none",
            compute=choice.compute.name if choice.compute else "none",
            unfit={e.name: cards[uuid] for e, cards in unfit.items() if uuid in cards},
        )

    def restore(self, slices: Sequence[Binding]) -> None:
        """Make what these slices need, undo what belongs to none; once before any ``prepare``.

        Raises:
            EngineFailedError: for some it could not; ``prepare`` works all the same.
        """
        with self._work:
            self._active = {one.tag: one for one in slices}
            self._restore()

    def repair(self) -> None:
        """Set up again what may have been lost; cheap enough for each reading of the cards.

        Raises:
            EngineFailedError: for some it could not.
        """
        with self._work:
            if self._active is not None:
                self._restore()

    def _restore(self) -> None:
        with self._lock:
            active = self._active or {}
            work = [item for one in active.values() for item in parts(one, self._choices)]
        failed: list[str] = []
        for engine in self._engines:
            try:
                engine.restore([part for e, part in work if e is engine], active.keys())
            except EngineFailedError as e:
                failed.append(str(e))
        if failed:
            raise EngineFailedError("; ".join(failed))

    def prepare(self, binding: Binding) -> ContainerEdits:
        """Set up the slice outside the container; what the container itself needs.

        Idempotent; before each start of the container.

        Raises:
            NotEnforceableError: the pod requires isolation that its cards do not have.
            EngineFailedError: an engine failed, or ``restore`` has not been called.
        """
        with self._work:
            active = self._known()
            with self._lock:
                gap = unenforced(binding, self._choices, self._cards, self._accept)
                work = parts(binding, self._choices)
            if gap and binding.isolation == "required":
                raise NotEnforceableError(
                    f"container {binding.container} requires isolation, but {gap}"
                )
            active[binding.tag] = binding
            edits = ContainerEdits()
            for engine, part in work:
                engine.prepare(part)
                edits = edits.and_(engine.edits(part))
            return edits

    def _known(self) -> dict[str, Binding]:
        """The bindings that are set up; the limits of a pod's containers depend on each other."""
        if self._active is None:
            raise EngineFailedError("isolation is not ready: running containers are unknown")
        return self._active

    def release(self, binding: Binding) -> None:
        """Take down what any engine set up for the slice; idempotent.

        Raises:
            EngineFailedError: not all of it yet, or ``restore`` has not been called; to be tried
                again.
        """
        failed: list[str] = []
        with self._work:
            active = self._known()
            for engine in self._engines:
                try:
                    engine.release(binding)
                except EngineFailedError as e:
                    failed.append(str(e))
            if not failed:
                active.pop(binding.tag, None)
        if failed:
            raise EngineFailedError("; ".join(failed))
