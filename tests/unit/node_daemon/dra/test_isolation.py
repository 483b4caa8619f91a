"""Claims and the isolation engines of the node."""

from dataclasses import replace

import pytest

from gpu_fraction.domain import dra
from gpu_fraction.node_daemon.isolation.engine import Strength
from gpu_fraction.sandbox.nvml.hardware import VARIABLE
from tests.support import fake_gpus
from tests.support.dra_rig import World, result
from tests.unit.node_daemon.dra.test_claims import config


@pytest.fixture
def limited(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two cards behind NVML, whose shares a library in the container limits."""
    hardware = fake_gpus.plug_in(world.root)
    monkeypatch.setenv(VARIABLE, str(hardware.directory))
    library = world.root / "vgpu"
    library.mkdir()
    for name in ("libvgpu.so", "ld.so.preload"):
        (library / name).write_text("")
    isolation = replace(
        world.settings.isolation,
        engines=("hami-core",),
        hami_library_dir=library,
        accept=Strength.COOPERATIVE,
    )
    world.settings = replace(world.settings, isolation=isolation)
    return world


async def test_a_claim_is_limited_and_its_traces_go_with_it(limited: World) -> None:
    """The engine's variables and mounts are in the CDI file; devices tell that it enforces."""
    name = fake_gpus.uuid(0).lower()
    containers = limited.root / "state" / "isolation" / "hami-core" / "containers"
    async with limited.daemon():
        attributes = limited.devices()[0]["attributes"]
        assert attributes[dra.ISOLATION] == {"string": "hami-core"}
        assert (
            attributes[dra.ENFORCES_MEMORY] == attributes[dra.ENFORCES_COMPUTE] == {"bool": True}
        )
        claim = limited.claim("one", result(0, device=name), config=[config(isolation="required")])
        env = (await limited.start(claim)).env
        assert env["CUDA_DEVICE_MEMORY_LIMIT_0"] == f"{env['GPU_MEMORY_LIMIT_MIB']}m"
        assert env["CUDA_DEVICE_SM_LIMIT"] == "25"
        (directory,) = containers.iterdir()
    async with limited.daemon():  # a later process knows whose it is
        assert directory.is_dir()
        assert await limited.unprepare(claim) == {"one": ""}
        assert list(containers.iterdir()) == []


async def test_compute_without_a_limit_is_not_limited(limited: World) -> None:
    """A claim for memory alone consumes no cores."""
    amounts = {dra.CORES: "0", dra.MEMORY_PPM: "100000"}
    async with limited.daemon():
        one = limited.claim("one", result(0, amounts, device=fake_gpus.uuid(0).lower()))
        env = (await limited.start(one)).env
    assert "CUDA_DEVICE_SM_LIMIT" not in env
    assert env["CUDA_DEVICE_MEMORY_LIMIT_0"] == f"{env['GPU_MEMORY_LIMIT_MIB']}m"
