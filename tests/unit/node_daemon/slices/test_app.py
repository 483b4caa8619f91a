"""The whole daemon, from NVML and the API server to the kubelet."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.resources import EVENTS, PODS
from gpu_fraction.node_daemon.app import NodeDaemon
from gpu_fraction.node_daemon.cards.inventory_reader import CardReading
from gpu_fraction.node_daemon.cards.source import Cards
from gpu_fraction.node_daemon.settings import NodeDaemonSettings
from gpu_fraction.sandbox.apiserver.server import ApiServer
from gpu_fraction.sandbox.kubelet.devices import StartError
from gpu_fraction.sandbox.kubelet.kubelet import FakeKubelet, KubeletPod
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeHardware
from tests.support import fake_gpus
from tests.support.access import fixed, kubeconfig
from tests.support.fake_cards import FakeCards
from tests.support.node_rig import TEMPO
from tests.support.settings import configured

NODE = "node-1"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class World:
    """Everything around the daemon."""

    def __init__(self, root: Path, server: ApiServer, client: Client) -> None:
        self.server = server
        self.client = client
        self.port = free_port()
        self.kubelet = FakeKubelet(root / "k", root / "cdi", keys.SLOT)
        flags = {
            "node_name": NODE,
            "kubelet_dir": root / "k",
            "state_dir": root / "state",
            "cdi_dir": root / "cdi",
            "host_cdi_dirs": root / "cdi",
            "slots_per_card": 8,
            "host": "127.0.0.1",
            "port": self.port,
            "poll_interval": 0.1,
            "isolation": "",
        }
        settings = configured(NodeDaemonSettings, **flags)
        cards = replace(settings.cards, event_wait_s=0.02)
        self.settings = replace(settings, tempo=TEMPO, cards=cards)

    @asynccontextmanager
    async def daemon(self, cards: Cards | None = None) -> AsyncIterator[None]:
        """The daemon while the block runs; it ends as on SIGTERM."""
        stop = asyncio.Event()
        open_cards = None if cards is None else lambda: cards
        daemon = NodeDaemon(self.settings, self.client, CollectorRegistry(), open_cards)
        task = asyncio.create_task(daemon.run(stop))
        try:
            async with asyncio.timeout(8):
                while await self.get("/readyz") != (200, "ok\n"):
                    await asyncio.sleep(0.02)
            yield
        finally:
            stop.set()
            await task

    async def get(self, path: str) -> tuple[int, str]:
        """One of the daemon's pages."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def tokens(self) -> int:
        """How many the kubelet has, once it has any: the daemon is ready before that."""
        async with asyncio.timeout(5):
            while not (healthy := self.kubelet.devices.endpoint.healthy):
                await asyncio.sleep(0.02)
        return len(healthy)

    async def pod(self, name: str, uuid: str | None, memory_mib: int = 2_000) -> KubeletPod:
        """A pod at the API server and the kubelet."""
        await self.tokens()
        limits = {keys.SLOT: "1", keys.CORE_MILLI: "100", keys.MEMORY_MIB: str(memory_mib)}
        notes = {}
        if uuid is not None:
            shares = (CardShare(uuid, 100, memory_mib),)
            notes[keys.ASSIGNED] = assignment.render({"main": shares})
        self.server.add(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "annotations": notes},
                "spec": {
                    "nodeName": NODE,
                    "containers": [{"name": "main", "resources": {"limits": limits}}],
                },
                "status": {"phase": "Pending"},
            }
        )
        made = KubeletPod("default", name, (await self.read(name))["metadata"]["uid"], ("main",))
        await self.kubelet.admit(made)
        return made

    async def read(self, name: str) -> dict[str, Any]:
        """A pod."""
        found: dict[str, Any] = await self.client.get(PODS.at(name, namespace="default"), dict)
        return found


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Two fake cards, a kubelet, an API server."""
    hardware: FakeHardware = fake_gpus.plug_in(tmp_path)
    monkeypatch.setenv(VARIABLE, str(hardware.directory))
    server = ApiServer()
    server.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": {}})
    async with server.serve(), connect(fixed(Access(server.url)), component="test") as client:
        made = World(tmp_path, server, client)
        (tmp_path / "cdi").mkdir()
        await made.kubelet.start()
        yield made
        await made.kubelet.stop()


async def test_slices_from_nvml_to_the_container(world: World) -> None:
    """Cards become capacity, an assigned and a chosen pod start, metrics and probes tell it."""
    async with world.daemon():
        assert await world.tokens() == 16
        assigned = await world.pod("assigned", fake_gpus.uuid(1))
        chosen = await world.pod("chosen", None)
        started = await world.kubelet.start_container(assigned.uid, "main")
        assert started.env["GPU_FRACTION_DEVICES"] == fake_gpus.uuid(1)
        started = await world.kubelet.start_container(chosen.uid, "main")
        written = (await world.read("chosen"))["metadata"]["annotations"][keys.ASSIGNED]
        assert started.env["GPU_FRACTION_DEVICES"] in written
        assert await world.get("/livez") == (200, "ok\n")
        lines = (
            f'gpu_fraction_card_slices{{uuid="{fake_gpus.uuid(1)}"}}',
            f'pod="assigned",uuid="{fake_gpus.uuid(1)}"}} 2.097152e+09',
            f'gpu_fraction_card_memory_used_bytes{{uuid="{fake_gpus.uuid(0)}"}}',
        )
        async with asyncio.timeout(8):  # use is what the last reading of the cards found
            while True:
                _, metrics = await world.get("/metrics")
                if all(line in metrics for line in lines):
                    break
                await asyncio.sleep(0.02)
    assert await world.get("/livez") == (0, "")


async def test_a_container_starts_on_a_card_in_pure_python(world: World) -> None:
    """Nothing between the reading of the cards and the container needs NVML."""
    async with world.daemon(FakeCards(CardReading(0, "FAKE-0", "Fake", 16_000))):
        pod = await world.pod("main", None)
        started = await world.kubelet.start_container(pod.uid, "main")
        assert started.env["GPU_FRACTION_DEVICES"] == "FAKE-0"
        assert 'gpu_fraction_card_slices{uuid="FAKE-0"} 1.0' in (await world.get("/metrics"))[1]


async def test_refusal_is_an_event_on_the_pod(world: World) -> None:
    """``kubectl describe pod`` tells why the container does not start."""
    async with world.daemon():
        pod = await world.pod("large", fake_gpus.uuid(0), memory_mib=200_000)
        with pytest.raises(StartError, match="no room"):
            await world.kubelet.start_container(pod.uid, "main")
        async with asyncio.timeout(5):
            while not (events := await world.client.list(EVENTS.at(), dict)).items:
                await asyncio.sleep(0.02)
        event = events.items[0]
        assert (event["type"], event["reason"]) == ("Warning", "CardFull")
        assert event["involvedObject"]["uid"] == pod.uid
        assert "200000 of" in event["message"]


async def test_a_second_daemon_on_the_node_ends_with_a_reason(tmp_path: Path) -> None:
    """Two would remove each other's sockets; the next one starts once the first is gone."""
    plugins = tmp_path / "k" / "device-plugins"
    kubelet = FakeKubelet(tmp_path / "k", tmp_path / "cdi", keys.SLOT)
    server = ApiServer()
    server.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": {}})

    async def daemon() -> asyncio.subprocess.Process:
        paths = {"kubelet": "k", "state": "state", "cdi": "cdi"}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gpu_fraction.cli.main", "node-daemon", "--port=0"),
            *(f"--node-name={NODE}", f"--kubeconfig={kubeconfig(tmp_path, server.url)}"),
            *(f"--{name}-dir={tmp_path / path}" for name, path in paths.items()),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )

    async def serves() -> set[str]:
        async with asyncio.timeout(30):
            while not (sockets := {p.name for p in plugins.glob("gpu-fraction*.sock")}):
                await asyncio.sleep(0.02)
        return sockets

    async with server.serve():
        await kubelet.start()
        first = await daemon()
        try:
            sockets = await serves()
            second = await daemon()
            _, said = await second.communicate()
            assert second.returncode == 2
            assert said.decode() == (
                "gpu-fraction: another node daemon runs on this node and holds "
                f"{tmp_path}/state/node-daemon.lock: stop it first\n"
            )
            assert await serves() == sockets
            first.kill()
            await first.communicate()
            first = await daemon()
            async with asyncio.timeout(30):
                while await serves() <= sockets:
                    await asyncio.sleep(0.02)
        finally:
            with suppress(ProcessLookupError):
                first.kill()
            await first.communicate()
            await kubelet.stop()
