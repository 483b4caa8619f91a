"""Whatever the kubelet, the disk or the API server does: never a wrong or doubled slice."""

import asyncio
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import structlog

from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2 as api
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2_grpc as api_grpc
from node_daemon.isolation.engine import ContainerEdits
from node_daemon.isolation.node import NodeIsolation
from node_daemon.kubelet.session import Waits
from node_daemon.state.allocation import Binding
from sandbox.kubelet.devices import CHECKPOINT
from tests.support.node_rig import (
    TEMPO,
    AdmissionError,
    Rig,
    StartError,
    card,
    inventory,
    node,
    share,
)


@contextmanager
def disk_full() -> Iterator[None]:
    """No file of this process can grow; the kernel refuses each write, the log's apart."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with structlog.testing.capture_logs():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Wedged(NodeIsolation):
    """Isolation that does not return before it is told to."""

    def __init__(self) -> None:
        super().__init__([])
        self.go_on = threading.Event()

    def prepare(self, binding: Binding) -> ContainerEdits:
        """Wait first."""
        self.go_on.wait()
        return super().prepare(binding)


async def test_registers_again_after_a_kubelet_restart(tmp_path: Path) -> None:
    """Full capacity returns, over one stream, and pods go on."""
    async with node(tmp_path, card(0)) as rig:
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
    async with node(tmp_path, card(0)) as rig:
        stream = rig.kubelet.devices.endpoint.stream
        assert stream is not None
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
        await rig.until(lambda: rig.kubelet.devices.registrations == 2)
        await rig.registered()
        assert rig.kubelet.devices.overlaps == 0


async def test_a_second_stream_ends_the_first(tmp_path: Path) -> None:
    """A kubelet that opened another list would lose the daemon when the old one ends."""
    async with node(tmp_path, card(0)) as rig:
        first, socket = rig.kubelet.devices.endpoint.stream, rig.service.session.socket
        assert first is not None
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            second = api_grpc.DevicePluginStub(channel).ListAndWatch(api.Empty())
            await anext(aiter(second))
            await rig.until(first.done)
        await rig.registered()


async def test_serves_again_when_its_socket_is_removed(tmp_path: Path) -> None:
    """A starting kubelet removes all sockets, ours too."""
    async with node(tmp_path, card(0)) as rig:
        (socket,) = rig.paths.plugins.glob("gpu-fraction*.sock")
        socket.unlink()
        await rig.until(lambda: rig.kubelet.devices.registrations == 2)
        await rig.registered()
        await rig.run_pod(rig.pod({"main": [share(0)]}))


async def test_daemon_waits_for_a_kubelet_that_comes_later(tmp_path: Path) -> None:
    """Neither the directory nor the socket need be there at start."""
    rig = Rig(tmp_path, inventory(card(0)))
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
    rig = Rig(tmp_path, inventory(card(0)), tempo=replace(TEMPO, waits=waits))
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
    rig = Rig(tmp_path, inventory(card(0)))
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
    async with node(tmp_path, card(0)) as rig:
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
    async with node(tmp_path, card(0), card(1)) as rig:
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
    async with node(tmp_path, *(card(i) for i in range(4))) as rig:
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
    async with node(tmp_path, card(0), card(1)) as rig:
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
    async with node(tmp_path, card(0), checkpoint=checkpoint) as rig:
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
    async with node(tmp_path, card(0)) as rig:
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
    async with node(tmp_path, card(0), checkpoint=checkpoint) as rig:
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


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("survivor", [0, 1])
async def test_one_id_for_two_pods(tmp_path: Path, *, checkpoint: bool, survivor: int) -> None:
    """Neither pod starts while both hold the id; the one that stays gets its own slice."""
    async with node(tmp_path, card(0), card(1), checkpoint=checkpoint) as rig:
        pods = [rig.pod({"main": [share(i)]}) for i in (0, 1)]
        await rig.admit(pods[0], ["gpu-fraction-slot-0003"])
        await rig.admit(pods[1], ["gpu-fraction-slot-0003"])
        for pod in pods:
            with pytest.raises(StartError, match="to 2 containers"):
                await rig.kubelet.start_container(pod.uid, "main")
        assert {(name, reason) for name, reason, _ in rig.api.events} == {
            (pod.name, "SlotShared") for pod in pods
        }
        assert rig.files() == set()
        rig.end(pods[1 - survivor])
        if checkpoint:
            started = await rig.start(pods[survivor])
            assert started.env["GPU_FRACTION_DEVICES"] == f"GPU-{survivor}"
            return
        # Without the kubelet's notes the later name is taken, once it is certainly listed: the
        # earlier pod then never finds its own, and starts nothing rather than another's slice.
        if survivor == 1:
            assert (await rig.start(pods[1])).env["GPU_FRACTION_DEVICES"] == "GPU-1"
        else:
            await asyncio.sleep(0.1)
            with pytest.raises(StartError, match="0 devices"):
                await rig.kubelet.start_container(pods[0].uid, "main")


async def test_running_container_whose_id_is_given_again(tmp_path: Path) -> None:
    """The owner keeps its slice; the newcomer starts only after the owner has gone."""
    async with node(tmp_path, card(0), card(1)) as rig:
        owner, late = (rig.pod({"main": [share(i)]}) for i in (0, 1))
        await rig.admit(owner, ["gpu-fraction-slot-0000"])
        await rig.start(owner)
        await rig.admit(late, ["gpu-fraction-slot-0000"])
        for pod in (owner, late):
            with pytest.raises(StartError, match="SlotShared"):
                await rig.kubelet.start_container(pod.uid, "main")
        rig.end(owner)
        assert (await rig.start(late)).env["GPU_FRACTION_DEVICES"] == "GPU-1"


async def test_two_pods_of_one_name(tmp_path: Path) -> None:
    """A force-deleted pod and its successor share a name; neither gets the other's slice."""
    async with node(tmp_path, card(0), card(1)) as rig:
        old = rig.pod({"main": [share(0)]}, name="db-0")
        await rig.admit(old)
        rig.api.delete(old.uid)
        new = rig.pod({"main": [share(1)]}, name="db-0")
        with pytest.raises(StartError, match="another pod"):
            await rig.kubelet.start_container(old.uid, "main")
        await rig.admit(new)
        for pod in (old, new):
            with pytest.raises(StartError, match="two pods named ns/db-0"):
                await rig.kubelet.start_container(pod.uid, "main")
        rig.kubelet.remove(old.uid)
        assert (await rig.start(new)).env["GPU_FRACTION_DEVICES"] == "GPU-1"


