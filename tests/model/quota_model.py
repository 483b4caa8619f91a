"""Every order in which webhook replicas, controllers and the API server can act on one quota.

The states are explored breadth first until none is new. The arithmetic is not modelled: it is
``quota.ledger`` itself. docs/quota-model.md says what is abstracted, and why that is sound.

Run as ``python tests/model/quota_model.py`` for the larger sizes; it prints the states.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from gpu_fraction.quota.ledger import Ledger, Reservation, exceeded, recount, reserve

IDLE, ASKING, APPROVED, STORED, DELETED, ENDED, WRONGED = range(7)
GPUS: Final = "gpus"
Log = tuple[int, ...]
"""The pods' history: ``i + 1`` for pod i stored, ``-(i + 1)`` for pod i deleted."""


class Budget(NamedTuple):
    """A quota's status.

    Two equal ones count as one version; a real server tells them apart, so the model lets
    more writes through than can happen.
    """

    used: int
    reserved: frozenset[int]
    counted: int  # how much of the pods' history was counted
    named: frozenset[tuple[int, int]] = frozenset()  # reserved pods, and what their names cost


class Replica(NamedTuple):
    """A webhook: the status its watch shows, and a write that it is about to send."""

    cache: Budget
    read: Budget | None = None
    wanted: Budget | None = None
    pod: int = -1


class Controller(NamedTuple):
    """A controller: what its watches show, since when, and a write about to be sent."""

    cache: Budget
    since: int
    view: int
    read: Budget | None = None
    wanted: Budget | None = None


class State(NamedTuple):
    """Everything."""

    budget: Budget
    pods: tuple[int, ...]
    log: Log
    replicas: tuple[Replica, ...]
    controllers: tuple[Controller, ...]
    repeats: int


@dataclass(frozen=True)
class Setting:
    """What is explored.

    Attributes:
        costs: Of each pod.
        hard: The budget.
        replicas: Webhook replicas.
        controllers: Controllers that believe to be the leader at once.
        repeats: Reviews that arrive although their request is over.
        broken: A rule to leave out: ``compare-and-swap``, ``monotonic-count``,
            ``reserve-until-seen``, ``wait-for-request``, ``fresh-refusal`` or
            ``one-pod-a-name`` (of the server: a name is stored only once at a time).
        names: A letter for the name of each pod; empty for a name each.
    """

    costs: tuple[int, ...]
    hard: int
    replicas: int = 2
    controllers: int = 1
    repeats: int = 0
    broken: str = ""
    names: str = ""

    def name(self, i: int) -> str:
        """The name of pod i."""
        return self.names[i] if self.names else f"pod-{i}"


class BrokenInvariantError(Exception):
    """A state that must not be; the message holds the steps that lead there."""


@cache
def _ledger(budget: Budget, setting: Setting) -> Ledger:
    named = dict(budget.named)
    reservations = {str(i): _reservation(setting, i, named.get(i, 0)) for i in budget.reserved}
    return Ledger({GPUS: budget.used}, reservations)


def _reservation(setting: Setting, i: int, counted: int = 0) -> Reservation:
    return Reservation({GPUS: setting.costs[i]}, "", setting.name(i), {GPUS: counted})


def _budget(ledger: Ledger, counted: int) -> Budget:
    named = ((int(uid), r.counted.get(GPUS, 0)) for uid, r in ledger.reserved.items())
    return Budget(
        ledger.used[GPUS],
        frozenset(int(uid) for uid in ledger.reserved),
        counted,
        frozenset((i, cost) for i, cost in named if cost),
    )


