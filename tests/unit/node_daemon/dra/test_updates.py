"""Two daemons of one node: the next one is registered before the last one ends."""

import asyncio
import copy
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.kube.resources import RESOURCE_CLAIMS, RESOURCE_SLICES
from gpu_fraction.kubelet_api import dra_v1_pb2 as api
from gpu_fraction.kubelet_api import dra_v1_pb2_grpc as api_grpc
from gpu_fraction.kubelet_api.dra_v1_pb2_grpc import add_DRAPluginServicer_to_server
from gpu_fraction.node_daemon.app import NodeDaemon
from gpu_fraction.node_daemon.dra.registration import listening
from gpu_fraction.node_daemon.dra.relay import Relay
from gpu_fraction.node_daemon.dra.service import DraService
from gpu_fraction.node_daemon.state.errors import LockedError
from gpu_fraction.node_daemon.state.turn import Turn
from gpu_fraction.sandbox.apiserver import Fault, Slow
from gpu_fraction.sandbox.nvml import build
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeCard, FakeHardware
from tests.support.access import kubeconfig
from tests.support.dra_rig import NODE, WHOLE, World, card, free_port, result, until
from tests.support.fake_cards import FakeCards


def view(world: World, uid: str) -> World:
    """The same node, seen by the daemon of another pod."""
    other = copy.copy(world)
    other.port = free_port()
    other.registrar = world.root / "k" / "plugins_registry" / f"gpu-fraction.dev-{uid}-reg.sock"
    other.settings = replace(world.settings, pod_uid=uid, port=other.port)
    return other


def slice_writes(world: World) -> int:
    """How often a slice was written."""
    changes = world.server.storage.since(0)
    return sum(c.qualified == RESOURCE_SLICES.qualified for c in changes)


async def allocated(world: World) -> str:
    """What the daemon counts on its first card, as its metrics say."""
    _, text = await world.get("/metrics")
    prefix = 'gpu_fraction_card_allocated_core_milli{uuid="GPU-0"} '
    return "".join(line.removeprefix(prefix) for line in text.splitlines() if prefix in line)


async def test_a_daemon_that_waits_is_ready_and_passes_claims_on(world: World) -> None:
    """One daemon keeps the books and writes the slices, whichever the kubelet calls."""
    old, new = view(world, "old"), view(world, "new")
    async with old.daemon(FakeCards(card(0))):
        before = slice_writes(world)
        async with new.daemon(FakeCards(card(0))):
            claim = world.claim("one", result(0))
            assert (await new.start(claim)).env["GPU_FRACTION"] == "0.25"
            assert await old.prepare(claim) == await new.prepare(claim)
            assert await allocated(old) == "250.0"
            assert await allocated(new) == ""
            assert "one" in await new.unprepare(claim)
            assert world.files() == set()
            assert (await new.get("/readyz"), await new.get("/livez")) == (
                (200, "ok\n"),
                (200, "ok\n"),
            )
            assert slice_writes(world) == before
        assert await old.fault(world.claim("two", result(0))) == ""


async def test_the_books_go_over_with_the_turn(world: World) -> None:
    """What the last daemon gave is counted and taken back by the next one."""
    old, new = view(world, "old"), view(world, "new")
    given, late = world.claim("given", result(0, WHOLE)), world.claim("late", result(0))
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(old.daemon(FakeCards(card(0))))
        await old.start(given)
        (before,) = world.slices()
        await second.enter_async_context(new.daemon(FakeCards(card(0))))
        await first.aclose()
        assert not old.registrar.exists()
        assert not old.endpoint.exists()
        assert "has no room" in await new.fault(late)
        assert await new.unprepare(given) == {"given": ""}
        assert await new.fault(late) == ""
        (after,) = world.slices()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["spec"] == before["spec"]


async def test_calls_in_progress_are_finished_by_the_daemon_that_ends(world: World) -> None:
    """The next one reads the books only then, and counts what they gave."""
    old, new = view(world, "old"), view(world, "new")
    given, late = world.claim("given", result(0, WHOLE)), world.claim("late", result(0))
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(old.daemon(FakeCards(card(0))))
        await second.enter_async_context(new.daemon(FakeCards(card(0))))
        slow = Fault(Slow(0.5), verb="get", resource=RESOURCE_CLAIMS.qualified)
        world.server.faults.add(slow)
        call = asyncio.create_task(new.prepare(given))
        await until(lambda: slow.times == 0)
        await first.aclose()
        assert (await call)["given"].error == ""
        assert "has no room" in await new.fault(late)