async def test_rate_limited_pod_resources(tmp_path: Path) -> None:
    """Thirty starts pass although the kubelet answers one question in fifty milliseconds."""
    async with node(tmp_path, card(0)) as rig:
        rig.kubelet.bucket = type(rig.kubelet.bucket)(per_second=20, burst=1)
        pods = [rig.pod({"main": [share(0, 10, 1_000)]}) for _ in range(30)]
        await asyncio.gather(*(rig.run_pod(pod) for pod in pods))
        assert rig.sums() == {"GPU-0": (30_000, 30)}


async def test_kubelet_state_lost(tmp_path: Path) -> None:
    """Ids that the kubelet has forgotten and gives anew never carry an old slice."""
    async with node(tmp_path, card(0), card(1)) as rig:
        owner = rig.pod({"main": [share(0)]})
        await rig.admit(owner, ["gpu-fraction-slot-0000"])
        await rig.start(owner)
        await rig.kubelet.stop()
        rig.kubelet.devices.lose_checkpoint()
        await rig.kubelet.start()
        await rig.registered()
        late = rig.pod({"main": [share(1)]})
        await rig.admit(late, ["gpu-fraction-slot-0000"])
        assert (await rig.start(late)).env["GPU_FRACTION_DEVICES"] == "GPU-1"
        assert rig.sums() == {"GPU-0": (10_000, 1), "GPU-1": (10_000, 1)}


async def test_allocate_needs_no_thread_that_others_may_hold(tmp_path: Path) -> None:
    """The kubelet admits no other pod while it waits for the answer, and waits without end."""
    threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(threads)
    go_on = threading.Event()
    async with node(tmp_path, card(0)) as rig:
        threads.submit(go_on.wait)
        try:
            async with asyncio.timeout(5):
                await rig.admit(rig.pod({"main": [share(0)]}))
        finally:
            go_on.set()


