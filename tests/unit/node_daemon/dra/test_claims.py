"""What the kubelet gets for claims, and what is refused."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from gpu_fraction.domain import dra
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.kube.resources import PODS, RESOURCE_CLAIMS
from gpu_fraction.node_daemon.cards import health_events
from gpu_fraction.node_daemon.cards.inventory_reader import InstanceReading
from gpu_fraction.node_daemon.state.allocation import Allocation, Binding, Nonce, PodUid, Token
from gpu_fraction.node_daemon.state.store import AllocationStore
from gpu_fraction.node_daemon.state.tokens import token, token_states
from gpu_fraction.sandbox.apiserver import Answer, DelayWatch, Fault
from gpu_fraction.sandbox.kubelet.runtime import UnresolvableError
from tests.support.dra_rig import NODE, WHOLE, Manifest, World, card, result, until
from tests.support.fake_cards import FakeCards

HALF = {dra.CORES: "500", dra.MEMORY_PPM: "500000"}


def config(driver: str = dra.DRIVER, **parameters: str) -> Manifest:
    """A configuration of a claim."""
    kind = {"apiVersion": dra.CONFIG_VERSION, "kind": dra.CONFIG_KIND}
    opaque = {"driver": driver, "parameters": {**kind, **parameters}}
    return {"source": "FromClaim", "opaque": opaque}


async def test_a_container_gets_its_share(world: World) -> None:
    """The answer names request, device and share; the CDI file says what it is."""
    async with world.daemon(FakeCards(card(0), card(1))):
        claim = world.claim("one", result(1))
        (answer,) = (await world.prepare(claim)).values()
        (device,) = answer.devices
        name = f"{dra.CDI_KIND}={claim['metadata']['uid']}-gpu"
        assert list(device.request_names) == ["gpu"]
        assert (device.pool_name, device.device_name) == (NODE, "gpu-1")
        assert list(device.cdi_device_ids) == [name]
        assert device.share_id == "00000000-0000-0000-0000-000000000001"
        started = await world.start(claim)
    assert started.cdi_names == (name,)
    assert started.env["GPU_FRACTION"] == "0.25"
    assert started.env["GPU_FRACTION_DEVICES"] == "GPU-1"
    assert started.env["GPU_MEMORY_LIMIT_MIB"] == "10000"
    assert "GPU_MEMORY_FRACTION" in started.env


async def test_frameworks_of_containers_that_share_a_claim_are_told_nothing(world: World) -> None:
    """One file serves them all, so the variables of one would replace those of the others."""
    pod = world.pod("pod", [("one", "")], [("one", "")])
    async with world.daemon(FakeCards(card(0))):
        env = (await world.start(world.claim("one", result(0), pod=pod))).env
    assert "GPU_MEMORY_FRACTION" not in env
    assert env["GPU_MEMORY_LIMIT_MIB"] == "10000"


async def test_explicit_mebibytes_come_out_exact(world: World) -> None:
    """10,240 MiB of a card of 24,576 are 416,667 millionths; the alternative chosen is told."""
    amounts = {dra.CORES: "100", dra.MEMORY_PPM: "416667"}
    async with world.daemon(FakeCards(card(0, 24_576))):
        claim = world.claim("one", result(0, amounts, request="gpu/m24576"))
        (answer,) = (await world.prepare(claim)).values()
        assert list(answer.devices[0].request_names) == ["gpu"]
        assert (await world.start(claim)).env["GPU_MEMORY_LIMIT_MIB"] == "10240"


async def test_several_cards_of_one_request_are_one_container(world: World) -> None:
    """One CDI name stands for all of them."""
    async with world.daemon(FakeCards(card(0), card(1))):
        claim = world.claim("two", result(0), result(1, HALF))
        (answer,) = (await world.prepare(claim)).values()
        assert [len(d.cdi_device_ids) for d in answer.devices] == [1, 0]
        env = (await world.start(claim)).env
    assert env["GPU_FRACTION_DEVICES"] == "GPU-0,GPU-1"
    assert env["GPU_FRACTION"] == "0.25,0.5"


async def test_requests_of_one_claim_are_containers_of_their_own(world: World) -> None:
    """Each gets what its request got, both on one card."""
    pod = world.pod("pod", [("both", "a")], [("both", "b")])
    async with world.daemon(FakeCards(card(0))):
        claim = world.claim(
            "both", result(0, request="a"), result(0, HALF, request="b", shareID=None), pod=pod
        )
        (answer,) = (await world.prepare(claim)).values()
        assert [list(d.request_names) for d in answer.devices] == [["a"], ["b"]]
        assert [d.HasField("share_id") for d in answer.devices] == [True, False]
        assert len({n for d in answer.devices for n in d.cdi_device_ids}) == 2
        _, metrics = await world.get("/metrics")
        assert 'gpu_fraction_card_allocated_core_milli{uuid="GPU-0"} 750.0' in metrics
        for container in ("c0", "c1"):
            assert f'container="{container}",namespace="default",pod="pod"' in metrics


async def test_a_mig_instance_is_given_as_a_whole(world: World) -> None:
    """It is no shared device, so nothing was consumed."""
    instance = InstanceReading("MIG-1", "A100 MIG 1g.5gb", 10_000, 1, 1, 0)
    divided = card(0, mig=True, mig_slices=7, instances=(instance,))
    async with world.daemon(FakeCards(divided)):
        got = result(0, device="mig-1", consumedCapacity=None, shareID=None)
        env = (await world.start(world.claim("one", got))).env
    assert (env["GPU_FRACTION_DEVICES"], env["GPU_MEMORY_LIMIT_MIB"]) == ("MIG-1", "10000")


async def test_preparing_again_gives_the_same(world: World) -> None:
    """The kubelet repeats a call whose answer it lost; nothing is counted twice."""
    async with world.daemon(FakeCards(card(0))):
        claim = world.claim("whole", result(0, WHOLE))
        first = await world.prepare(claim)
        assert await world.prepare(claim) == first
        assert len(world.files()) == 1


async def test_one_claim_that_fails_does_not_hold_up_the_others(world: World) -> None:
    """Each has an answer of its own in one call."""
    async with world.daemon(FakeCards(card(0))):
        good, bad = world.claim("good", result(0)), world.claim("bad", allocated=False)
        answers = await world.prepare(bad, good)
    assert answers["good"].error == ""
    assert answers["bad"].error == "ClaimUnfit: claim default/bad is not allocated"
    assert not answers["bad"].devices


async def test_claims_of_one_burst_never_exceed_the_card(world: World) -> None:
    """The scheduler's books can be wrong after a forced deletion; the driver's own are not."""
    async with world.daemon(FakeCards(card(0))):
        claims = [world.claim(f"c{i}", result(0)) for i in range(6)]
        answers = await world.prepare(*claims)
        refused = [name for name, answer in answers.items() if answer.error]
        assert len(refused) == 2
        assert "card GPU-0 has no room: memory 40000 + 10000 of 40000" in answers[refused[0]].error
        gone = next(c for c in claims if c["metadata"]["name"] not in refused)
        late = next(c for c in claims if c["metadata"]["name"] == refused[0])
        assert await world.unprepare(gone) == {gone["metadata"]["name"]: ""}
        assert await world.fault(late) == ""
        with pytest.raises(UnresolvableError):
            world.runtime.create("uid", "c", (f"{dra.CDI_KIND}={gone['metadata']['uid']}-gpu",))


async def test_unknown_claims_are_taken_back_without_an_error(world: World) -> None:
    """Also those whose object is gone: after a forced deletion the kubelet comes later."""
    async with world.daemon(FakeCards(card(0))):
        claim, never = world.claim("gone", result(0)), world.claim("never", result(0))
        await world.start(claim)
        world.server.remove(RESOURCE_CLAIMS, "gone", "default")
        assert await world.unprepare(claim, never) == {"gone": "", "never": ""}
        assert world.files() == set()


async def test_the_claims_status_tells_what_was_given(world: World) -> None:
    """For whoever has no access to the node."""
    async with world.daemon(FakeCards(card(0))):
        await world.start(world.claim("told", result(0)))
        await until(lambda: "devices" in world.stored_claim("told")["status"])
        (device,) = world.stored_claim("told")["status"]["devices"]
        assert "allocation" in world.stored_claim("told")["status"]
    (condition,) = device.pop("conditions")
    assert (condition["type"], condition["status"]) == ("Ready", "True")
    assert condition["message"] == "10000 MiB, 250 thousandths of compute"
    assert device == {
        "driver": dra.DRIVER,
        "pool": NODE,
        "device": "gpu-0",
        "shareID": "00000000-0000-0000-0000-000000000000",
        "data": {
            "apiVersion": dra.CONFIG_VERSION,
            "kind": "Share",
            "uuid": "GPU-0",
            "coreMilli": 250,
            "memoryMib": 10_000,
        },
    }


async def test_a_status_that_cannot_be_written_stops_nothing(world: World) -> None:
    """It is told, not needed."""
    async with world.daemon(FakeCards(card(0))):
        world.server.faults.add(
            Fault(Answer(403, "no"), resource=RESOURCE_CLAIMS.qualified, subresource="status")
        )
        await world.start(world.claim("one", result(0)))
        await world.start(world.claim("two", result(0)))
        await until(lambda: "devices" in world.stored_claim("two")["status"])
    assert "devices" not in world.stored_claim("one")["status"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            result(0, {dra.CORES: "250"}),
            "ClaimUnfit: device gpu-0 was given without gpu-fraction.dev/cores and",
        ),
        (result(0, consumedCapacity=None), "the feature gate DRAConsumableCapacity of"),
        (result(0, adminAccess=True), "request gpu has adminAccess, which this driver does"),
        (result(7), "CardUnknown: this node has no device gpu-7"),
    ],
)
async def test_a_device_that_cannot_be_given_is_refused(
    world: World, given: Manifest, message: str
) -> None:
    """A share without amounts would be the whole card."""
    async with world.daemon(FakeCards(card(0))):
        assert message in await world.fault(world.claim("one", given))
        assert world.files() == set()


async def test_devices_of_other_drivers_are_theirs(world: World) -> None:
    """A claim may have both."""
    async with world.daemon(FakeCards(card(0))):
        both = world.claim("both", result(0, request="net", driver="net.example.com"), result(0))
        (answer,) = (await world.prepare(both)).values()
    assert [list(d.request_names) for d in answer.devices] == [["gpu"]]


async def test_another_claim_of_the_name_is_refused(world: World) -> None:
    """The one that the kubelet means is gone."""
    async with world.daemon(FakeCards(card(0))):
        first = world.claim("one", result(0))
        second = world.claim("one", result(0))
        assert "now has UID " + second["metadata"]["uid"] in await world.fault(first)
        world.server.remove(RESOURCE_CLAIMS, "one", "default")
        assert await world.fault(second) == "ClaimUnfit: claim default/one does not exist"


async def test_a_silent_api_server_is_named(world: World) -> None:
    """The kubelet tries again by itself."""
    async with world.daemon(FakeCards(card(0))):
        claim = world.claim("one", result(0))
        world.server.faults.add(
            Fault(Answer(403, "no right"), verb="get", resource=RESOURCE_CLAIMS.qualified)
        )
        refused = "ApiSilent: claim default/one could not be read: no right"
        assert await world.fault(claim) == refused
        assert await world.fault(claim) == ""


async def test_a_sick_card_is_not_given(world: World) -> None:
    """A claim that was allocated before it fell sick waits, unless it tolerates that."""
    cards = FakeCards(card(0))
    async with world.daemon(cards):
        claim = world.claim("one", result(0))
        cards.tell(health_events.Fault("GPU-0", "broken"))
        await until(lambda: "taints" in world.devices()[0])
        assert await world.fault(claim) == "CardUnhealthy: card GPU-0 is not healthy: broken"
        for toleration in (
            {"key": dra.UNHEALTHY, "operator": "Exists", "effect": "NoSchedule"},
            {"operator": "Exists"},
        ):
            brave = world.claim("brave", result(0, tolerations=[toleration]))
            assert await world.fault(brave) == ""
        other = {"key": "other", "operator": "Exists"}
        assert "not healthy" in await world.fault(
            world.claim("other", result(0, tolerations=[other]))
        )


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([config(isolation="none")], ""),
        ([config(isolation="preferred")], ""),
        ([config(isolation="required")], "IsolationMissing: container c0 requires isolation, but"),
        ([config(isolation="required"), config(isolation="none")], ""),
        ([{**config(isolation="required"), "requests": ["other"]}], ""),
        ([{**config(isolation="required"), "requests": ["gpu"]}], "IsolationMissing"),
        ([config("other.example.com", isolation="required")], ""),
        ([config(isolation="strong")], "isolation 'strong' and fields"),
        ([config(isolation="none", speed="9")], "allowed: isolation, one of required, preferred"),
        (
            [{"opaque": {"driver": dra.DRIVER, "parameters": {"apiVersion": "x", "kind": "Y"}}}],
            "configuration x Y is unknown; allowed: gpu-fraction.dev/v1alpha1 ShareConfig",
        ),
    ],
)
async def test_isolation_is_as_the_claim_says(
    world: World, configs: list[Manifest], message: str
) -> None:
    """The last configuration that is meant for the request wins; no card here enforces."""
    async with world.daemon(FakeCards(card(0))):
        fault = await world.fault(world.claim("one", result(0), config=configs))
    assert message in fault
    assert bool(fault) == bool(message)


async def test_isolation_is_not_promised_to_a_claim_that_pods_share(world: World) -> None:
    """Later pods of the claim start without another call of the kubelet."""
    async with world.daemon(FakeCards(card(0))):
        shared = world.claim("one", result(0), owned=False, config=[config(isolation="required")])
        fault = await world.fault(shared)
        assert "further pods may use it" in fault
        assert await world.fault(world.claim("two", result(0), owned=False)) == ""


async def test_a_container_has_one_share(world: World) -> None:
    """The limits of two are set by the same variables, so one of them would not hold."""
    pod = world.pod("pod", [("a", ""), ("b", "")], [("b", "")])
    async with world.daemon(FakeCards(card(0), card(1))):
        a, b = (world.claim(name, result(i), pod=pod) for i, name in enumerate("ab"))
        assert await world.fault(a) == ""
        fault = await world.fault(b)
        assert "container 'c0' already has a share, and claim default/b would" in fault
        assert "with one request and its count" in fault
        twice = world.pod("twice", [("c", "")])
        c = world.claim("c", result(0, request="x"), result(1, request="y"), pod=twice)
        assert "container 'c0' already has a share" in await world.fault(c)


async def test_claims_that_no_container_uses_are_given_too(world: World) -> None:
    """The kubelet prepares all claims of a pod."""
    pod = world.pod("pod", [])
    async with world.daemon(FakeCards(card(0))):
        for name in ("a", "b"):
            assert await world.fault(world.claim(name, result(0), pod=pod)) == ""
        assert len(world.files()) == 2


async def test_a_claim_for_extended_resources_is_given(world: World) -> None:
    """The scheduler makes it, and the pod's status says for which container."""
    status: Manifest = {
        "phase": "Pending",
        "extendedResourceClaimStatus": {
            "resourceClaimName": "made",
            "requestMappings": [
                {
                    "containerName": "c0",
                    "resourceName": "deviceclass.resource.kubernetes.io/whole.gpu-fraction.dev",
                    "requestName": "container-0-request-0",
                }
            ],
        },
    }
    pod = world.pod("pod", [])
    world.server.add({**pod, "status": status})
    async with world.daemon(FakeCards(card(0))):
        listed = await world.client.get(PODS.at("pod", namespace="default"), dict)
        got = result(0, WHOLE, request="container-0-request-0")
        env = (await world.start(world.claim("made", got, pod=listed))).env
        assert env["GPU_FRACTION"] == "1"
        assert 'container="c0",namespace="default",pod="pod"' in (await world.get("/metrics"))[1]