async def test_a_call_is_given_up_where_nobody_answers(tmp_path: Path) -> None:
    """The daemon whose turn it is neither answers nor ends; the kubelet tries again."""
    with Turn(tmp_path, str(tmp_path / "dead.sock"), waits=False) as held:
        await held.take()
        unused: Any = None
        turn = Turn(tmp_path, "mine", waits=True)
        await turn.take()
        relay = Relay(DraService(unused, unused, unused), turn, deadline_s=0.3)
        socket = tmp_path / "relay.sock"
        async with (
            listening(socket, lambda server: add_DRAPluginServicer_to_server(relay, server)),
            grpc.aio.insecure_channel(f"unix:{socket}") as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="neither answered nor ended: ") as e:
                await api_grpc.DRAPluginStub(channel).NodePrepareResources(
                    api.NodePrepareResourcesRequest()
                )
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_no_call_fails_while_daemons_follow_each_other(world: World) -> None:
    """Claims come and go at the daemon that has registered last, as the kubelet sends them."""
    last, faults, calls = view(world, "d0"), [], 0
    stack = await AsyncExitStack().__aenter__()
    await stack.enter_async_context(last.daemon(FakeCards(card(0))))
    claims = [world.claim(f"c{i}", result(0)) for i in range(4)]
    ended = asyncio.Event()

    async def live(name: str) -> None:
        nonlocal calls
        claim = next(c for c in claims if c["metadata"]["name"] == name)
        while not ended.is_set():
            faults.append(await last.fault(claim))
            faults.extend((await last.unprepare(claim)).values())
            calls += 1

    async with asyncio.TaskGroup() as tasks:
        for claim in claims:
            tasks.create_task(live(claim["metadata"]["name"]))
        for number in range(1, 4):
            following, before = AsyncExitStack(), calls
            successor = view(world, f"d{number}")
            await following.enter_async_context(successor.daemon(FakeCards(card(0))))
            last = successor
            await stack.aclose()
            stack = following
            async with asyncio.timeout(8):
                while calls < before + len(claims):
                    await asyncio.sleep(0.01)
        ended.set()
    await stack.aclose()
    assert {*faults} == {""}
    assert world.files() == set()


async def test_a_call_waits_for_a_daemon_that_has_nobody_to_ask(world: World) -> None:
    """The node served the device plugin's way before, so that one cannot answer for claims."""
    plugin = replace(world.settings, mode="device-plugin")
    stop, new = asyncio.Event(), view(world, "new")
    before = NodeDaemon(plugin, world.client, CollectorRegistry(), lambda: FakeCards(card(0)))
    task = asyncio.create_task(before.run(stop))
    await until((world.root / "state" / "allocations").exists)
    async with new.daemon(FakeCards(card(0)), ready=False):
        call = asyncio.create_task(new.fault(world.claim("one", result(0))))
        assert await asyncio.wait({call}, timeout=0.3) == (set(), {call})
        assert await new.get("/readyz") == (200, "ok\n")
        stop.set()
        await task
        assert await call == ""


@pytest.mark.parametrize("uid", ["", "same"])
async def test_daemons_that_would_share_a_socket_do_not_wait(world: World, uid: str) -> None:
    """The second one would take the first one's away."""
    one = view(world, "same")
    if not uid:
        one.registrar, one.settings = world.registrar, replace(one.settings, pod_uid="")
    async with one.daemon(FakeCards(card(0))):
        two = NodeDaemon(one.settings, world.client, CollectorRegistry(), FakeCards)
        with pytest.raises(LockedError, match="another node daemon runs on this node"):
            await two.run(asyncio.Event())
        assert await one.fault(world.claim("one", result(0))) == ""


async def test_a_killed_daemon_is_followed_at_once(world: World) -> None:
    """The next one passes claims on, and then has the turn, the books and no dead sockets."""
    hardware = FakeHardware(world.root / "gpus")
    hardware.cards[:] = [FakeCard(uuid="GPU-0")]
    hardware.apply()
    old, new = view(world, "old"), view(world, "new")
    given, late = world.claim("given", result(0, WHOLE)), world.claim("late", result(0))
    async with process(old, hardware) as killed:
        await old.register()
        await until(lambda: world.slices() != [], 30)
        assert await old.fault(given) == ""
        async with process(new, hardware):
            await new.register()
            assert await new.prepare(given) == await old.prepare(given)
            killed.kill()
            await killed.wait()
            assert "has no room" in await new.fault(late)
            assert await new.unprepare(given) == {"given": ""}
            assert await new.fault(late) == ""
            await until(lambda: not old.registrar.exists() and not old.endpoint.exists())


@asynccontextmanager
async def process(world: World, hardware: FakeHardware) -> AsyncIterator[Process]:
    """The daemon as a process of its own."""
    given = world.settings
    folders = {"kubelet": given.paths.kubelet, "state": given.paths.state, "cdi": given.paths.cdi}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gpu_fraction.cli.main", "node-daemon", "--mode=dra"),
        *(f"--pod-uid={given.pod_uid}", f"--node-name={NODE}", "--isolation=", "--host=127.0.0.1"),
        *(f"--{name}-dir={folder}" for name, folder in folders.items()),
        *(f"--port={given.port}", f"--host-cdi-dirs={world.root / 'etc-cdi'}"),
        f"--kubeconfig={kubeconfig(world.root, world.server.url)}",
        env={
            **os.environ,
            VARIABLE: str(hardware.directory),
            "LD_LIBRARY_PATH": str(build.build().parent),
        },
        stdout=DEVNULL,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