async def test_isolation_that_hangs_stops_its_own_starts_alone(tmp_path: Path) -> None:
    """Any number of starts may wait for it: they hold no thread that anything else needs."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    async with node(tmp_path, card(0)) as rig:
        rig.isolation = wedged = Wedged()
        await rig.kill_daemon()
        await rig.start_daemon()
        await rig.ready()
        pods = [rig.pod({"main": [share(0, 10, 100)]}) for _ in range(4)]
        for pod in pods:
            await rig.admit(pod)
        starts = [asyncio.create_task(rig.start(pod)) for pod in pods]
        try:
            await rig.until(lambda: len(rig.service.state.ledger.holders()) == len(pods))
            late = rig.pod({"main": [share(0)]})
            await rig.admit(late)
        finally:
            wedged.go_on.set()
        await asyncio.gather(*starts)
        await rig.start(late)


async def test_full_disk_at_allocate(tmp_path: Path) -> None:
    """A name that cannot be remembered is not given."""
    async with node(tmp_path, card(0), checkpoint=False) as rig:
        pod = rig.pod({"main": [share(0)]})
        with disk_full(), pytest.raises(AdmissionError, match="StateUnwritable"):
            await rig.admit(pod)
        assert len(rig.service.state.store) == 0
        await rig.run_pod(pod)


async def test_full_disk_at_pre_start(tmp_path: Path) -> None:
    """What cannot be remembered is not taken either, and passes once there is room."""
    async with node(tmp_path, card(0, memory_mib=10_000), checkpoint=False) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.admit(pod)
        with disk_full(), pytest.raises(StartError, match="StateUnwritable"):
            await rig.kubelet.start_container(pod.uid, "main")
        assert rig.files() == set()
        assert rig.service.state.ledger.holders() == ()
        await rig.start(pod)
        assert rig.sums() == {"GPU-0": (10_000, 1)}


async def test_api_server_down(tmp_path: Path) -> None:
    """What is bound restarts without the API server; what it does not show waits."""
    async with node(tmp_path, card(0)) as rig:
        known = rig.pod({"main": [share(0)]})
        first = (await rig.run_pod(known))["main"]
        rig.api.up = False
        await rig.kill_daemon()
        await rig.start_daemon()
        await rig.registered()
        assert await rig.start(known) == first
        late = rig.pod({"main": [share(0)]})
        await rig.admit(late)
        start = asyncio.create_task(rig.start(late))
        await asyncio.sleep(0.1)
        assert not start.done()
        rig.api.come_back()
        assert (await start).env["GPU_FRACTION_DEVICES"] == "GPU-0"


async def test_nothing_is_returned_while_the_api_server_is_down(tmp_path: Path) -> None:
    """A pod that nobody shows is not a pod that is gone."""
    async with node(tmp_path, card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        rig.api.up = False
        await rig.kill_daemon()
        await rig.start_daemon()
        await rig.registered()
        await asyncio.sleep(0.3)
        assert rig.service.state.ledger.usage()["GPU-0"].memory_mib == 10_000
        assert len(rig.files()) == 1


async def test_silent_kubelet_returns_nothing(tmp_path: Path) -> None:
    """Without the kubelet's list a pod's absence from the API proves nothing."""
    async with node(tmp_path, card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        rig.kubelet.bucket = type(rig.kubelet.bucket)(per_second=0, burst=0)
        rig.api.delete(pod.uid)
        await asyncio.sleep(0.2)
        assert len(rig.files()) == 1


async def test_pod_deleted_while_it_starts(tmp_path: Path) -> None:
    """A container of a pod that is gone from the API does not get a slice again."""
    async with node(tmp_path, card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        rig.api.put(replace(pod, phase="Failed"))
        with pytest.raises(StartError, match="has ended"):
            await rig.kubelet.start_container(pod.uid, "main")


async def test_more_than_one_slot_is_refused(tmp_path: Path) -> None:
    """One token a container; the message says so."""
    async with node(tmp_path, card(0)) as rig:
        with pytest.raises(Exception, match=r"exactly 1 of gpu-fraction\.dev/slot, got 2"):
            await rig.service.binder.allocate(["a", "b"])
