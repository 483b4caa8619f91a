"""The driver and the kubelet: sockets, registration, health."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.domain import dra
from gpu_fraction.kubelet_api import dra_health_v1_pb2 as v1
from gpu_fraction.kubelet_api import dra_health_v1_pb2_grpc as v1_grpc
from gpu_fraction.kubelet_api import dra_health_v1alpha1_pb2 as v1alpha1
from gpu_fraction.kubelet_api import dra_health_v1alpha1_pb2_grpc as v1alpha1_grpc
from gpu_fraction.node_daemon.app import NodeDaemon
from gpu_fraction.node_daemon.cards import health_events
from gpu_fraction.node_daemon.state.errors import StoreError
from tests.support.dra_rig import NODE, World, card
from tests.support.fake_cards import FakeCards

VERSIONS: Any = [(v1, v1_grpc), (v1alpha1, v1alpha1_grpc)]


async def test_the_kubelet_learns_name_socket_and_services(world: World) -> None:
    """The newest service of each kind comes first, since the kubelet takes that."""
    async with world.daemon(FakeCards(card(0))):
        info = await world.register()
        assert world.endpoint.is_socket()
        assert await world.get("/livez") == (200, "ok\n")
    assert (info.type, info.name) == ("DRAPlugin", dra.DRIVER)
    assert info.endpoint == str(world.root / "k" / "plugins" / dra.DRIVER / "dra.sock")
    assert list(info.supported_versions) == [
        "v1.DRAPlugin",
        "v1.DRAResourceHealth",
        "v1alpha1.DRAResourceHealth",
    ]


async def test_a_daemon_that_ends_leaves_no_socket(world: World) -> None:
    """Their removal tells the kubelet; those that a killed process left are replaced."""
    for socket in (world.registrar, world.root / "k" / "plugins" / dra.DRIVER / "dra.sock"):
        socket.parent.mkdir(parents=True)
        socket.write_text("left")
    async with world.daemon(FakeCards(card(0))):
        assert world.registrar.is_socket()
    assert not world.registrar.exists()
    assert not world.endpoint.exists()


async def test_a_registration_that_fails_shows(world: World) -> None:
    """The kubelet's reason is what an administrator needs."""
    async with world.daemon(FakeCards(card(0))):
        await world.register("endpoint already registered")
        why = "the kubelet refuses the driver: endpoint already registered\n"
        assert await world.get("/readyz") == (503, why)
        await world.register()
        assert await world.get("/readyz") == (200, "ok\n")


async def test_a_removed_socket_is_seen(world: World) -> None:
    """The kubelet then restarts the daemon, because the probe fails."""
    async with world.daemon(FakeCards(card(0))):
        world.registrar.unlink()
        status, why = await world.get("/livez")
    assert status == 503
    assert "gpu-fraction.dev-reg.sock does not answer" in why


async def test_a_path_that_no_socket_can_have_ends_the_daemon(world: World) -> None:
    """With the path and the length that is allowed."""
    settings = _with_kubelet(world, world.root / ("k" * 100))
    daemon = NodeDaemon(settings, world.client, CollectorRegistry(), lambda: FakeCards(card(0)))
    with pytest.raises(StoreError, match="is longer than the 107 bytes of a socket's path"):
        await daemon.run(asyncio.Event())


def _with_kubelet(world: World, kubelet: Path) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    return replace(world.settings, paths=replace(world.settings.paths, kubelet=kubelet))


@pytest.mark.parametrize(("api", "stubs"), VERSIONS)
async def test_the_kubelet_hears_of_health(world: World, api: Any, stubs: Any) -> None:
    """All cards at once, and again when one changes; the message says why."""
    cards = FakeCards(card(0), card(1))
    async with world.daemon(cards), watching(world, api, stubs) as answers:
        first = await anext(answers)
        cards.tell(health_events.Fault("GPU-1", "broken"))
        second = await anext(answers)
    assert [
        (one.device.pool_name, one.device.device_name, one.health, one.message)
        for one in first.devices
    ] == [(NODE, "gpu-0", api.HEALTHY, ""), (NODE, "gpu-1", api.HEALTHY, "")]
    assert [(one.health, one.message) for one in second.devices] == [
        (api.HEALTHY, ""),
        (api.UNHEALTHY, "broken"),
    ]
    assert all(one.health_check_timeout_seconds == 30 for one in second.devices)


@asynccontextmanager
async def watching(world: World, api: Any, stubs: Any) -> AsyncIterator[AsyncIterator[Any]]:
    """An open stream of health."""
    async with grpc.aio.insecure_channel(f"unix:{world.endpoint}") as channel:
        call = stubs.DRAResourceHealthStub(channel).NodeWatchResources(
            api.NodeWatchResourcesRequest()
        )
        yield aiter(call)
