"""The real admission and controller, stopped, crashed and delayed at every await.

The machine runs the product's own coroutines on a server of its own. Each call to the server
waits twice, before it takes effect and before its answer arrives, and the machine decides which
one goes on, who crashes instead, what the watches deliver, and what the clocks say.
"""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
)

from gpu_fraction.kube.listing import Listing
from gpu_fraction.quota.admission import Admission
from gpu_fraction.quota.admission import Settings as AdmissionSettings
from gpu_fraction.quota.claims import ClaimRecord
from gpu_fraction.quota.decision import Outcome
from gpu_fraction.quota.pods import PodRecord
from gpu_fraction.quota.state import read
from gpu_fraction.quota.wire import GPUQuota, StatusWire
from tests.builders.pods import hand_claim, quota_pod
from tests.support.quota_world import NAMESPACE, Counter, Replica, Server, quota

HARD = 3000
REQUEST_S = 34.0
"""The longest that the API server works on a request (facts of ``quota.ledger.RESERVATION_S``)."""
WORDS = ("first", "second")
NAMES = ("a", "a", "b", "c", "d")
WEIGHTS = {
    "create": 3,
    "create_smoothly": 2,
    "repeat": 1,
    "go_on": 9,
    "crash_replica": 1,
    "crash_controller": 1,
    "count_pods": 4,
    "deliver": 6,
    "finish": 4,
    "delete": 4,
    "choose_cards": 1,
    "wait": 1,
    "step_clock": 1,
}
"""How often each step is taken: chosen so that most pods get through and some do not."""
STEPS = st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)])


class StepLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still unless it is moved."""

    now_s = 0.0

    def time(self) -> float:
        """The set time."""
        return self.now_s

    def settle(self) -> None:
        """Run until everybody waits for the machine; pauses between retries pass."""
        for _ in range(3):
            for _ in range(12):
                self.call_soon(self.stop)
                self.run_forever()
            self.now_s += 1.0


@dataclass(eq=False)
class Port:
    """One process's connection to the server; every call waits to be let through."""

    server: Server
    waiting: list["asyncio.Future[None]"] = field(default_factory=list)

    async def _wait(self) -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        await gate

    async def _call(self, call: Coroutine[Any, Any, Any]) -> Any:
        try:
            await self._wait()
        except BaseException:
            call.close()
            raise
        try:
            return await call
        finally:
            await self._wait()

    async def list_quotas(self, namespace: str) -> Listing[GPUQuota]:
        """See ``QuotaApi``."""
        return await self._call(self.server.list_quotas(namespace))  # type: ignore[no-any-return]

    async def list_pods(self, namespace: str) -> Listing[PodRecord]:
        """See ``QuotaApi``."""
        return await self._call(self.server.list_pods(namespace))  # type: ignore[no-any-return]

    async def list_claims(self, namespace: str) -> Listing[ClaimRecord]:
        """See ``QuotaApi``."""
        return await self._call(self.server.list_claims(namespace))  # type: ignore[no-any-return]

    async def write_reserved(self, quota: GPUQuota, reserved: Any) -> GPUQuota:
        """See ``QuotaApi``."""
        return await self._call(self.server.write_reserved(quota, reserved))  # type: ignore[no-any-return]

    async def write_status(self, quota: GPUQuota, status: StatusWire) -> GPUQuota:
        """See ``QuotaApi``."""
        return await self._call(self.server.write_status(quota, status))  # type: ignore[no-any-return]

    def open_(self, index: int) -> bool:
        """Let one waiting call go on."""
        self.waiting = [gate for gate in self.waiting if not gate.done()]
        if not self.waiting:
            return False
        self.waiting.pop(index % len(self.waiting)).set_result(None)
        return True


async def _at_once(_call: str) -> None:
    """Calls of the server itself take no time: the ports do the waiting."""


@dataclass(eq=False)
class Request:
    """One create of a pod or of a claim that the API server works on."""

    uid: str
    name: str
    cores: int
    started_s: float
    claim: bool = False
    answers: list[tuple[int, asyncio.Task[Outcome]]] = field(default_factory=list)
    over: bool = False

    @property
    def admitted(self) -> bool:
        """Whether some review said yes."""
        return any(
            task.done() and not task.cancelled() and not task.exception() and task.result().final
            for _, task in self.answers
        )