class Model:
    """The steps that are possible, and what must hold after each."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def start(self) -> State:
        """No pod, nothing used."""
        empty = Budget(0, frozenset(), 0)
        s = self.setting
        return State(
            empty,
            (IDLE,) * len(s.costs),
            (),
            (Replica(empty),) * s.replicas,
            (Controller(empty, 0, 0),) * s.controllers,
            s.repeats,
        )

    def taken(self, budget: Budget) -> int:
        """Used and reserved."""
        return int(_ledger(budget, self.setting).taken[GPUS])

    def fits(self, budget: Budget, i: int) -> bool:
        """Whether a pod fits into what is free."""
        cost, setting = {GPUS: self.setting.costs[i]}, self.setting
        return not exceeded(_ledger(budget, setting), {GPUS: setting.hard}, cost, setting.name(i))

    def live(self, pods: tuple[int, ...]) -> int:
        """What the stored pods cost."""
        return sum(c for c, p in zip(self.setting.costs, pods, strict=True) if p == STORED)

    def fault(self, state: State) -> str | None:
        """The invariant that does not hold."""
        taken, live = self.taken(state.budget), self.live(state.pods)
        if live > taken:
            return f"live pods cost {live}, but only {taken} is used or reserved"
        if taken > self.setting.hard:
            return f"{taken} is used or reserved of {self.setting.hard}"
        if WRONGED in state.pods:
            return "a pod was refused although it fits"
        return None

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Every step that can be next."""
        yield from self._server(state)
        for r in range(len(state.replicas)):
            yield from self._replica(state, r)
        for c in range(len(state.controllers)):
            yield from self._controller(state, c)

    def _server(self, state: State) -> Iterator[tuple[str, State]]:
        for i, phase in enumerate(state.pods):
            if phase == IDLE:
                yield f"request {i}", _phase(state, i, ASKING)
            if phase in (ASKING, APPROVED):
                yield f"request {i} ends without a pod", _phase(state, i, ENDED)
            if phase == APPROVED and self._free(state, i):
                stored = _phase(state, i, STORED)
                yield f"store {i}", stored._replace(log=(*state.log, i + 1))
            if phase == STORED:
                deleted = _phase(state, i, DELETED)
                yield f"delete {i}", deleted._replace(log=(*state.log, -i - 1))

    def _free(self, state: State, i: int) -> bool:
        """Whether the server has no pod of that name."""
        setting = self.setting
        return setting.broken == "one-pod-a-name" or not any(
            phase == STORED and setting.name(other) == setting.name(i)
            for other, phase in enumerate(state.pods)
        )

    def _replica(self, state: State, r: int) -> Iterator[tuple[str, State]]:
        replica = state.replicas[r]
        if replica.cache != state.budget:
            yield f"replica {r} watches", _put(state, r, replica._replace(cache=state.budget))
        if replica.wanted is not None:
            yield f"replica {r} crashes", _put(state, r, Replica(state.budget))
            yield from self._replica_writes(state, r, replica)
            return
        for i, phase in enumerate(state.pods):
            if phase in (ASKING, APPROVED):
                yield from self._review(state, r, i)
            elif phase in (STORED, DELETED, ENDED) and state.repeats:
                later = state._replace(repeats=state.repeats - 1)
                yield from self._review(later, r, i)

    def _review(self, state: State, r: int, i: int) -> Iterator[tuple[str, State]]:
        """Look at the cache; whoever would be refused is judged on a fresh read."""
        replica, setting = state.replicas[r], self.setting
        for read in (replica.cache, state.budget):
            ledger = _ledger(read, setting)
            if str(i) in ledger.reserved:
                yield f"replica {r} knows {i}", _approve(state, i)
                return
            if self.fits(read, i):
                reserved = reserve(ledger, str(i), _reservation(setting, i))
                wanted = _budget(reserved, read.counted)
                yield (
                    f"replica {r} looks for {i}",
                    _put(state, r, Replica(replica.cache, read, wanted, i)),
                )
                return
            if setting.broken == "fresh-refusal":
                break
        if state.pods[i] == ASKING:
            fits = self.fits(state.budget, i)
            yield f"replica {r} refuses {i}", _phase(state, i, WRONGED if fits else ENDED)

    def _replica_writes(
        self, state: State, r: int, replica: Replica
    ) -> Iterator[tuple[str, State]]:
        assert replica.wanted is not None
        if replica.read == state.budget or self.setting.broken == "compare-and-swap":
            written = _put(state._replace(budget=replica.wanted), r, Replica(replica.wanted))
            yield f"replica {r} writes {replica.pod}", _approve(written, replica.pod)
            yield f"replica {r} writes {replica.pod} and crashes", written
        else:
            yield f"replica {r} conflicts", _put(state, r, Replica(state.budget))

    def _controller(self, state: State, c: int) -> Iterator[tuple[str, State]]:
        it = state.controllers[c]
        now = len(state.log)
        if it.cache != state.budget:
            yield f"controller {c} watches", _set(state, c, it._replace(cache=state.budget))
        if it.view < now:
            yield f"controller {c} sees a pod event", _set(state, c, it._replace(view=it.view + 1))
        fresh = Controller(state.budget, now, now)
        if it != fresh:
            # A crash; and the same for a watch that has to list anew.
            yield f"controller {c} starts anew", _set(state, c, fresh)
        if it.wanted is None:
            wanted = self._recount(state, it)
            if wanted != it.cache:
                looked = it._replace(read=it.cache, wanted=wanted)
                yield f"controller {c} counts", _set(state, c, looked)
        elif it.read == state.budget or self.setting.broken == "compare-and-swap":
            done = it._replace(cache=it.wanted, read=None, wanted=None)
            yield f"controller {c} writes", _set(state._replace(budget=it.wanted), c, done)
        else:
            yield f"controller {c} conflicts", _set(state, c, it._replace(read=None, wanted=None))

    def _recount(self, state: State, it: Controller) -> Budget:
        """The count as ``quota.controller`` makes it, from the watch or from a list."""
        broken = self.setting.broken
        over = {i for i, p in enumerate(state.pods) if p not in (ASKING, APPROVED)}
        view = it.view
        here, gone = _pods(state.log, view, it.since)
        late = {i for i in it.cache.reserved if i not in here | gone and i in over}
        if broken == "wait-for-request":
            late = {i for i in it.cache.reserved if i not in here | gone}
        behind = it.cache.counted > it.view and broken != "monotonic-count"
        if late or behind:
            view = len(state.log)
            here, _ = _pods(state.log, view, view)
        void = late - here
        used = sum(self.setting.costs[i] for i in here)
        by_name = {self.setting.name(i): {GPUS: self.setting.costs[i]} for i in here}
        ledger = _ledger(it.cache, self.setting)
        ended = here | gone | void
        if broken == "reserve-until-seen":
            ended = set(range(len(state.pods)))
        counted = recount(ledger.reserved, {GPUS: used}, {str(i) for i in ended}, by_name)
        return _budget(counted, view)

    def settles(self, state: State) -> bool:
        """Whether a controller that is left alone brings a quota without pods to zero."""
        if any(p not in (DELETED, ENDED) for p in state.pods):
            return True
        alone = Controller(state.budget, len(state.log), len(state.log))
        final = self._recount(state, alone)
        return final.used == 0 and not final.reserved


