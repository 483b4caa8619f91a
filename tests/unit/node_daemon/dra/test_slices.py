"""The cards as ResourceSlices, and what keeps them there."""

from dataclasses import replace

import pytest

from gpu_fraction.domain import dra, keys
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.domain.units import parse_quantity
from gpu_fraction.kube.resources import EVENTS, NODES, RESOURCE_SLICES
from gpu_fraction.node_daemon.cards import health_events
from gpu_fraction.node_daemon.cards.inventory_reader import InstanceReading
from gpu_fraction.node_daemon.cards.simulated import SimulationSettings
from gpu_fraction.node_daemon.dra import devices
from gpu_fraction.sandbox.apiserver import Answer, Fault
from gpu_fraction.sandbox.apiserver.kinds import BUILT_IN
from tests.support.dra_rig import NODE, Manifest, World, card, result, until
from tests.support.fake_cards import FakeCards

SLICES = next(kind for kind in BUILT_IN if kind.resource == RESOURCE_SLICES)


def amounts(device: Manifest, name: str) -> list[int]:
    """Value, default, least, most and step of a capacity."""
    capacity = device["capacity"][name]
    policy = capacity["requestPolicy"]
    allowed = policy["validRange"]
    texts = (capacity["value"], policy["default"], allowed["min"], allowed["max"], allowed["step"])
    return [int(parse_quantity(text)) for text in texts]


async def test_each_card_is_one_shared_device(world: World) -> None:
    """Two capacities that are the same on every model; the default is all of the card."""
    async with world.daemon(FakeCards(card(0), card(1, 24_000))):
        (published,) = world.slices()
        node: Manifest = await world.client.get(NODES.at(NODE), dict)
    assert published["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "name": NODE,
            "uid": node["metadata"]["uid"],
            "controller": True,
        }
    ]
    spec = published["spec"]
    assert (spec["driver"], spec["nodeName"], spec["pool"]["name"]) == (dra.DRIVER, NODE, NODE)
    assert spec["pool"]["resourceSliceCount"] == 1
    first, second = spec["devices"]
    assert (first["name"], second["name"]) == ("gpu-0", "gpu-1")
    assert first["allowMultipleAllocations"] is True
    assert "taints" not in first
    assert amounts(first, dra.CORES) == [1000, 1000, 0, 1000, 1]
    assert amounts(first, dra.MEMORY_PPM) == [1_000_000, 1_000_000, 1, 1_000_000, 1]
    assert amounts(first, dra.SLOTS) == [32, 1, 1, 32, 1]
    assert second["attributes"] == {
        dra.MODEL: {"string": "NVIDIA A100"},
        dra.UUID: {"string": "GPU-1"},
        dra.ISOLATION: {"string": "none"},
        dra.MEMORY_MIB: {"int": 24_000},
        dra.ENFORCES_MEMORY: {"bool": False},
        dra.ENFORCES_COMPUTE: {"bool": False},
        dra.MIG: {"bool": False},
        dra.SIMULATED: {"bool": False},
    }


async def test_the_node_shows_its_cards_and_offers_none_as_extended_resources(
    world: World,
) -> None:
    """What another mode has left there would be given away a second time."""
    async with world.daemon(FakeCards(card(0))):
        node: Manifest = {}
        while node.get("status", {}).get("capacity", {}).get(keys.MEMORY_MIB) != "0":
            node = await world.client.get(NODES.at(NODE), dict)
        assert node["status"]["capacity"][keys.CORE_MILLI] == "0"
        assert node["metadata"]["labels"][keys.LABEL_COUNT] == "1"
        assert keys.INVENTORY in node["metadata"]["annotations"]


async def test_a_mig_instance_is_a_device_of_one_claim(world: World) -> None:
    """The card itself is none, and the instance's capacities are its part of the card."""
    instance = InstanceReading("MIG-1", "A100 MIG 1g.5gb", 10_000, 1, 1, 0)
    divided = card(0, mig=True, mig_slices=7, instances=(instance,))
    async with world.daemon(FakeCards(divided, card(1))):
        small, whole = world.devices()
    assert (small["name"], whole["name"]) == ("mig-1", "gpu-1")
    assert "allowMultipleAllocations" not in small
    assert small["attributes"][dra.MIG] == {"bool": True}
    assert small["capacity"] == {
        dra.CORES: {"value": "142"},
        dra.MEMORY_PPM: {"value": "250000"},
    }


