"""One replica works at a time, and never one that may have lost its Lease."""

import asyncio
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.election import Election, LeaseTimings
from gpu_fraction.kube.errors import LeaseLostError, NotFoundError
from gpu_fraction.kube.lease import unique_identity
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import LEASES, Address
from gpu_fraction.kube.timestamps import micro_time
from gpu_fraction.kube.timestamps import time as whole_time
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Hang, Late, Reset

pytestmark = pytest.mark.usefixtures("no_blocking_calls")

Manifest = dict[str, Any]
LEASE = LEASES.at("quota", namespace="team-a")
TIMINGS = LeaseTimings(
    duration_s=2, renew_deadline_s=1.2, retry_period_s=0.05, release_timeout_s=0.5
)


class Work:
    """Leader work that only notes how it fares."""

    running: int = 0
    most: int = 0

    def __init__(self, fails_after_s: float | None = None) -> None:
        self.starts = 0
        self.alive = False
        self.fails_after_s = fails_after_s

    async def __call__(self) -> None:
        """Run until cancelled, or fail."""
        self.starts += 1
        self.alive = True
        Work.running += 1
        Work.most = max(Work.most, Work.running)
        try:
            await asyncio.sleep(3600 if self.fails_after_s is None else self.fails_after_s)
            raise RuntimeError("boom")
        finally:
            self.alive = False
            Work.running -= 1


@pytest.fixture(autouse=True)
def _fresh_counts() -> None:
    """No work runs before a test."""
    Work.running = Work.most = 0


def election(client: Client, identity: str = "a", timings: LeaseTimings = TIMINGS) -> Election:
    """A candidate for the Lease of the test."""
    return Election(client, name="quota", namespace="team-a", identity=identity, timings=timings)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.005)


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel a candidate and wait for it."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def spec(client: Client) -> Manifest:
    """The Lease's spec."""
    lease = await client.get(LEASE, Manifest)
    found: Manifest = lease["spec"]
    return found


async def until_spec(client: Client, holds: Callable[[Manifest], bool]) -> Manifest:
    """The Lease's spec once it exists and something holds of it."""
    async with asyncio.timeout(5.0):
        while True:
            with suppress(NotFoundError):
                found = await spec(client)
                if holds(found):
                    return found
            await asyncio.sleep(0.005)


async def test_a_leader_holds_renews_and_gives_back(client: Client) -> None:
    """The Lease names the leader while it works, and nobody afterwards."""
    candidate, work = election(client), Work()
    assert not candidate.is_leader
    task = asyncio.create_task(candidate.run(work))
    await until(lambda: work.alive)
    assert candidate.is_leader
    first = await spec(client)
    second = await until_spec(client, lambda now: now["renewTime"] > first["renewTime"])
    await stop(task)
    third = await spec(client)
    assert first["holderIdentity"] == second["holderIdentity"] == "a"
    assert first["leaseDurationSeconds"] == 2
    assert second["acquireTime"] == first["acquireTime"]
    assert (third["holderIdentity"], third["leaseTransitions"]) == ("", 0)
    assert not work.alive
    assert not candidate.is_leader
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["renewTime"])


async def test_a_renewal_under_way_does_not_keep_the_lease_from_being_given_back(
    api: ApiServer, client: Client
) -> None:
    """Cancelled between the server's write and its answer, the version at hand is old."""
    work = Work()
    task = asyncio.create_task(election(client).run(work))
    await until(lambda: work.alive)
    api.faults.add(Fault(Late(1.0), verb="patch"))
    version = api.storage.revision
    await until(lambda: api.storage.revision > version)
    await stop(task)
    assert (await spec(client))["holderIdentity"] == ""


async def test_the_next_leads_at_once_when_the_lease_is_given_back(client: Client) -> None:
    """A rolling restart does not wait for a Lease to run out; transitions are counted."""
    one, two = Work(), Work()
    # It would last longer than this test may.
    lasting = replace(TIMINGS, duration_s=120, renew_deadline_s=100)
    first = asyncio.create_task(election(client, "a", lasting).run(one))
    await until(lambda: one.alive)
    second = asyncio.create_task(election(client, "b", lasting).run(two))
    await asyncio.sleep(0.2)
    assert two.starts == 0
    await stop(first)
    await until(lambda: two.alive)
    assert (await spec(client))["leaseTransitions"] == 1
    await stop(second)
    assert Work.most == 1


