"""No card is given twice and no model beyond its limit, whatever happens in whatever order.

The machine is an API server and its clock: it decides when a Binding takes effect, whether
its answer arrives, how far the watch lags, when pods end and when the extender is restarted.
The extender under test is the real one, from filter to the last settled claim.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import CollectorRegistry

from gpu_fraction.domain.placement import Ask, empty
from gpu_fraction.kube import errors
from gpu_fraction.scheduler.binding import CALL_S, DOUBT_S, Binder
from gpu_fraction.scheduler.extender import Extender
from gpu_fraction.scheduler.metrics import ExtenderMetrics
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.wire import BindingArgs
from tests.builders import cards as build
from tests.builders.limits import FixedLimits, limits
from tests.support.slow_bindings import Api, Call, Event, Stored

SERVER_S = 34.0
"""Within this time the server carries a request out or never."""

# Small, so that everything is about the same few cards.
NODES = {
    "n1": [build.card(0, uuid="GPU-1a", slots=2), build.card(1, uuid="GPU-1b", slots=2)],
    "n2": [build.card(0, uuid="GPU-2a", slots=2, model="NVIDIA A100")],
}
CARDS = {card.uuid: card for cards in NODES.values() for card in cards}
ASKS = (
    (Ask("main", memory_milli=1000, core_milli=1000),),
    (Ask("main", memory_mib=10000, placement="spread"),),
    (Ask("a", memory_mib=4000), Ask("b", memory_mib=9000)),
    (Ask("main", memory_mib=3000, models_in=("T4",)),),
    (Ask("main", memory_milli=250, core_milli=250, models_in=("A100", "T4")),),
)
LIMITS = {
    "T4": {"gpus": 2, "memory": 20000},
    "A100": {"cores": 700},
}
CLASSES = ("", "batch")
BATCH_GPUS = 1
FORBIDDEN = errors.ForbiddenError("a webhook said no", status=403)
BUSY = errors.TooManyRequestsError("busy", status=429)


def model_limits() -> FixedLimits:
    """A quota for every pod, and one more for those of a class."""
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": ["batch"]}
    mib = {"T4": {**LIMITS["T4"], "memory": f"{LIMITS['T4']['memory']}Mi"}}
    cores = {"A100": {"cores": f"{LIMITS['A100']['cores']}m"}}
    made = limits({**mib, **cores})
    batch = {"T4": {"gpus": BATCH_GPUS}}
    made.set("batch", batch, scopeSelector={"matchExpressions": [scope]})
    return made


class Interleavings(RuleBasedStateMachine):
    """Everything that can happen between a scheduler, an extender and an API server."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now_s = 0.0
        self.storage: dict[str, Stored] = {}
        self.events: list[Event] = []
        self.delivered = 0
        self.shown: set[str] = set()
        self.calls: list[Call] = []
        self.tasks: list[asyncio.Task[str]] = []
        self.count = 0
        self.start()

    def start(self) -> None:
        """A new extender that knows nothing."""
        self.state = ClusterState()
        self.extender = Extender(self.state, model_limits())
        metrics = ExtenderMetrics(CollectorRegistry())
        self.api = Api(self)
        self.binder = Binder(self.state, self.extender, self.api, metrics, lambda: self.now_s)
        for name, cards in NODES.items():
            self.state.node_changed(name, empty(cards))
        self.shown = set()
        self.list_pods()

    def list_pods(self) -> None:
        """A list in place of the watch: what is gone shows by its absence only."""
        self.delivered = len(self.events)
        found = {stored.uid for stored in self.storage.values()}
        for uid in self.shown - found:
            self.state.pod_removed(uid)
        for stored in self.storage.values():
            self.state.pod_changed(stored.pod())
        self.shown = found

    def turn(self) -> None:
        """Let every task run until it waits."""
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))

    def changed(self, stored: Stored) -> None:
        """An event for the watch."""
        self.events.append((stored.uid, stored.pod()))

    @rule(asks=st.sampled_from(ASKS), priority_class=st.sampled_from(CLASSES))
    def create(self, asks: tuple[Ask, ...], priority_class: str) -> None:
        """A user makes a pod, sometimes under a name that was used before."""
        self.count += 1
        name = f"p{self.count % 4}"
        if name not in self.storage:
            uid = f"uid-{self.count}"
            self.storage[name] = Stored(name, uid, asks, priority_class=priority_class)
            self.changed(self.storage[name])

    @precondition(lambda self: self.storage)
    @rule(data=st.data(), node=st.sampled_from(sorted(NODES)), obey=st.booleans())
    def schedule(self, data: st.DataObject, node: str, obey: bool) -> None:
        """The scheduler binds a pod, mostly where filter said that it fits."""
        stored = self.storage[data.draw(st.sampled_from(sorted(self.storage)))]
        if obey:
            fitting = self.extender.filter(self.state.info(stored.pod()), sorted(NODES)).node_names
            if not fitting:
                return
            node = data.draw(st.sampled_from(fitting))
        args = BindingArgs(stored.name, "team", stored.uid, node)
        self.tasks.append(self.loop.create_task(self.binder.bind(args)))
        self.turn()

    @precondition(lambda self: any(stored.node for stored in self.storage.values()))
    @rule(data=st.data(), forbid=st.booleans())
    def schedule_again(self, data: st.DataObject, *, forbid: bool) -> None:
        """The scheduler missed the answer and binds a bound pod again, which may be forbidden."""
        bound = sorted(name for name, stored in self.storage.items() if stored.node)
        stored = self.storage[data.draw(st.sampled_from(bound))]
        args = BindingArgs(stored.name, "team", stored.uid, stored.node)
        known = len(self.calls)
        self.tasks.append(self.loop.create_task(self.binder.bind(args)))
        self.turn()
        for call in self.calls[known:] if forbid else ():
            call.done = True
            call.error = FORBIDDEN

    @precondition(lambda self: any(not call.done for call in self.calls))
    @rule(data=st.data(), refusal=st.sampled_from([None, None, None, FORBIDDEN, BUSY]))
    def carry_out(self, data: st.DataObject, refusal: errors.KubeError | None) -> None:
        """The server decides on a Binding, whether or not anybody still waits for it."""
        waiting = [at for at, call in enumerate(self.calls) if not call.done]
        call = self.calls[data.draw(st.sampled_from(waiting))]
        call.done = True
        stored = self.storage.get(call.args.pod_name)
        if refusal is not None:
            call.error = refusal
        elif stored is None:
            call.error = errors.NotFoundError("no such pod", status=404)
        elif stored.uid != call.args.pod_uid or stored.node or stored.phase != "Pending":
            call.error = errors.ConflictError("already assigned", status=409)
        else:
            stored.node, stored.cards = call.args.node, call.cards
            self.changed(stored)

    @precondition(lambda self: any(call.done for call in self.calls))
    @rule()
    def answer(self) -> None:
        """The answer arrives."""
        call = next(call for call in self.calls if call.done)
        self.calls.remove(call)
        if not call.answer.done():
            if call.error is None:
                call.answer.set_result(None)
            else:
                call.answer.set_exception(call.error)
        self.turn()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """The answer does not arrive; the Binding may still take effect."""
        call = self.calls[data.draw(st.integers(0, len(self.calls) - 1))]
        self.drop(call)

    def drop(self, call: Call) -> None:
        """The client hears nothing."""
        if call.done:
            self.calls.remove(call)
        if not call.answer.done():
            call.answer.set_exception(errors.TransportError("reset", sent=True))
            self.turn()

    @precondition(lambda self: self.delivered < len(self.events))
    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        """The watch catches up by some events."""
        for uid, pod in self.events[self.delivered : self.delivered + count]:
            self.delivered += 1
            if pod is None:
                self.shown.discard(uid)
                self.state.pod_removed(uid)
            else:
                self.shown.add(uid)
                self.state.pod_changed(pod)

    @precondition(lambda self: self.storage)
    @rule(data=st.data(), finish=st.booleans())
    def end(self, data: st.DataObject, finish: bool) -> None:
        """A pod finishes or is deleted."""
        stored = self.storage[data.draw(st.sampled_from(sorted(self.storage)))]
        if finish and stored.node:
            self.storage[stored.name] = replace(stored, phase="Succeeded")
            self.changed(self.storage[stored.name])
        elif not finish:
            del self.storage[stored.name]
            self.events.append((stored.uid, None))

    @rule(seconds=st.sampled_from([CALL_S, SERVER_S - CALL_S - 1, 45.0]))
    def wait(self, seconds: float) -> None:
        """Time passes: clients give up, and the server drops what is too old."""
        self.now_s += seconds
        for call in list(self.calls):
            if self.now_s - call.sent_s >= CALL_S:
                self.drop(call)
            if self.now_s - call.sent_s >= SERVER_S and call in self.calls:
                self.calls.remove(call)

    @rule(down=st.booleans())
    def settle(self, down: bool) -> None:
        """The extender looks after claims that the watch left open."""
        self.api.down = down
        self.loop.run_until_complete(self.binder.recheck())
        self.api.down = False

    @rule()
    def relist(self) -> None:
        """The watch broke and everything is read again."""
        self.list_pods()

    @rule()
    def restart(self) -> None:
        """The extender is killed; what it sent takes effect before it is up again, or never."""
        for call in list(self.calls):
            if not call.done:
                self.carry_out_now(call)
        self.calls.clear()
        for task in self.tasks:
            task.cancel()
        self.turn()
        self.start()

    def carry_out_now(self, call: Call) -> None:
        """Half of what was on its way takes effect."""
        stored = self.storage.get(call.args.pod_name)
        fresh = stored is not None and stored.uid == call.args.pod_uid and not stored.node
        if stored is not None and fresh and stored.phase == "Pending" and self.count % 2:
            stored.node, stored.cards = call.args.node, call.cards
            self.changed(stored)

    @invariant()
    def no_card_is_overdrawn(self) -> None:
        """What the API server stores fits on the cards."""
        for uuid, (core_milli, memory_mib, slots) in self.held().items():
            card = CARDS[uuid]
            assert core_milli <= card.core_milli, uuid
            assert memory_mib <= card.memory_mib, uuid
            assert slots <= card.slots, uuid

    @invariant()
    def what_the_watch_showed_stays_known(self) -> None:
        """A pod that was seen on its cards holds them, and nobody looks for it again."""
        seen = {uid for uid in self.shown if (v := self.state.pod(uid)) is not None and v.node}
        assert seen <= {claim.uid for claim in self.state.claims}
        assert not seen & {claim.uid for claim in self.state.claims.unseen()}

    @invariant()
    def no_model_is_beyond_its_limit(self) -> None:
        """What the API server stores is within the quotas of the namespace."""
        for model, hard in LIMITS.items():
            held = self.held_of(model, CLASSES)
            for kind, most in hard.items():
                assert held[kind] <= most, (model, kind)
        assert self.held_of("T4", ("batch",))["gpus"] <= BATCH_GPUS

    def held_of(self, model: str, classes: Collection[str]) -> dict[str, int]:
        """What live pods of these classes hold of a model."""
        shares = [
            share
            for stored in self.storage.values()
            if stored.phase != "Succeeded" and stored.priority_class in classes
            for shares in stored.cards.values()
            for share in shares
            if model in CARDS[share.uuid].model
        ]
        cores, memory = sum(s.core_milli for s in shares), sum(s.memory_mib for s in shares)
        return {"cores": cores, "memory": memory, "gpus": len(shares)}

    @invariant()
    def sums_are_those_of_the_claims(self) -> None:
        """What is kept up to date step by step is what a count of all claims would give."""
        for classes in (CLASSES, ("batch",)):
            expected: Counter[tuple[str, str]] = Counter()
            for claim in self.state.claims:
                for share in (s for shares in claim.assignment.values() for s in shares):
                    if claim.priority_class in classes:
                        model = CARDS[share.uuid].model
                        expected[model, "cores"] += share.core_milli
                        expected[model, "memory"] += share.memory_mib
                        expected[model, "gpus"] += 1
            held = self.state.model_usage.held("team", classes.__contains__)
            found = {
                (model, kind): amount
                for model, amounts in held.items()
                for kind, amount in amounts._asdict().items()
            }
            assert +Counter(found) == +expected

    @invariant()
    def waiting_pods_are_those_without_claims(self) -> None:
        """Of the pods that the watch shows, those that chose a model and hold no card."""
        expected = Counter(
            info.asks
            for uid in self.shown
            if (info := self.state.pod(uid)) is not None
            and info.charged_early
            and not self.state.claims.of_pod(uid)
        )
        found: Counter[tuple[Ask, ...]] = Counter()
        for asks, number in self.state.model_usage.waiting("team", CLASSES.__contains__):
            found[asks] += number
        assert found == expected

    def held(self) -> dict[str, list[int]]:
        """What live pods hold of each card."""
        sums: dict[str, list[int]] = {uuid: [0, 0, 0] for uuid in CARDS}
        for stored in self.storage.values():
            if stored.phase == "Succeeded":
                continue
            for share in (share for shares in stored.cards.values() for share in shares):
                sums[share.uuid][0] += share.core_milli
                sums[share.uuid][1] += share.memory_mib
                sums[share.uuid][2] += 1
        return sums

    def teardown(self) -> None:
        """Once everything has come to rest, the extender's books are the API server's."""
        for call in list(self.calls):
            self.drop(call)
        self.calls.clear()
        self.list_pods()
        for _ in range(2):
            self.now_s += DOUBT_S
            self.loop.run_until_complete(self.binder.recheck())
        held = self.held()
        for node in NODES:
            for card in self.state.cards(node):
                taken = [
                    card.kind.core_milli - card.free_core_milli,
                    card.kind.memory_mib - card.free_memory_mib,
                    card.kind.slots - card.free_slots,
                ]
                assert taken == held[card.uuid], card.uuid
        assert all(task.done() for task in self.tasks)
        failures: list[Any] = [t.exception() for t in self.tasks if not t.cancelled()]
        assert not any(failures), failures
        self.loop.close()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