async def test_a_pod_that_the_watch_has_not_shown_is_waited_for(world: World) -> None:
    """The kubelet may know it first."""
    world.server.faults.add(Fault(DelayWatch(0.3), verb="watch", resource="pods", times=None))
    async with world.daemon(FakeCards(card(0))):
        assert await world.fault(world.claim("one", result(0))) == ""
    (record,) = records(world.root)
    assert record["binding"]["container"] == "c0"


def records(root: Path) -> list[Manifest]:
    """What is stored of allocations."""
    files = (root / "state" / "allocations").glob("*.json")
    return [msgspec.json.decode(file.read_bytes())["allocation"] for file in files]


async def test_shares_outlive_the_process(world: World) -> None:
    """A claim that was prepared is known, counted, and given the same again."""
    claims = [world.claim(name, result(0, HALF)) for name in ("a", "b", "c")]
    async with world.daemon(FakeCards(card(0))):
        first = await world.prepare(claims[0])
    assert [r["binding"]["pod"] for r in records(world.root)] == ["pod-a"]
    async with world.daemon(FakeCards(card(0))):
        assert await world.fault(claims[1]) == ""
        assert "has no room" in await world.fault(claims[2])
        assert await world.prepare(claims[0]) == first


async def test_what_vanished_while_the_daemon_was_down_is_released(world: World) -> None:
    """Claims that are gone, replaced or not allocated any more, and files of nobody."""
    small = {dra.CORES: "10", dra.MEMORY_PPM: "10000"}
    names = ("gone", "replaced", "idle", "kept", "runs")
    claims = [world.claim(name, result(0, small)) for name in names]
    async with world.daemon(FakeCards(card(0))):
        await world.prepare(*claims)
        assert len(world.files()) == 5
    stray = world.root / "cdi" / "gpu-fraction-slice_00000000-gpu_11111111.json"
    stray.write_text("{}")
    for name in ("gone", "replaced", "idle", "kept"):
        world.server.remove(PODS, f"pod-{name}", "default")
    world.server.remove(RESOURCE_CLAIMS, "gone", "default")
    world.claim("replaced", result(0))
    world.server.add({**world.stored_claim("idle"), "status": {}})
    async with world.daemon(FakeCards(card(0))):
        await until(lambda: len(world.files()) == 2)
        assert not stray.exists()
    assert {r["binding"]["pod"] for r in records(world.root)} == {"pod-kept", "pod-runs"}


