"""Containers learn their part of a card from variables, where a process sees the whole card."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain import frameworks, keys, request_annotation
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.node_daemon.isolation.cgroup import CgroupEngine
from gpu_fraction.node_daemon.isolation.cgroup_paths import PodCgroups
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Engine
from gpu_fraction.node_daemon.isolation.hami_core import LIBRARY, PRELOAD, HamiCoreEngine
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.state.pods import Container
from tests.support import fake_gpus
from tests.support.node_rig import Rig, inventory, node, rig_card, share

QUARTER = {
    "GPU_MEMORY_FRACTION": "0.237",
    "PYTORCH_ALLOC_CONF": "per_process_memory_fraction:0.237",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.237",
    "XLA_CLIENT_MEM_FRACTION": "",
    "FLAGS_gpu_memory_limit_mb": "9488",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "CUPY_GPU_MEMORY_LIMIT": "23.7%",
}
"""10,000 of 40,000 MiB."""


async def told(rig: Rig, *indexes: int, **pod: Any) -> dict[str, str]:
    """The variables of frameworks in a container with a quarter of each of these cards."""
    made = rig.pod({"main": [share(index) for index in indexes]}, **pod)
    started = (await rig.run_pod(made))["main"]
    return {name: value for name, value in started.env.items() if name in frameworks.NAMES}


def main(env: Mapping[str, str | None]) -> tuple[Container, ...]:
    """A container that sets these variables itself."""
    limits = {keys.SLOT: 1, keys.CORE_MILLI: 250, keys.MEMORY_MIB: 10_000}
    return (Container("main", limits=limits, env=env),)


async def with_engines(rig: Rig, *engines: Engine) -> None:
    """The daemon anew, with these engines on the first card."""
    await rig.kill_daemon()
    rig.isolation = NodeIsolation(engines)
    card = CardFacts("GPU-0", memory_mib=40_000)
    await asyncio.to_thread(rig.isolation.assess, [card])
    await rig.start_daemon()
    await rig.ready()


async def test_without_an_engine_frameworks_are_told_their_part(tmp_path: Path) -> None:
    """The share of the card's total, less the context; the same after a restart."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        first = (await rig.run_pod(pod))["main"]
        assert QUARTER.items() <= first.env.items()
        await rig.kill_daemon()
        await rig.start_daemon()
        await rig.ready()
        assert await rig.start(pod) == first


async def test_the_smallest_part_counts_for_all_cards(tmp_path: Path) -> None:
    """A framework takes one value for every card that it sees."""
    async with node(tmp_path, rig_card(0), rig_card(1, memory_mib=80_000)) as rig:
        assert (await told(rig, 0, 1))["GPU_MEMORY_FRACTION"] == "0.112"


