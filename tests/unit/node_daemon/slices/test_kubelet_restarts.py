"""When the kubelet or the daemon restarts, no container gets a wrong or doubled slice."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from gpu_fraction.node_daemon.kubelet.session import Waits
from gpu_fraction.sandbox.kubelet.devices import CHECKPOINT
from tests.support.node_rig import (
    TEMPO,
    Rig,
    StartError,
    inventory,
    node,
    rig_card,
    share,
)


async def test_registers_again_after_a_kubelet_restart(tmp_path: Path) -> None:
    """Full capacity returns, over one stream, and pods go on."""
    async with node(tmp_path, rig_card(0)) as rig:
        before = rig.pod({"main": [share(0)]})
        first = (await rig.run_pod(before))["main"]
        for _ in range(3):
            await rig.kubelet.restart()
            assert not rig.kubelet.devices.endpoint.healthy
            await rig.registered()
        assert await rig.start(before) == first
        await rig.run_pod(rig.pod({"main": [share(0)]}))
        assert len(rig.kubelet.devices.endpoint.healthy) == 32
        assert rig.kubelet.devices.overlaps == 0


async def test_registers_again_when_its_stream_ends(tmp_path: Path) -> None:
    """The kubelet never dials again by itself."""
    async with node(tmp_path, rig_card(0)) as rig:
        stream = rig.kubelet.devices.endpoint.stream
        assert stream is not None
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
        await rig.until(lambda: rig.kubelet.devices.registrations == 2)
        await rig.registered()
        assert rig.kubelet.devices.overlaps == 0


async def test_serves_again_when_its_socket_is_removed(tmp_path: Path) -> None:
    """A starting kubelet removes all sockets, ours too."""
    async with node(tmp_path, rig_card(0)) as rig:
        (socket,) = rig.paths.plugins.glob("gpu-fraction*.sock")
        socket.unlink()
        await rig.until(lambda: rig.kubelet.devices.registrations == 2)
        await rig.registered()
        await rig.run_pod(rig.pod({"main": [share(0)]}))


async def test_daemon_waits_for_a_kubelet_that_comes_later(tmp_path: Path) -> None:
    """Neither the directory nor the socket need be there at start."""
    rig = Rig(tmp_path, inventory(rig_card(0)))
    await rig.start_daemon()
    await asyncio.sleep(0.1)
    await rig.kubelet.start()
    try:
        await rig.ready()
        await rig.run_pod(rig.pod({"main": [share(0)]}))
    finally:
        await rig.kill_daemon()
        await rig.kubelet.stop()


async def test_kubelet_that_was_killed_is_met_again_at_once(tmp_path: Path) -> None:
    """Its socket stays and refuses; the next kubelet is not kept waiting for another try."""
    hour = 3600.0
    waits = Waits(again_s=0.01, retry_s=hour, retry_most_s=hour, poll_s=hour)
    rig = Rig(tmp_path, inventory(rig_card(0)), tempo=replace(TEMPO, waits=waits))
    await rig.kubelet.start()
    await rig.start_daemon()
    try:
        await rig.registered()
        with structlog.testing.capture_logs() as logs:
            await rig.kubelet.kill()
            await rig.until(lambda: any(e["event"] == "registration_failed" for e in logs))
        await rig.kubelet.start()
        await rig.registered()
    finally:
        await rig.kill_daemon()
        await rig.kubelet.stop()


async def test_socket_that_a_starting_kubelet_removes_is_not_waited_for(tmp_path: Path) -> None:
    """Made in the instant before the kubelet's own, it is dialled in vain for ten seconds."""
    rig = Rig(tmp_path, inventory(rig_card(0)))
    rig.kubelet.devices.removes_next = True
    await rig.kubelet.start()
    try:
        with structlog.testing.capture_logs() as logs:
            await rig.start_daemon()
            await rig.registered()
        assert not any(e["event"] == "registration_failed" for e in logs)
        assert {"socket_removed"} == {e["cause"] for e in logs if e["event"] == "registered"}
        await rig.run_pod(rig.pod({"main": [share(0)]}))
    finally:
        await rig.kill_daemon()
        await rig.kubelet.stop()


async def test_daemon_is_known_again_to_a_kubelet_that_missed_its_end(tmp_path: Path) -> None:
    """The next daemon comes before a busy kubelet notices that the last one's stream ended."""
    async with node(tmp_path, rig_card(0)) as rig:
        devices = rig.kubelet.devices
        devices.attentive.clear()
        await rig.kill_daemon()
        await rig.start_daemon()
        await rig.until(lambda: devices.registrations == 2)
        await rig.registered()
        devices.attentive.set()
        await rig.until(lambda: devices.registrations == 3)
        await rig.ready()
        await rig.run_pod(rig.pod({"main": [share(0)]}))
        assert len(list(rig.paths.plugins.glob("gpu-fraction*.sock"))) == 1