async def test_slots_of_the_other_mode_count_until_their_pods_are_gone(world: World) -> None:
    """A node that changes its mode gives no card away twice."""
    old = world.pod("old", [])
    store = AllocationStore(world.root / "state" / "allocations")
    await asyncio.to_thread(store.load)
    share = CardShare("GPU-0", 900, 36_000)
    bound = Binding("default", "old", PodUid(old["metadata"]["uid"]), "main", (share,))
    await store.put(Allocation(Nonce("0123abcd"), token(0), 1, 0.0, bound))
    store.close()
    claim = world.claim("new", result(0))
    async with world.daemon(FakeCards(card(0))):
        assert "memory 36000 + 10000 of 40000" in await world.fault(claim)
        await until(lambda: len(world.files()) == 1)
    world.server.remove(PODS, "old", "default")
    async with world.daemon(FakeCards(card(0))):
        await until(lambda: world.files() == set())
        async with asyncio.timeout(8):
            while await world.fault(claim):  # the account follows the file
                await asyncio.sleep(0.01)


def test_the_device_plugin_lists_no_claims() -> None:
    """A claim that the other mode has left is no device of the kubelet's."""
    left = Allocation(Nonce("1-gpu"), Token("default/one/1"), 1, 0.0)
    cards = Inventory(cards=(Card(uuid="GPU-0", index=0, model="A", memory_mib=1, slots=2),))
    assert [state.token for state in token_states(cards, [left])] == [token(0), token(1)]
