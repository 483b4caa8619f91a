"""The whole daemon over simulated cards: no NVML, no C, and it says so everywhere."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gpu_fraction.domain import inventory, keys, models
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import EVENTS, NODES
from gpu_fraction.node_daemon.cards.simulated import FAULT_ANNOTATION, SimulationSettings
from gpu_fraction.node_daemon.settings import NodeDaemonSettings
from gpu_fraction.sandbox.apiserver.server import ApiServer
from gpu_fraction.sandbox.kubelet.devices import StartError
from gpu_fraction.settings.option import SettingsError
from tests.support.access import fixed
from tests.support.settings import configured
from tests.unit.node_daemon.slices.test_app import NODE, World

HOST_CDI = """\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: all
  containerEdits: {deviceNodes: [{path: /dev/nvidia0}], env: [OF_THE_HOST=1]}
"""


def simulating(world: World, **settings: Any) -> None:
    """The world's daemon simulates cards from its next start on."""
    simulated = SimulationSettings(**{"count": 2, **settings})
    world.settings = replace(world.settings, simulated=simulated)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A kubelet and an API server, and two simulated cards."""
    server = ApiServer()
    server.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": {}})
    async with server.serve(), connect(fixed(Access(server.url)), component="test") as client:
        made = World(tmp_path, server, client)
        (tmp_path / "cdi").mkdir()
        simulating(made)
        await made.kubelet.start()
        yield made
        await made.kubelet.stop()


async def node(world: World) -> dict[str, Any]:
    """The Node."""
    found: dict[str, Any] = await world.client.get(NODES.at(NODE), dict)
    return found


async def cards(
    world: World, holds: Callable[[inventory.Inventory], bool] = bool
) -> inventory.Inventory:
    """What the Node publishes, once ``holds`` is true of it."""
    async with asyncio.timeout(8):
        while True:
            notes = (await node(world))["metadata"].get("annotations", {})
            if keys.INVENTORY in notes:
                found = inventory.parse(notes[keys.INVENTORY])
                if holds(found):
                    return found
            await asyncio.sleep(0.02)


async def annotate(world: World, value: str | None) -> None:
    """An administrator makes simulated cards sick."""
    body = {"metadata": {"annotations": {FAULT_ANNOTATION: value}}}
    await world.client.patch(NODES.at(NODE), PatchKind.MERGE, body, dict)


async def test_a_container_learns_its_share_and_gets_no_device(
    world: World, tmp_path: Path
) -> None:
    """Not even where the host has GPUs of its own; a variable says that there is none."""
    (tmp_path / "cdi" / "nvidia.yaml").write_text(HOST_CDI)
    async with world.daemon():
        pod = await world.pod("main", None, memory_mib=20 * 1024)
        started = await world.kubelet.start_container(pod.uid, "main")
        (file,) = (tmp_path / "cdi").glob("gpu-fraction-slice_*.json")
        assert "deviceNodes" not in file.read_text()
    shown = await cards(world)
    assert started.env["GPU_FRACTION_DEVICES"] in {card.uuid for card in shown.cards}
    assert started.env["GPU_FRACTION"] == "0.1"
    assert started.env["GPU_MEMORY_LIMIT_MIB"] == "20480"
    assert started.env["GPU_FRACTION_SIMULATED"] == "true"
    assert started.env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "OF_THE_HOST" not in started.env


async def test_every_surface_says_simulated(world: World) -> None:
    """Log, label, inventory, model, metric and Event; no isolation is claimed."""
    with capture_logs() as logs:
        async with world.daemon():
            shown = await cards(world)
            labels = (await node(world))["metadata"]["labels"]
            _, metrics = await world.get("/metrics")
            async with asyncio.timeout(8):
                while not (events := (await world.client.list(EVENTS.at(), dict)).items):
                    await asyncio.sleep(0.02)
    assert {"cards_simulated"} <= {line["event"] for line in logs}
    assert labels[keys.LABEL_SIMULATED] == "true"
    assert labels[keys.LABEL_MODEL] == "NVIDIA-H100-80GB-HBM3-simulated"
    assert shown.simulated
    assert "gpu_fraction_simulated 1.0" in metrics
    assert (events[0]["reason"], events[0]["type"]) == ("CardsSimulated", "Warning")
    assert "2 simulated cards" in events[0]["message"]
    for card in shown.cards:
        assert models.matches("H100", card.model)
        assert (card.memory_mib, card.isolation, card.healthy) == (80 * 1024, "none", True)
        assert not card.enforces_memory
        assert not card.enforces_compute


async def test_the_same_card_has_the_same_uuid_in_every_process(world: World) -> None:
    """UUIDs are those of node and index: fewer cards keep theirs, and the others are gone."""
    async with world.daemon():
        before = (await cards(world)).cards
    simulating(world, count=1, model="NVIDIA L4", memory_mib=23_034)
    async with world.daemon():
        after = (await cards(world, lambda found: len(found.cards) == 1)).cards
    assert [card.uuid for card in after] == [before[0].uuid]
    assert (after[0].model, after[0].memory_mib) == ("NVIDIA L4 (simulated)", 23_034)
    world.settings = replace(world.settings, node_name="node-2")
    world.server.add(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}, "status": {}}
    )
    async with world.daemon(), asyncio.timeout(8):
        while not (
            notes := (await world.client.get(NODES.at("node-2"), dict))["metadata"].get(
                "annotations"
            )
        ):
            await asyncio.sleep(0.02)
    others = inventory.parse(notes[keys.INVENTORY]).cards
    assert not {card.uuid for card in others} & {card.uuid for card in before}


async def test_an_administrator_makes_a_card_sick_and_well(world: World) -> None:
    """While the annotation names it; the card recovers as a real one does."""
    async with world.daemon():
        first, second = (await cards(world)).cards
        await annotate(world, " 0, GPU-unknown,")
        sick = await cards(world, lambda found: not all(card.healthy for card in found.cards))
        assert [card.healthy for card in sick.cards] == [False, True]
        assert sick.cards[0].health_reason == "simulated fault"
        pod = await world.pod("on-the-sick", first.uuid)
        with pytest.raises(StartError, match="not healthy"):
            await world.kubelet.start_container(pod.uid, "main")
        await annotate(world, second.uuid)
        await cards(world, lambda found: [c.healthy for c in found.cards] == [True, False])
        await annotate(world, "all")
        await cards(world, lambda found: not any(card.healthy for card in found.cards))
        await annotate(world, None)
        await cards(world, lambda found: all(card.healthy for card in found.cards))


async def test_cards_of_the_machine_are_not_remembered_as_simulated(world: World) -> None:
    """Without the flag the label goes, and no simulated card stays behind as a broken one."""
    async with world.daemon():
        await cards(world)
    simulating(world, count=0)
    async with world.daemon():
        shown = await cards(world, lambda found: not found.simulated)
        labels = (await node(world))["metadata"]["labels"]
    assert shown.cards == ()
    assert keys.LABEL_SIMULATED not in labels


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("simulated_cards", "65", "0 to 64"),
        ("simulated_cards", "-1", "0 to 64"),
        ("simulated_model", "", "1 to 96 characters"),
        ("simulated_model", "H" * 97, "1 to 96 characters"),
        ("simulated_memory", "0", "above 0"),
        ("simulated_memory", "2Ti", "1Mi to 1Ti"),
        ("simulated_memory", "much", "above 0"),
    ],
)
def test_bad_values_name_what_is_allowed(flag: str, value: str, allowed: str) -> None:
    """The value, the flag, and the range."""
    with pytest.raises(SettingsError, match=allowed):
        configured(NodeDaemonSettings, node_name=NODE, **{flag: value})


def test_the_default_model_is_known() -> None:
    """A pod that asks for a model by its usual word finds simulated cards."""
    words = SimulationSettings().model.split()
    assert any(word in models.KNOWN for word in words)