async def test_slices_that_vanish_are_published_again(world: World) -> None:
    """A kubelet that starts deletes them."""
    async with world.daemon(FakeCards(card(0))):
        (before,) = world.slices()
        world.server.remove(RESOURCE_SLICES, before["metadata"]["name"])
        await until(lambda: world.slices() != [])
        (after,) = world.slices()
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == before["spec"]


async def test_what_others_change_is_repaired(world: World) -> None:
    """Devices, and slices of the driver that are not the daemon's; those of others stay."""
    async with world.daemon(FakeCards(card(0), card(1))):
        (before,) = world.slices()
        spec = before["spec"]
        foreign = {"apiVersion": before["apiVersion"], "kind": before["kind"]}
        world.server.add(
            {**foreign, "metadata": {"name": "surplus"}, "spec": spec},
            {
                **foreign,
                "metadata": {"name": "other-driver"},
                "spec": {**spec, "driver": "other.example.com"},
            },
            {
                **foreign,
                "metadata": {"name": "other-node"},
                "spec": {**spec, "nodeName": "other"},
            },
            {
                **foreign,
                "metadata": {"name": before["metadata"]["name"]},
                "spec": {**spec, "devices": spec["devices"][:1]},
            },
        )
        mine = before["metadata"]["name"]

        def repaired() -> bool:
            found = {one["metadata"]["name"]: one["spec"] for one in world.slices()}
            return found.keys() == {mine, "other-driver", "other-node"} and (
                found[mine]["devices"] == spec["devices"]
            )

        await until(repaired)


async def test_a_sick_card_is_tainted_until_it_is_well(world: World) -> None:
    """New claims go elsewhere; the pool's generation rises with each change."""
    cards = FakeCards(card(0), card(1))
    async with world.daemon(cards):
        (before,) = world.slices()
        cards.tell(health_events.Fault("GPU-1", "broken"))
        await until(lambda: "taints" in world.devices()[1])
        (after,) = world.slices()
    well, sick = after["spec"]["devices"]
    assert "taints" not in well
    assert [(t["key"], t["effect"]) for t in sick["taints"]] == [(dra.UNHEALTHY, "NoSchedule")]
    assert after["spec"]["pool"]["generation"] > before["spec"]["pool"]["generation"]


async def test_a_server_without_taints_is_not_shown_sick_cards(world: World) -> None:
    """Otherwise claims would be given to them."""
    world.server.register(replace(SLICES, dropped=frozenset({"taints"})))
    cards = FakeCards(card(0), card(1))
    async with world.daemon(cards):
        cards.tell(health_events.Fault("GPU-1", "broken"))
        await until(lambda: [d["name"] for d in world.devices()] == ["gpu-0"])


async def told(world: World) -> str:
    """The Event about cards that are not offered."""
    found = ""
    while not found:
        events = (await world.client.list(EVENTS.at(), dict)).items
        found = "".join(e["message"] for e in events if e["reason"] == "CardsNotOffered")
    return found


async def test_a_server_without_shared_devices_gets_no_cards(world: World) -> None:
    """It never stores one, because a claim for a share would get all of it."""
    gone = frozenset({"allowMultipleAllocations", "requestPolicy"})
    world.server.register(replace(SLICES, dropped=gone))
    async with world.daemon(FakeCards(card(0)), ready=False):
        why = await told(world)
        assert "feature gate DRAConsumableCapacity is off (on by default from Kubernetes" in why
        assert "allowMultipleAllocations, requestPolicy" in why
        assert world.slices() == []
        assert (await world.get("/readyz"))[1] == f"{why}\n"
    assert not any(c.qualified == RESOURCE_SLICES.qualified for c in world.server.storage.since(0))


async def test_cards_are_withdrawn_where_the_server_lost_the_feature(world: World) -> None:
    """It was updated backwards, and the slices vanished with a restart of the kubelet."""
    cards = FakeCards(card(0))
    async with world.daemon(cards):
        gone = frozenset({"allowMultipleAllocations", "requestPolicy"})
        world.server.register(replace(SLICES, dropped=gone))
        world.server.remove(RESOURCE_SLICES, world.slices()[0]["metadata"]["name"])
        await told(world)
        await until(lambda: world.slices() == [])