async def test_daemon_killed_between_admission_and_start(tmp_path: Path) -> None:
    """The name that was answered before the kill means the right slice after it."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        pods = [rig.pod({"main": [share(i % 2)]}) for i in range(6)]
        for pod in pods:
            await rig.admit(pod)
        await rig.start(pods[0])
        await rig.kill_daemon()
        with pytest.raises(StartError):
            await rig.kubelet.start_container(pods[1].uid, "main")
        await rig.start_daemon()
        await rig.ready()
        for i, pod in enumerate(pods):
            assert (await rig.start(pod)).env["GPU_FRACTION_DEVICES"] == f"GPU-{i % 2}"
        assert rig.sums() == {"GPU-0": (30_000, 3), "GPU-1": (30_000, 3)}


async def test_daemon_killed_in_the_middle_of_a_burst(tmp_path: Path) -> None:
    """Kills at many points of forty starts change nothing about who gets what."""
    async with node(tmp_path, *(rig_card(i) for i in range(4))) as rig:
        pods = [rig.pod({"main": [share(i % 4, 100, 4_000)]}) for i in range(40)]
        for pod in pods:
            await rig.admit(pod)

        async def start(pod_index: int) -> None:
            started = await rig.start(pods[pod_index])
            assert started.env["GPU_FRACTION_DEVICES"] == f"GPU-{pod_index % 4}"

        async with asyncio.TaskGroup() as group:
            for i in range(40):
                group.create_task(start(i))
            for pause in (0.005, 0.02, 0.05):
                await asyncio.sleep(pause)
                await rig.kill_daemon()
                await rig.start_daemon()
                await rig.registered()
        assert rig.sums() == {f"GPU-{i}": (40_000, 10) for i in range(4)}


async def test_skipped_pre_start_fails_closed(tmp_path: Path) -> None:
    """Before the plugin registers again, an unbound name has no file and a bound one its own."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        bound, unbound = (rig.pod({"main": [share(i)]}) for i in (0, 1))
        first = (await rig.run_pod(bound))["main"]
        await rig.admit(unbound)
        await rig.kill_daemon()
        await rig.kubelet.restart()
        assert not rig.kubelet.devices.endpoint.pre_start_required
        assert await rig.kubelet.start_container(bound.uid, "main") == first
        with pytest.raises(StartError, match="0 devices"):
            await rig.kubelet.start_container(unbound.uid, "main")


@pytest.mark.parametrize("checkpoint", [True, False])
async def test_kubelet_that_knows_no_pods_yet(tmp_path: Path, *, checkpoint: bool) -> None:
    """After its restart it lists none for a while; who still pulls an image starts after that."""
    async with node(tmp_path, rig_card(0), checkpoint=checkpoint) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.admit(pod)
        await rig.kubelet.restart(delivered=False)
        await rig.registered()
        seen = rig.kubelet.lists
        await rig.until(lambda: rig.kubelet.lists > seen + 5)
        rig.kubelet.delivered = True
        await rig.start(pod)


async def test_checkpoint_in_another_form_says_nothing(tmp_path: Path) -> None:
    """What a later kubelet may call its fields is no proof that a name is held by nobody."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.admit(pod)
        path = rig.paths.plugins / CHECKPOINT
        path.write_bytes(path.read_bytes().replace(b"PodDeviceEntries", b"Entries"))
        rig.kubelet.delivered = False
        seen = rig.kubelet.lists
        await rig.until(lambda: rig.kubelet.lists > seen + 5)
        rig.kubelet.delivered = True
        await rig.start(pod)


@pytest.mark.parametrize("checkpoint", [True, False])
async def test_name_of_a_pod_that_never_started_is_returned(
    tmp_path: Path, *, checkpoint: bool
) -> None:
    """It is forgotten with its pod, and not before."""
    async with node(tmp_path, rig_card(0), checkpoint=checkpoint) as rig:
        kept, gone = (rig.pod({"main": [share(0)]}) for _ in range(2))
        await rig.run_pod(kept)
        rig.api.put(
            replace(
                kept, containers=tuple(replace(c, container_id="0" * 64) for c in kept.containers)
            )
        )
        await rig.admit(gone)
        assert len(rig.service.state.store) == 2
        rig.end(gone)
        await rig.until(lambda: len(rig.service.state.store) == 1)
