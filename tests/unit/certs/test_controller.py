"""The lease holder's loop: what it does when requests fail, and when it is not alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.certs import commands, pki
from gpu_fraction.certs.controller import Controller
from gpu_fraction.certs.replica_leases import LABEL, Heartbeat, ReplicaIdentity, ReplicaLister
from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.state import CaState, Phase
from gpu_fraction.kube import errors
from gpu_fraction.kube.election import LeaseLostError
from gpu_fraction.kube.resources import MUTATING_WEBHOOKS
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.sandbox.apiserver import Answer, Fault, Reset
from tests.support.certs_cluster import INSTALLATION, LIFETIMES, NAMESPACE, Cluster, cluster

CONFIG = MUTATING_WEBHOOKS.at("gpu-fraction")
HOOKS = MUTATING_WEBHOOKS.qualified
QUICK = replace(LIFETIMES, settle_s=0.02, retire_s=0.02, heartbeat_s=0.5)


def controller(made: Cluster, **changes: Any) -> Controller:
    """A lease holder of its own."""
    installation = replace(INSTALLATION, **changes)
    reporter = Reporter(CollectorRegistry(), INSTALLATION)
    return Controller(made.client, installation, QUICK, reporter=reporter)


def nothing() -> None:
    """A check that always passes."""


@asynccontextmanager
async def obedient_replica(made: Cluster) -> AsyncIterator[None]:
    """A replica that serves a leaf of the CA that signs, and reports it."""
    heartbeat = Heartbeat(made.client, INSTALLATION, ReplicaIdentity(name="a"), QUICK)

    async def follow() -> None:
        reported = ""
        while True:
            state = await made.state()
            issuer = None
            if state is not None:
                issuer = state.next if state.phase is Phase.SWITCH else state.current
            late = heartbeat.idle_s() > QUICK.heartbeat_s
            if issuer is not None and (late or issuer.fingerprint != reported):
                leaf = pki.issue_leaf(issuer, ["a"], utc_now(), QUICK)
                with suppress(errors.KubeError):
                    await heartbeat.report(leaf, utc_now())
                    reported = issuer.fingerprint
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        yield
        task.cancel()


async def drive(made: Cluster, holders: list[Controller], goal: Callable[[CaState], bool]) -> None:
    """Step after step, the holders in turn; one whose step fails has crashed and starts anew."""
    async with asyncio.timeout(20):
        while True:
            for index, holder in enumerate(holders):
                try:
                    await holder.step(nothing)
                except errors.KubeError:
                    holders[index] = controller(made)
            state = await made.state()
            if state is not None and goal(state):
                return
            await asyncio.sleep(0.005)


def steady(state: CaState) -> bool:
    """No rotation is under way or asked for."""
    return state.phase is Phase.STEADY and not state.rotate_ca


@pytest.mark.parametrize("done", [True, False], ids=["answer lost", "request lost"])
@pytest.mark.parametrize("skip", range(0, 12, 3))
async def test_a_crash_in_any_write(skip: int, done: bool) -> None:
    """Whether or not the write that it died in came through, the rotation is finished."""
    async with cluster() as made, obedient_replica(made):
        await drive(made, [controller(made)], steady)
        first = await made.state()
        await commands.rotate(made.client, INSTALLATION, ca=True)
        # No attempt is repeated: a 409 follows where the first try came through.
        made.api.faults.add(Fault(Reset(done=done), verb="patch", skip=skip, times=3))
        await drive(made, [controller(made)], lambda s: steady(s) and s.current != first.current)  # type: ignore[union-attr]
        made.api.faults.clear()
        state = await made.state()
        assert state is not None
        assert state.current is not None
        assert set((await made.bundles()).values()) == {state.current.certificate.pem}


async def test_two_holders_at_once() -> None:
    """Both believe that they may write; one rotation comes of one request."""
    async with cluster() as made, obedient_replica(made):
        holders = [controller(made), controller(made)]
        await drive(made, holders, steady)
        first = await made.state()
        await commands.rotate(made.client, INSTALLATION, ca=True)
        seen = set()

        async def one(holder: Controller) -> None:
            while True:
                with suppress(errors.ConflictError, errors.AlreadyExistsError):
                    await holder.step(nothing)
                state = await made.state()
                if state is not None and state.next is not None:
                    seen.add(state.next.fingerprint)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(holder)) for holder in holders]
            await made.until(
                lambda s: s is not None and steady(s) and s.current != first.current,  # type: ignore[union-attr]
                "rotated",
            )
            for task in tasks:
                task.cancel()
        assert len(seen) == 1


async def test_nothing_is_written_without_the_lease() -> None:
    """A process that was stopped and continued does not act on what it knew."""

    def lost() -> None:
        raise LeaseLostError("another leads")

    async with cluster() as made:
        with pytest.raises(LeaseLostError):
            await controller(made).step(lost)
        assert await made.state() is None


async def test_failures_are_tried_again() -> None:
    """A server that refuses for a while is asked again, later each time."""
    async with cluster() as made, obedient_replica(made):
        made.api.faults.add(Fault(Answer(403), verb="get", resource=HOOKS, times=2))
        task = asyncio.create_task(controller(made).run(nothing))
        await made.until(lambda s: s is not None and steady(s), "steady")
        task.cancel()


async def test_one_configuration_that_cannot_be_written_stops_no_other() -> None:
    """The rest is repaired all the same, and the failure is reported."""
    async with cluster() as made:
        fault = Fault(Answer(403), verb="patch", resource=HOOKS, times=None)
        made.api.faults.add(fault)
        holder = controller(made)
        for _ in range(2):
            await holder.step(nothing)
        with pytest.raises(errors.ForbiddenError):
            await holder.step(nothing)
        found = await made.bundles()
        assert found["mutate.gpu-fraction.dev"] == ""
        assert found["validate.gpu-fraction.dev"] != ""


async def test_who_fights_for_a_bundle_is_answered_once_a_second() -> None:
    """Two controllers that disagree do not load the API server without end."""
    async with cluster() as made, obedient_replica(made):
        holder = controller(made)
        await drive(made, [holder], steady)
        before = made.api.calls.count(("patch", HOOKS))
        fights = 100
        for _ in range(fights):
            config = await made.client.get(CONFIG, dict[str, Any])
            config["webhooks"][0]["clientConfig"]["caBundle"] = ""
            await made.client.replace(CONFIG, config, dict[str, Any])
            await holder.step(nothing)
        assert made.api.calls.count(("patch", HOOKS)) - before < fights / 2


async def test_a_leaf_that_others_trust_stops_nothing() -> None:
    """After an issuer of self-signed leaves, whose leaf the caBundles hold: ours is added."""
    maker = pki.new_authority("somebody", utc_now(), QUICK)
    theirs = pki.issue_leaf(maker, ["a"], utc_now(), QUICK).certificate
    async with cluster() as made, obedient_replica(made):
        await made.set_bundles(theirs.pem)
        await drive(made, [controller(made)], steady)
        state = await made.state()
        assert state is not None
        assert state.current is not None
        wanted = state.current.certificate.pem + theirs.pem
        assert set((await made.bundles()).values()) == {wanted}


async def test_webhooks_of_others_are_left_alone() -> None:
    """A webhook that points to another Service gets no caBundle from us."""
    async with cluster() as made, obedient_replica(made):
        config = await made.client.get(CONFIG, dict[str, Any])
        foreign = {"service": {"name": "other", "namespace": NAMESPACE}}
        config["webhooks"].append(config["webhooks"][0] | {"name": "x", "clientConfig": foreign})
        await made.client.replace(CONFIG, config, dict[str, Any])
        await drive(made, [controller(made)], steady)
        found = await made.bundles()
        assert found["x"] == ""
        assert found["validate.gpu-fraction.dev"] != ""


async def test_the_roster_forgets_who_is_silent() -> None:
    """Only after it has itself watched the silence, and never while it could not look."""
    lifetimes = replace(QUICK, heartbeat_s=0.2)
    async with cluster() as made:
        async with obedient_replica(made):
            await drive(made, [controller(made)], steady)
            lister = ReplicaLister(made.client, INSTALLATION, lifetimes)
            async with asyncio.timeout(10):
                while not await lister.read():  # the last report comes after Steady
                    await asyncio.sleep(0.01)
        await asyncio.sleep(lifetimes.replica_gone_s)
        assert len(await lister.read()) == 1, "it has not looked for a while"
        async with asyncio.timeout(10):
            while await lister.read():
                await asyncio.sleep(0.1)


async def test_a_lease_that_makes_no_sense_serves_nothing() -> None:
    """Somebody else's Lease under our label holds nothing up."""
    async with cluster() as made:
        labels = {LABEL: INSTALLATION.service}
        made.api.add(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "odd", "namespace": NAMESPACE, "labels": labels},
            }
        )
        replicas = await ReplicaLister(made.client, INSTALLATION, QUICK).read()
        assert [(r.name, r.serves(utc_now())) for r in replicas] == [("odd", False)]