async def test_an_older_server_is_told_of(world: World) -> None:
    """Before Kubernetes 1.34 there is no such resource."""
    world.server.faults.add(Fault(Answer(404), resource=SLICES.resource.qualified, times=None))
    async with world.daemon(FakeCards(card(0)), ready=False):
        assert "does not serve resource.k8s.io/v1" in await told(world)


@pytest.mark.parametrize(
    ("sent", "got", "lost"),
    [
        ({"value": "1000"}, {"value": "1k"}, set()),
        ({"value": "1000"}, {"value": "1001"}, {"value"}),
        ({"a": [{"b": True, "c": 1}]}, {"a": [{"c": 1, "d": 2}]}, {"b"}),
        ({"a": [1, 2]}, {"a": [1]}, {"a"}),
        ({"a": {"b": {"c": "x"}}}, {"a": None}, {"b"}),
    ],
)
def test_fields_are_compared_by_value(sent: Manifest, got: Manifest, lost: set[str]) -> None:
    """The server writes quantities in its own form."""
    assert devices.dropped(sent, got) == lost


def test_many_devices_make_several_slices() -> None:
    """A slice with tainted devices holds 64; together they are one pool."""
    cards = tuple(Card(uuid=f"GPU-{i}", index=i, model="A", memory_mib=1) for i in range(65))
    made = list(devices.slices("node", "uid", 3, devices.devices(Inventory(cards=cards))))
    assert [len(one["spec"]["devices"]) for one in made] == [64, 1]
    assert {one["metadata"]["name"] for one in made} == {
        "node-gpu-fraction.dev-0",
        "node-gpu-fraction.dev-1",
    }
    assert [one["spec"]["pool"] for one in made] == 2 * [
        {"name": "node", "generation": 3, "resourceSliceCount": 2}
    ]


def test_names_of_slices_fit_and_differ() -> None:
    """A node's name may be as long as that of a slice."""
    shared = "n" * 240
    (one,) = devices.slices(shared + "-1", "uid", 0, [{}])
    (two,) = devices.slices(shared + "-2", "uid", 0, [{}])
    names = {one["metadata"]["name"], two["metadata"]["name"]}
    assert len(names) == 2
    assert max(map(len, names)) <= 253


def test_a_card_for_one_container_has_one_slot() -> None:
    """A range needs room for a step, so the only amount is listed."""
    (only,) = devices.devices(
        Inventory(cards=(Card(uuid="GPU-1", index=0, model="", memory_mib=1, slots=1),))
    )
    assert only["capacity"][dra.SLOTS] == {
        "value": "1",
        "requestPolicy": {"default": "1", "validValues": ["1"]},
    }
    assert only["attributes"][dra.MODEL] == {"string": "unknown"}


def test_a_card_without_a_size_is_left_out() -> None:
    """A share of it would be nothing."""
    unread = Card(uuid="GPU-1", index=0, model="A", memory_mib=0, healthy=False)
    assert devices.devices(Inventory(cards=(unread,))) == []


async def test_a_simulated_card_is_a_device_that_says_so(world: World) -> None:
    """Its attribute is for selectors; a container learns its share, and gets no device."""
    simulated = SimulationSettings(count=1)
    world.settings = replace(world.settings, simulated=simulated)
    async with world.daemon():
        (device,) = world.devices()
        results = [result(0) | {"device": device["name"]}]
        started = await world.start(world.claim("quarter", *results))
    assert device["attributes"][dra.SIMULATED] == {"bool": True}
    assert device["attributes"][dra.MODEL] == {"string": "NVIDIA H100 80GB HBM3 (simulated)"}
    assert started.env["GPU_FRACTION"] == "0.25"
    assert started.env["GPU_MEMORY_LIMIT_MIB"] == str(20 * 1024)
    assert started.env["GPU_FRACTION_SIMULATED"] == "true"
    assert started.env["NVIDIA_VISIBLE_DEVICES"] == "void"