def pod_of(request: Request) -> PodRecord:
    """The pod that is asked for."""
    return quota_pod(request.uid, cores=request.cores, name=request.name)


def claim_of(request: Request) -> ClaimRecord:
    """The claim that is asked for; it has the name of a pod."""
    return hand_claim(request.uid, name=request.name, cards=request.cores // 1000)


class Budget(RuleBasedStateMachine):
    """Two replicas, two controllers that both believe to lead, one quota."""

    @initialize()
    def begin(self) -> None:
        """A counted quota, nothing used."""
        self.loop = StepLoop()
        self.now_s = 1000.0
        self.wall = datetime(2031, 1, 1, tzinfo=UTC)
        self.server = Server(gate=_at_once)
        self.server.put_quota(quota(hard={"cores": "3"}))
        self.count = 0
        self.requests: list[Request] = []
        self.live: dict[str, int] = {}
        self.ports: dict[Any, Port] = {}
        self.replicas: list[Replica] = []
        self.serving: list[asyncio.Task[None]] = []
        self.counters: list[Counter] = []
        self.counting: list[asyncio.Task[float] | None] = [None, None]
        first = Counter(self.server, lambda: self.now_s)
        self.loop.run_until_complete(first.controller.reconcile(NAMESPACE))
        for _ in WORDS:
            self._start_replica(len(self.replicas))
            self._start_controller(len(self.counters))

    def _start_replica(self, i: int) -> None:
        replica = Replica(self.server)
        port = Port(self.server)
        replica.admission = Admission(
            port, replica.cache, AdmissionSettings(), now=lambda: self.wall
        )
        self.replicas[i:] = [replica, *self.replicas[i + 1 :]]
        task = self.loop.create_task(replica.admission.run())
        self.serving[i:] = [task, *self.serving[i + 1 :]]
        self.ports["replica", i] = port
        self.loop.settle()

    def _start_controller(self, i: int) -> None:
        counter = Counter(self.server, lambda: self.now_s)
        port = Port(self.server)
        counter.controller._api = port  # noqa: SLF001 - the connection is what is made to wait
        self.counters[i:] = [counter, *self.counters[i + 1 :]]
        self.ports["controller", i] = port

    def create(self, pick: int) -> None:
        """A user creates a pod, or a claim by hand; the API server asks a replica."""
        self.count += 1
        cores = 2000 if pick % 5 == 0 else 1000
        name = NAMES[(pick + self.count) % len(NAMES)]
        request = Request(f"u{self.count}", name, cores, self.now_s, claim=self.count % 3 == 0)
        self.requests.append(request)
        self._review(request, pick % 2)

    def repeat(self, pick: int) -> None:
        """The same review comes again, here or there, even long after."""
        if self.requests:
            self._review(self.requests[-1 - pick % len(self.requests)], pick // 2 % 2)

    def _review(self, request: Request, i: int) -> None:
        replica = self.replicas[i]
        review = (
            replica.review_claim(claim_of(request))
            if request.claim
            else replica.review(pod_of(request))
        )
        task = self.loop.create_task(review)
        request.answers.append((i, task))
        self.loop.settle()

    def go_on(self, pick: int) -> None:
        """One waiting call takes effect, or its answer arrives."""
        waiting = [p for p in self.ports.values() if any(not g.done() for g in p.waiting)]
        if waiting:
            waiting[pick % len(waiting)].open_(pick // 4)
            self.loop.settle()

    def crash_replica(self, pick: int) -> None:
        """The process is gone; what it sent may have taken effect."""
        i = pick % 2
        tasks = [t for r in self.requests for n, t in r.answers if n == i and not t.done()]
        self._end(self.serving[i], *tasks)
        self._start_replica(i)

    def crash_controller(self, pick: int) -> None:
        """Another one starts in its place, and lists anew."""
        i = pick % 2
        if (task := self.counting[i]) is not None:
            self._end(task)
        self.counting[i] = None
        self._start_controller(i)

    def _end(self, *tasks: "asyncio.Task[Any]") -> None:
        """Cut the connections: whoever still waits for an answer never gets one."""
        for task in tasks:
            task.cancel()
        for _ in range(6):
            self.loop.settle()
            for task in tasks:
                if not task.done():
                    task.cancel()
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()

    def count_pods(self, pick: int) -> None:
        """A controller looks at the namespace, unless it still does."""
        i = pick % 2
        task = self.counting[i]
        if task is None or task.done():
            if task is not None and not task.cancelled():
                task.exception()
            counting = self.counters[i].controller.reconcile(NAMESPACE)
            self.counting[i] = self.loop.create_task(counting)
            self.loop.settle()

    def create_smoothly(self, pick: int) -> None:
        """A pod goes all the way without anything between, if it fits."""
        self.create(pick)
        request = self.requests[-1]
        for _ in range(12):
            if not self.ports["replica", pick % 2].open_(0):
                break
            self.loop.settle()
        if request.admitted:
            self._store(request)

    def deliver(self, pick: int) -> None:
        """A watch brings some of what happened."""
        followed = [(member.watch, member.take) for member in (*self.replicas, *self.counters)]
        followed += [(counter.claims_watch, counter.take) for counter in self.counters]
        watch, take = followed[pick % 6]
        watch.deliver(take, 1 + pick // 6 * 4)

    def finish(self, pick: int) -> None:
        """The API server stores an admitted pod, or somebody after us refuses it."""
        waiting = [r for r in self.requests if r.admitted and not r.over]
        if waiting:
            request = waiting[pick % len(waiting)]
            request.over = True
            if pick != 7:
                self._store(request)

    def _store(self, request: Request) -> None:
        request.over = True
        there = self.server.claims if request.claim else self.server.pods
        if any(record.metadata.name == request.name for record in there.values()):
            return  # AlreadyExists
        if request.claim:
            self.server.put_claim(claim_of(request))
        else:
            self.server.put_pod(pod_of(request))
        self.live[request.uid] = request.cores

    def delete(self, pick: int) -> None:
        """A pod or a claim goes."""
        if self.live:
            uid = sorted(self.live)[pick % len(self.live)]
            del self.live[uid]
            if uid in self.server.claims:
                self.server.delete_claim(uid)
            else:
                self.server.delete_pod(uid)

    def choose_cards(self, pick: int) -> None:
        """A pod costs less than it was charged, once its cards are chosen."""
        if pods := sorted(self.live.keys() & self.server.pods.keys()):
            uid = pods[pick % len(pods)]
            self.live[uid] = 500
            name = self.server.pods[uid].metadata.name
            self.server.put_pod(quota_pod(uid, cores=500, name=name))

    def wait(self, pick: int) -> None:
        """Time passes; the API server gives up on what takes too long."""
        self.now_s += (1.0, 20.0, 61.0)[pick % 3]
        for request in self.requests:
            if self.now_s - request.started_s >= REQUEST_S:
                request.over = True

    def step_clock(self, pick: int) -> None:
        """Somebody sets the clock on the wall."""
        self.wall += timedelta(hours=5 if pick % 2 else -5)

    @rule(steps=st.lists(st.tuples(STEPS, st.integers(0, 11)), min_size=10, max_size=40))
    def go(self, steps: list[tuple[str, int]]) -> None:
        """Some of it, in this order."""
        for name, pick in steps:
            getattr(self, name)(pick)
            self.never_exceeded()

    def never_exceeded(self) -> None:
        """``live <= used + reserved <= hard``."""
        state = read(self.server.quotas[NAMESPACE, "team-a"]).ledger
        assert state is not None
        assert sum(self.live.values()) <= state.taken["cores"] <= HARD

    def teardown(self) -> None:
        """Without pods, everything returns to zero."""
        if not hasattr(self, "loop"):
            return
        try:
            tasks = [t for r in self.requests for _, t in r.answers]
            self._end(*self.serving, *tasks, *(t for t in self.counting if t))
            for uid in list(self.server.pods):
                self.server.delete_pod(uid)
            for uid in list(self.server.claims):
                self.server.delete_claim(uid)
            last = Counter(self.server, lambda: self.now_s)
            for _ in range(3):
                self.loop.run_until_complete(last.controller.reconcile(NAMESPACE))
                self.now_s += 61
            status = self.server.quotas[NAMESPACE, "team-a"].status
            assert status.used is not None
            assert (status.used.cores, status.used.pods) == ("0", "0")
            assert not status.reserved
        finally:
            self.loop.close()


Budget.TestCase.settings = settings(
    max_examples=int(os.environ.get("QUOTA_EXAMPLES", "40")),
    stateful_step_count=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_the_budget_is_never_exceeded = Budget.TestCase