async def test_a_whole_card_needs_no_telling(tmp_path: Path) -> None:
    """Nobody else is on it."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0, 1000, 40_000)]})
        assert not frameworks.NAMES & (await rig.run_pod(pod))["main"].env.keys()


async def test_a_mig_instance_shows_its_own_memory(tmp_path: Path) -> None:
    """Also where the container has a part of the instance."""
    async with node(tmp_path, rig_card(0, parent="GPU-P", isolation="mig")) as rig:
        assert await told(rig, 0) == {}


async def test_hami_core_shows_the_share_as_the_card(tmp_path: Path) -> None:
    """A quarter of that would be a sixteenth; a pod that does without the engine is told."""
    for name in (LIBRARY, PRELOAD):
        (tmp_path / name).write_text("")
    async with node(tmp_path, rig_card(0)) as rig:
        await with_engines(rig, HamiCoreEngine(tmp_path, tmp_path / "hami"))
        assert await told(rig, 0) == {}
        request = Request((Slice("main", 1, 250, 10_000, None),), isolation="none")
        notes = {keys.REQUEST: request_annotation.render(request, "native")}
        assert await told(rig, 0, annotations=notes) == QUARTER


HOOK = {"hookName": "createRuntime", "path": "/x", "args": ["x", "apply-cuda-memory-limits"]}
OTHER = {"hookName": "createContainer", "path": "/x", "args": ["x", "update-ldcache"]}


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CgroupEngine]:
    """Makes the engine on a driver that knows the rig's first card, and its first pod's cgroup."""
    hardware = fake_gpus.plug_in(tmp_path, cards=1)
    hardware.cards[0].uuid = "GPU-0"
    hardware.apply()
    driver = fake_gpus.use(hardware, monkeypatch)
    (tmp_path / "cgroup/kubepods/poduid-0").mkdir(parents=True)
    (tmp_path / "cgroup/cgroup.controllers").write_text("")
    return lambda hook: CgroupEngine(driver, PodCgroups(tmp_path / "cgroup"), hook)


@pytest.mark.parametrize(
    ("ours", "hosts", "expected"),
    [
        pytest.param("", [OTHER], QUARTER, id="no-hook"),
        pytest.param("", [OTHER, HOOK], {}, id="the-hosts-hook"),
        pytest.param("/usr/bin/nvidia-cdi-hook", [OTHER], {}, id="our-hook"),
        pytest.param("", None, {}, id="nvidias-runtime-decides"),
    ],
)
async def test_cgroup_shows_the_share_where_nvidias_hook_runs(
    tmp_path: Path,
    cgroup: Callable[[str], CgroupEngine],
    ours: str,
    hosts: list[dict[str, Any]] | None,
    expected: dict[str, str],
) -> None:
    """By the host's specification or by ours; without one of the host it is not known."""
    async with node(tmp_path, rig_card(0)) as rig:
        if hosts is not None:
            spec = {
                "cdiVersion": "0.7.0",
                "kind": "nvidia.com/gpu",
                "devices": [{"name": "GPU-0", "containerEdits": {"hooks": hosts}}],
            }
            (rig.paths.host_cdi[0] / "nvidia.json").write_text(json.dumps(spec))
        await with_engines(rig, cgroup(ours))
        assert await told(rig, 0) == expected


async def test_the_hosts_hook_does_nothing_without_a_limit(tmp_path: Path) -> None:
    """Another engine sets none, so the container sees the whole card."""
    async with node(tmp_path, rig_card(0)) as rig:
        spec = {
            "cdiVersion": "0.7.0",
            "kind": "nvidia.com/gpu",
            "devices": [{"name": "GPU-0", "containerEdits": {"hooks": [HOOK]}}],
        }
        (rig.paths.host_cdi[0] / "nvidia.json").write_text(json.dumps(spec))
        assert await told(rig, 0) == QUARTER


async def test_what_the_container_sets_is_kept(tmp_path: Path) -> None:
    """CDI would replace it: so it is not in the file, or extended there."""
    own = {"XLA_CLIENT_MEM_FRACTION": "0.5", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    async with node(tmp_path, rig_card(0)) as rig:
        found = await told(rig, 0, containers=main(own))
        assert not [name for name in found if name.startswith("XLA")]
        assert found["PYTORCH_ALLOC_CONF"] == (
            "expandable_segments:True,per_process_memory_fraction:0.237"
        )
        assert found["CUPY_GPU_MEMORY_LIMIT"] == "23.7%"


@pytest.mark.parametrize(("value", "count"), [("off", 0), ("on", len(QUARTER))])
async def test_the_pods_annotation_switches_it_off(tmp_path: Path, value: str, count: int) -> None:
    """Admission lets no other value pass; a pod that did not pass it is told."""
    async with node(tmp_path, rig_card(0)) as rig:
        assert len(await told(rig, 0, annotations={keys.FRAMEWORK_ENV: value})) == count


async def test_the_nodes_setting_switches_it_off(tmp_path: Path) -> None:
    """Also for containers that were told before, from their next start on."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        await rig.kill_daemon()
        rig.framework_env = "off"
        await rig.start_daemon()
        await rig.ready()
        assert not frameworks.NAMES & (await rig.start(pod)).env.keys()


async def test_a_card_without_a_size_tells_nothing(tmp_path: Path) -> None:
    """It can lose its size after the container was bound."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        await rig.show_cards(inventory(rig_card(0, memory_mib=0)))
        assert not frameworks.NAMES & (await rig.start(pod)).env.keys()