async def test_a_leader_that_cannot_renew_stops_before_another_may_begin(
    api: ApiServer, client: Client
) -> None:
    """However renewal fails, the work is cancelled at the deadline and leads again later."""

    async def fail_and_recover(action: Any) -> None:
        name = type(action).__name__.lower() + str(getattr(action, "code", ""))
        candidate = Election(client, name=name, namespace="team-a", identity="a", timings=TIMINGS)
        work = Work()
        task = asyncio.create_task(candidate.run(work))
        await until(lambda: work.alive)
        fault = api.faults.add(Fault(action, name=name, times=None))
        began = time.monotonic()
        await until(lambda: not work.alive)
        assert time.monotonic() - began < TIMINGS.duration_s
        fault.times = 0
        await until(lambda: work.alive)
        assert work.starts == 2
        await stop(task)

    actions = (Hang(), Reset(), Answer(503), Answer(403))
    await asyncio.gather(*(fail_and_recover(action) for action in actions))


class MovedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time can be moved on."""

    moved_s = 0.0

    def time(self) -> float:
        """Real seconds, and those that were added."""
        return super().time() + self.moved_s


class SlowWrites:
    """The API server as a client sees it: no Lease yet, and writes that take their time."""

    observer = None

    def __init__(self, loop: MovedLoop, write_s: float) -> None:
        self.calls: list[str] = []
        self._loop = loop
        self._write_s = write_s

    async def get(self, _address: Address, _into: type, **_options: Any) -> Any:
        """Nothing is there."""
        self.calls.append("get")
        raise NotFoundError("no such Lease", status=404)

    async def create(self, _at: Address, manifest: Any, into: type, **_options: Any) -> Any:
        """Store the Lease at once, and answer late."""
        self.calls.append("create")
        self._loop.moved_s += self._write_s
        return into(spec=manifest["spec"])

    async def patch(
        self, _at: Address, _kind: PatchKind, body: Any, into: type, **_options: Any
    ) -> Any:
        """The same for a change."""
        self.calls.append("patch")
        return into(spec=body["spec"])


def test_the_time_of_a_renewal_is_the_one_before_its_write() -> None:
    """Others may see the renewal as soon as it was sent, so the leader counts from there."""
    loop = MovedLoop()
    server = SlowWrites(loop, write_s=6.0)
    candidate = election(cast("Client", server), timings=LeaseTimings(15, 10.0, 2.0))
    seen: list[str] = []

    async def work() -> None:
        candidate.check()
        loop.moved_s += 3.9  # 9.9 s after the write was sent, 3.9 s after its answer
        candidate.check()
        seen.append("leads")
        loop.moved_s += 0.2
        with pytest.raises(LeaseLostError):
            candidate.check()
        seen.append("stops")

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(candidate.run(work))
    assert seen == ["leads", "stops"]
    assert server.calls == ["get", "create", "patch"]


async def test_work_that_fails_ends_the_leadership(client: Client) -> None:
    """The error is raised, renewal stops and the Lease is free."""
    candidate = election(client)
    with pytest.raises(ExceptionGroup) as caught:
        await candidate.run(Work(fails_after_s=0.1))
    assert [str(error) for error in caught.value.exceptions] == ["boom"]
    assert (await spec(client))["holderIdentity"] == ""
    assert not candidate.is_leader


async def test_work_that_returns_ends_the_run(client: Client) -> None:
    """Leader work may be a job with an end."""
    done: list[str] = []

    async def job() -> None:
        done.append("yes")

    await election(client).run(job)
    assert done == ["yes"]
    assert (await spec(client))["holderIdentity"] == ""


async def test_a_lease_that_another_took_is_respected(client: Client) -> None:
    """A leader that sees another holder stops and does not write over it."""
    work = Work()
    task = asyncio.create_task(election(client).run(work))
    await until(lambda: work.alive)
    other = {"spec": {"holderIdentity": "other", "leaseDurationSeconds": 60}}
    await client.patch(LEASE, PatchKind.MERGE, other, Manifest)
    await until(lambda: not work.alive)
    await asyncio.sleep(0.2)
    assert (await spec(client))["holderIdentity"] == "other"
    assert work.starts == 1
    await stop(task)


async def test_a_renewal_whose_answer_was_lost_is_no_loss(api: ApiServer, client: Client) -> None:
    """The repeat meets its own first try as a conflict, looks, and goes on."""
    work = Work()
    task = asyncio.create_task(election(client).run(work))
    await until(lambda: work.alive)
    api.faults.add(Fault(Reset(done=True), verb="patch", times=3))
    await asyncio.sleep(0.5)
    assert work.alive
    assert work.starts == 1
    await stop(task)


async def test_a_deleted_lease_is_made_again(client: Client) -> None:
    """An administrator who deletes the Lease does not end the leadership."""
    work = Work()
    task = asyncio.create_task(election(client).run(work))
    await until(lambda: work.alive)
    await client.delete(LEASE)
    await until_spec(client, lambda now: now["holderIdentity"] == "a")
    assert work.starts == 1
    await stop(task)


async def test_clocks_do_not_decide_who_leads(client: Client) -> None:
    """Times in the Lease, however wrong, neither hasten nor delay a takeover."""

    async def take_over(name: str, offset: timedelta) -> None:
        stamp = micro_time(datetime.now(UTC) + offset)
        silent = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "team-a"},
            "spec": {
                "holderIdentity": "silent",
                "leaseDurationSeconds": 1,
                "renewTime": stamp,
                "acquireTime": stamp,
                "leaseTransitions": 6,
            },
        }
        await client.create(LEASES.at(namespace="team-a"), silent, Manifest)
        work = Work()
        candidate = Election(client, name=name, namespace="team-a", identity="a", timings=TIMINGS)
        task = asyncio.create_task(candidate.run(work))
        await asyncio.sleep(0.5)
        assert work.starts == 0
        await until(lambda: work.alive)
        taken = await client.get(LEASES.at(name, namespace="team-a"), Manifest)
        assert taken["spec"]["leaseTransitions"] == 7
        await stop(task)

    await asyncio.gather(
        take_over("behind", timedelta(days=-400)), take_over("ahead", timedelta(days=400))
    )


async def test_labels_of_others_stay_on_the_lease(client: Client) -> None:
    """Renewals write the spec alone."""
    work = Work()
    task = asyncio.create_task(election(client).run(work))
    await until(lambda: work.alive)
    await client.patch(LEASE, PatchKind.MERGE, {"metadata": {"labels": {"a": "1"}}}, Manifest)
    await asyncio.sleep(0.15)
    lease = await client.get(LEASE, Manifest)
    assert lease["metadata"]["labels"] == {"a": "1"}
    assert work.starts == 1
    await stop(task)


async def test_a_process_that_was_stopped_finds_out_before_it_writes(client: Client) -> None:
    """Right after a long stop the work may run on for a moment; check() catches it."""
    seen: list[str] = []
    candidate = election(client)

    async def work() -> None:
        candidate.check()
        seen.append("leads")
        stopped_until = time.monotonic() + TIMINGS.renew_deadline_s + 0.1
        while time.monotonic() < stopped_until:
            pass
        try:
            candidate.check()
        except LeaseLostError:
            seen.append("lost")
            await asyncio.sleep(3600)

    task = asyncio.create_task(candidate.run(work))
    await until(lambda: "lost" in seen)
    await stop(task)


async def test_a_cancellation_that_meets_a_loss_is_not_swallowed(client: Client) -> None:
    """Both in one turn of the event loop: the candidate ends, and does not lead again."""
    starts: list[int] = []

    async def work() -> None:
        starts.append(1)
        await asyncio.sleep(0)
        task.cancel()
        raise LeaseLostError("at the same moment")

    task = asyncio.create_task(election(client).run(work))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(starts) == 1


async def test_no_two_replicas_ever_work_at_once(api: ApiServer, client: Client) -> None:
    """Four candidates under random faults: the work of one has ended before another's begins."""
    rng = random.Random(7)
    works = [Work() for _ in range(4)]
    timings = LeaseTimings(
        duration_s=1, renew_deadline_s=0.15, retry_period_s=0.02, release_timeout_s=0.05
    )
    tasks = [
        asyncio.create_task(election(client, f"r{n}", timings).run(work))
        for n, work in enumerate(works)
    ]
    actions = [Hang(), Reset(), Reset(done=True), Answer(503), Answer(409), Answer(429)]
    for _ in range(25):
        api.faults.add(Fault(rng.choice(actions), times=rng.randint(1, 12)))
        await asyncio.sleep(0.05)
    api.faults.clear()
    await until(lambda: Work.running == 1)
    for task in tasks:
        await stop(task)
    assert Work.most == 1
    assert sum(work.starts for work in works) > 1


def test_identities_do_not_repeat() -> None:
    """A pod that restarts under its name is another candidate."""
    assert len({unique_identity("pod-0") for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"retry_period_s": 10.0},
        {"renew_deadline_s": 15.0},
        {"retry_period_s": 0.0},
        {"duration_s": 1},  # below the default deadline
    ],
)
def test_timings_that_cannot_be_safe_are_refused(wrong: dict[str, Any]) -> None:
    """A leader must give up before another may begin."""
    with pytest.raises(ValueError, match="must hold"):
        LeaseTimings(**wrong)


def test_times_are_written_in_utc_with_all_their_digits() -> None:
    """Another zone is converted, a zero fraction is kept."""
    new_york = timezone(timedelta(hours=-5))
    moment = datetime(2030, 1, 2, 20, 4, 5, tzinfo=new_york)
    assert micro_time(moment) == "2030-01-03T01:04:05.000000Z"
    assert whole_time(moment) == "2030-01-03T01:04:05Z"