@cache
def _pods(log: Log, view: int, since: int) -> tuple[frozenset[int], frozenset[int]]:
    """Pods that a view shows, and pods that it saw go."""
    here = {e - 1 for e in log[:view] if e > 0} - {-e - 1 for e in log[:view] if e < 0}
    gone = {-e - 1 for e in log[since:view] if e < 0}
    return frozenset(here), frozenset(gone)


def _phase(state: State, i: int, phase: int) -> State:
    return state._replace(pods=(*state.pods[:i], phase, *state.pods[i + 1 :]))


def _approve(state: State, i: int) -> State:
    return _phase(state, i, APPROVED) if state.pods[i] == ASKING else state


def _put(state: State, r: int, replica: Replica) -> State:
    others = state.replicas
    return state._replace(replicas=(*others[:r], replica, *others[r + 1 :]))


def _set(state: State, c: int, controller: Controller) -> State:
    others = state.controllers
    return state._replace(controllers=(*others[:c], controller, *others[c + 1 :]))


def _canonical(state: State) -> State:
    """Replicas are interchangeable, and so are controllers."""
    return state._replace(
        replicas=tuple(sorted(state.replicas, key=repr)),
        controllers=tuple(sorted(state.controllers, key=repr)),
    )


def explore(setting: Setting) -> int:
    """Visit every state; the number of them.

    Raises:
        BrokenInvariantError: with the shortest way to a state that must not be.
    """
    model = Model(setting)
    start = model.start()
    came: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        fault = model.fault(state)
        if fault is None and not model.settles(state):
            fault = "no pod is left, but the budget does not return to zero"
        if fault is not None:
            raise BrokenInvariantError(f"{fault}: {' > '.join(_way(came, state))}")
        for name, following in model.steps(state):
            known = _canonical(following)
            if known not in came:
                came[known] = (state, name)
                queue.append(known)
    return len(came)


def _way(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    names: list[str] = []
    while (step := came[state]) is not None:
        state, name = step
        names.append(name)
    return names[::-1]


SMALL: Final = (
    Setting((1, 1), hard=1, replicas=1, controllers=1),
    Setting((1, 1), hard=1, replicas=2, controllers=1),
    Setting((2, 1), hard=2, replicas=1, controllers=1, names="aa"),
)
LARGE: Final = (
    Setting((1, 2), hard=2, replicas=2, controllers=1),
    Setting((1, 1), hard=1, replicas=1, controllers=2),
    Setting((1, 1), hard=1, replicas=1, controllers=1, repeats=2),
    Setting((1, 1, 1), hard=2, replicas=1, controllers=1),
    Setting((1, 1), hard=1, replicas=2, controllers=1, repeats=1),
    Setting((1, 2, 1), hard=2, replicas=1, controllers=1, names="aab"),
    Setting((1, 2), hard=2, replicas=1, controllers=2, names="aa"),
)


def main() -> int:
    """Explore the sizes one after another."""
    for setting in (*SMALL, *LARGE):
        started = time.monotonic()
        states = explore(setting)
        took_s = time.monotonic() - started
        print(f"{states:>9} states in {took_s:6.1f} s: {setting}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
