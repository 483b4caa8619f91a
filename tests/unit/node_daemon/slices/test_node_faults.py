"""A full disk, a hanging engine or a silent API server gives no wrong or doubled slice."""

import asyncio
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from gpu_fraction.node_daemon.isolation.engine import ContainerEdits
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.state.allocation import Binding
from tests.support.node_rig import (
    AdmissionError,
    StartError,
    node,
    rig_card,
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


async def test_allocate_needs_no_thread_that_others_may_hold(tmp_path: Path) -> None:
    """The kubelet admits no other pod while it waits for the answer, and waits without end."""
    threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(threads)
    go_on = threading.Event()
    async with node(tmp_path, rig_card(0)) as rig:
        threads.submit(go_on.wait)
        try:
            async with asyncio.timeout(5):
                await rig.admit(rig.pod({"main": [share(0)]}))
        finally:
            go_on.set()


async def test_isolation_that_hangs_stops_its_own_starts_alone(tmp_path: Path) -> None:
    """Any number of starts may wait for it: they hold no thread that anything else needs."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    async with node(tmp_path, rig_card(0)) as rig:
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
    async with node(tmp_path, rig_card(0), checkpoint=False) as rig:
        pod = rig.pod({"main": [share(0)]})
        with disk_full(), pytest.raises(AdmissionError, match="StateUnwritable"):
            await rig.admit(pod)
        assert len(rig.service.state.store) == 0
        await rig.run_pod(pod)


async def test_full_disk_at_pre_start(tmp_path: Path) -> None:
    """What cannot be remembered is not taken either, and passes once there is room."""
    async with node(tmp_path, rig_card(0, memory_mib=10_000), checkpoint=False) as rig:
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
    async with node(tmp_path, rig_card(0)) as rig:
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
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        rig.api.up = False
        await rig.kill_daemon()
        await rig.start_daemon()
        await rig.registered()
        await asyncio.sleep(0.3)
        assert rig.service.state.ledger.usage()["GPU-0"].memory_mib == 10_000
        assert len(rig.files()) == 1


async def test_pod_deleted_while_it_starts(tmp_path: Path) -> None:
    """A container of a pod that is gone from the API does not get a slice again."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        rig.api.put(replace(pod, phase="Failed"))
        with pytest.raises(StartError, match="has ended"):
            await rig.kubelet.start_container(pod.uid, "main")
