"""Each container starts with exactly its own slice."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from asyncinotify import Inotify, Mask

from gpu_fraction.domain import assignment, keys, request_annotation
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.node_daemon.isolation.engine import CardFacts
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.slices.binder import Timing
from gpu_fraction.node_daemon.slices.service import Tempo
from gpu_fraction.node_daemon.state.allocation import Binding
from gpu_fraction.node_daemon.state.pods import Container
from gpu_fraction.sandbox.kubelet.runtime import CdiRuntime
from tests.support.node_rig import TEMPO, Rig, StartError, node, rig_card, share


def slot_limits(core_milli: int = 250, memory_mib: int = 10_000) -> dict[str, int]:
    """Limits of one container with one slot."""
    return {keys.SLOT: 1, keys.CORE_MILLI: core_milli, keys.MEMORY_MIB: memory_mib}


async def refused(rig: Rig, reason: str) -> str:
    """Wait for an Event of that reason; its message."""
    await rig.until(lambda: any(event[1] == reason for event in rig.api.events))
    return next(message for _, found, message in rig.api.events if found == reason)


async def test_container_gets_the_slice_that_was_assigned(tmp_path: Path) -> None:
    """The runtime's environment is what the assignment says, not what came first."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        off = {keys.FRAMEWORK_ENV: "off"}
        pod = rig.pod({"main": [share(1, 250, 10_000)]}, annotations=off)
        started = (await rig.run_pod(pod))["main"]
        assert started.env == {
            "GPU_FRACTION": "0.25",
            "GPU_FRACTION_DEVICES": "GPU-1",
            "GPU_MEMORY_LIMIT_MIB": "10000",
            "NVIDIA_VISIBLE_DEVICES": "GPU-1",
        }


class WatchingRuntime(CdiRuntime):
    """Knows the files of its last look, which comes a while after the directory has changed."""

    def __init__(self, directory: Path, notices_after_s: float) -> None:
        super().__init__(directory)
        self._directory = directory
        self._notices_after_s = notices_after_s
        self._known: list[tuple[str, dict[str, str]]] = []

    def devices(self) -> list[tuple[str, dict[str, str]]]:
        """Those of the last look."""
        return self._known

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look again after each arrival by rename, while the block runs."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            self._known = CdiRuntime.devices(self)

        async def watch(inotify: Inotify) -> None:
            async for _ in inotify:
                loop.call_later(self._notices_after_s, look)

        with Inotify() as inotify:
            inotify.add_watch(self._directory, Mask.MOVED_TO)
            task = asyncio.create_task(watch(inotify))
            yield
            task.cancel()


async def test_pace_of_a_real_installation(tmp_path: Path) -> None:
    """A runtime that notices files late resolves each name at the first try, and all returns.

    It uses the default waits; the other tests shorten them.
    """
    async with node(tmp_path, rig_card(0), tempo=Tempo()) as rig:
        notices_after_s = Timing().settle_s / 3
        rig.kubelet.runtime = runtime = WatchingRuntime(rig.paths.cdi, notices_after_s)
        async with runtime.watching():
            pods = [rig.pod({"main": [share(0)]}) for _ in range(3)]
            for pod in pods:
                await rig.admit(pod)
                await rig.kubelet.start_container(pod.uid, "main")
            await rig.kubelet.restart()
            await rig.registered()
            rig.kubelet.stop_container(pods[0].uid, "main")
            await rig.kubelet.start_container(pods[0].uid, "main")
        for pod in pods:
            rig.end(pod)
        await rig.until(lambda: not rig.files() and len(rig.service.state.store) == 0, 20)


async def test_several_containers_and_cards(tmp_path: Path) -> None:
    """Every container of a pod has its own cards; different amounts are told one a card."""
    async with node(tmp_path, rig_card(0), rig_card(1), rig_card(2, memory_mib=80_000)) as rig:
        pod = rig.pod(
            {
                "main": [share(0, 500, 20_000), share(2, 500, 40_000)],
                "side": [share(1, 1000, 40_000)],
            }
        )
        started = await rig.run_pod(pod)
        assert started["main"].env["GPU_FRACTION_DEVICES"] == "GPU-0,GPU-2"
        assert started["main"].env["GPU_MEMORY_LIMIT_MIB"] == "20000,40000"
        assert started["main"].env["GPU_FRACTION"] == "0.5"
        assert started["side"].env["GPU_FRACTION_DEVICES"] == "GPU-1"
        assert started["side"].env["GPU_FRACTION"] == "1"


async def test_restarted_container_keeps_its_slice(tmp_path: Path) -> None:
    """A second start finds the same name, the same cards, and takes nothing more."""
    async with node(tmp_path, rig_card(0, memory_mib=10_000)) as rig:
        pod = rig.pod({"main": [share(0, 250, 10_000)]})
        first = (await rig.run_pod(pod))["main"]
        files = rig.files()
        rig.kubelet.stop_container(pod.uid, "main")
        assert await rig.start(pod) == first
        assert rig.files() == files


async def test_deleted_pods_return_everything(tmp_path: Path) -> None:
    """After the last pod nothing is taken, remembered or left in the CDI directory."""
    async with node(tmp_path, rig_card(0)) as rig:
        pods = [rig.pod({"main": [share(0, 100, 4_000)]}) for _ in range(10)]
        await asyncio.gather(*(rig.run_pod(pod) for pod in pods))
        assert len(rig.files()) == 10
        for pod in pods:
            rig.end(pod)
        await rig.until(lambda: not rig.files() and not rig.service.state.ledger.holders())
        await rig.until(lambda: len(rig.service.state.store) == 0)


async def test_a_slice_is_returned_only_after_two_looks(tmp_path: Path) -> None:
    """One look may be wrong: the kubelet lists no pods for a while after its start."""
    pace = replace(TEMPO.pace, idle_s=60.0, lingering_s=60.0)
    async with node(tmp_path, rig_card(0), tempo=replace(TEMPO, pace=pace)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        looks = rig.kubelet.lists
        rig.end(pod)
        await rig.until(lambda: not rig.files())
        assert rig.kubelet.lists == looks + 2


class RecordedIsolation(NodeIsolation):
    """Notes the containers whose isolation is taken down."""

    def __init__(self) -> None:
        super().__init__([])
        self.released: list[tuple[str, str]] = []

    def release(self, binding: Binding) -> None:
        """Note it first."""
        self.released.append((binding.pod, binding.container))
        super().release(binding)


async def test_isolation_is_taken_down_once_for_each_container(tmp_path: Path) -> None:
    """With its slice, so that no limit outlives it."""
    async with node(tmp_path, rig_card(0)) as rig:
        rig.isolation = isolation = RecordedIsolation()
        await rig.kill_daemon()
        await rig.start_daemon()
        await rig.ready()
        pod = rig.pod({"main": [share(0)], "side": [share(0)]})
        await rig.run_pod(pod)
        assert isolation.released == []
        rig.end(pod)
        await rig.until(lambda: len(rig.service.state.store) == 0)
        assert sorted(isolation.released) == [(pod.name, "main"), (pod.name, "side")]


async def test_ended_pod_returns_its_slice_while_its_object_remains(tmp_path: Path) -> None:
    """A pod that succeeded never starts again, so its room is free for the next."""
    async with node(tmp_path, rig_card(0, memory_mib=10_000)) as rig:
        done = rig.pod({"main": [share(0)]})
        await rig.run_pod(done)
        rig.kubelet.remove(done.uid)
        rig.api.put(replace(done, phase="Succeeded"))
        waiting = rig.pod({"main": [share(0)]})
        assert (await rig.run_pod(waiting))["main"].env["GPU_FRACTION_DEVICES"] == "GPU-0"


async def test_full_card_refuses_until_room_is_returned(tmp_path: Path) -> None:
    """The refusal names the numbers, reaches the pod as an Event, and passes once it fits."""
    async with node(tmp_path, rig_card(0, memory_mib=10_000)) as rig:
        first = rig.pod({"main": [share(0, 250, 10_000)]})
        await rig.run_pod(first)
        second = rig.pod({"main": [share(0, 250, 1)]})
        await rig.admit(second)
        with pytest.raises(StartError, match=r"memory 10000 \+ 1 of 10000"):
            await rig.kubelet.start_container(second.uid, "main")
        assert "GPU-0 has no room" in await refused(rig, "CardFull")
        rig.end(first)
        assert (await rig.start(second)).env["GPU_MEMORY_LIMIT_MIB"] == "1"


async def test_slice_is_kept_while_the_pods_cgroup_exists(tmp_path: Path) -> None:
    """A force-deleted pod is gone from every list while its processes still run."""
    async with node(tmp_path, rig_card(0, memory_mib=10_000)) as rig:
        first = rig.pod({"main": [share(0)]})
        await rig.run_pod(first)
        rig.cgroups.add(first.uid)
        rig.end(first)
        second = rig.pod({"main": [share(0)]})
        await rig.admit(second)
        for _ in range(10):
            with pytest.raises(StartError, match="no room"):
                await rig.kubelet.start_container(second.uid, "main")
            await asyncio.sleep(0.02)
        rig.cgroups.clear()
        await rig.start(second)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (slot_limits(memory_mib=9_999), "requests 9999 of gpu-fraction.dev/memory-mib"),
        (slot_limits(core_milli=251), "requests 251 of gpu-fraction.dev/core-milli"),
    ],
)
async def test_assignment_must_match_the_containers_requests(
    tmp_path: Path, limits: dict[str, int], message: str
) -> None:
    """What a scheduler decided cannot differ from what was admitted and charged."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]}, limits=limits)
        await rig.admit(pod)
        with pytest.raises(StartError, match="AssignmentInvalid"):
            await rig.kubelet.start_container(pod.uid, "main")
        assert message in await refused(rig, "AssignmentInvalid")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not an assignment"), ('{"v":9,"containers":{}}', "version 9")],
)
async def test_unreadable_assignment_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Nothing is guessed in its place."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod(annotations={keys.ASSIGNED: text})
        await rig.admit(pod)
        with pytest.raises(StartError, match=message):
            await rig.kubelet.start_container(pod.uid, "main")


async def test_container_that_the_assignment_leaves_out_is_refused(tmp_path: Path) -> None:
    """A container with a slot and no cards does not start with another's."""
    async with node(tmp_path, rig_card(0)) as rig:
        members = [Container(n, limits=slot_limits()) for n in ("main", "other")]
        notes = {keys.ASSIGNED: assignment.render({"main": (share(0),)})}
        pod = rig.pod(annotations=notes, containers=members)
        await rig.admit(pod)
        await rig.start(pod, "main")
        with pytest.raises(StartError, match="does not list container 'other'"):
            await rig.kubelet.start_container(pod.uid, "other")


async def test_unknown_and_unhealthy_cards_are_refused(tmp_path: Path) -> None:
    """The message names the card and why."""
    sick = rig_card(1, healthy=False, health_reason="XID 79")
    async with node(tmp_path, rig_card(0), sick) as rig:
        for index, message in ((1, "GPU-1 is not healthy: XID 79"), (7, "no card 'GPU-7'")):
            pod = rig.pod({"main": [share(index)]})
            await rig.admit(pod)
            with pytest.raises(StartError, match=message):
                await rig.kubelet.start_container(pod.uid, "main")


async def test_container_restarts_on_its_card_after_it_became_sick(tmp_path: Path) -> None:
    """A running slice is left alone: sickness keeps newcomers away, not its owner."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        first = (await rig.run_pod(pod))["main"]
        await rig.show_cards(type(rig.cards)(v=1, cards=(rig_card(0, healthy=False),)))
        assert await rig.start(pod) == first


async def test_required_isolation_needs_a_card_that_enforces(tmp_path: Path) -> None:
    """Only a card that enforces memory and compute, or a whole card, serves such a pod."""
    mps = rig_card(1, isolation="mps", enforces_memory=True, enforces_compute=True)
    cgroup = rig_card(2, isolation="cgroup", enforces_memory=True)
    async with node(tmp_path, rig_card(0), mps, cgroup) as rig:
        await rig.kill_daemon()
        facts = [CardFacts("GPU-1", mig_instance=True), CardFacts("GPU-0", memory_mib=40_000)]
        rig.isolation.assess(facts)
        await rig.start_daemon()
        await rig.ready()
        request = Request((Slice("main", 1, 250, 10_000, None),), isolation="required")
        notes = {keys.REQUEST: request_annotation.render(request, "native")}
        for index in (0, 2):
            pod = rig.pod({"main": [share(index)]}, annotations=notes)
            await rig.admit(pod)
            with pytest.raises(StartError, match="IsolationMissing"):
                await rig.kubelet.start_container(pod.uid, "main")
        await rig.run_pod(rig.pod({"main": [share(1)]}, annotations=notes))
        await rig.run_pod(rig.pod({"main": [share(0, 1000, 40_000)]}, annotations=notes))


async def test_init_container_with_a_slot_is_refused(tmp_path: Path) -> None:
    """The kubelet never tells which init container it starts, so none may hold a slot."""
    async with node(tmp_path, rig_card(0)) as rig:
        members = [
            Container("setup", kind="init", limits=slot_limits()),
            Container("main", limits=slot_limits()),
        ]
        notes = {keys.ASSIGNED: assignment.render({"main": (share(0),)})}
        pod = rig.pod(annotations=notes, containers=members)
        await rig.admit(pod)
        for name in ("setup", "main"):
            with pytest.raises(StartError, match="init container"):
                await rig.kubelet.start_container(pod.uid, name)
        assert rig.files() == set()


async def test_sidecar_holds_a_slice(tmp_path: Path) -> None:
    """An init container that restarts always is listed by the kubelet and served."""
    async with node(tmp_path, rig_card(0)) as rig:
        members = [Container("side", kind="sidecar", limits=slot_limits())]
        notes = {keys.ASSIGNED: assignment.render({"side": (share(0),)})}
        pod = rig.pod(annotations=notes, containers=members)
        assert (await rig.run_pod(pod))["side"].env["GPU_FRACTION_DEVICES"] == "GPU-0"


async def test_cards_are_chosen_and_recorded_without_a_scheduler(tmp_path: Path) -> None:
    """The choice is written to the pod, covers all its containers, and counts at once."""
    async with node(
        tmp_path, rig_card(0, memory_mib=15_000), rig_card(1, memory_mib=15_000)
    ) as rig:
        members = [Container(n, limits=slot_limits()) for n in ("a", "b")]
        pod = rig.pod(containers=members)
        started = await rig.run_pod(pod)
        uuids = {started[name].env["GPU_FRACTION_DEVICES"] for name in "ab"}
        assert uuids == {"GPU-0", "GPU-1"}
        written = assignment.parse(rig.api.pods[pod.uid].annotations[keys.ASSIGNED])
        assert {name: shares[0].uuid for name, shares in written.items()} == {
            name: started[name].env["GPU_FRACTION_DEVICES"] for name in "ab"
        }


async def test_resources_alone_ask_for_several_cards(tmp_path: Path) -> None:
    """Without a scheduler's choice too: two thousand thousandths are two cards."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        pod = rig.pod(limits=slot_limits(2000, 20_000))
        env = (await rig.run_pod(pod))["main"].env
        assert sorted(env["GPU_FRACTION_DEVICES"].split(",")) == ["GPU-0", "GPU-1"]
        assert (env["GPU_FRACTION"], env["GPU_MEMORY_LIMIT_MIB"]) == ("1", "10000")


async def test_unlimited_compute_on_an_instance_tells_the_part_of_the_physical_card(
    tmp_path: Path,
) -> None:
    """A share is one of the physical card wherever it lands."""
    part = rig_card(0, memory_mib=10_000, parent="GPU-p", parent_memory_mib=80_000)
    async with node(tmp_path, part) as rig:
        pod = rig.pod({"main": [share(0, 0, 4_000)]}, limits={keys.MEMORY_MIB: 4_000})
        assert (await rig.run_pod(pod))["main"].env["GPU_FRACTION"] == "0.05"


async def test_compute_alone_brings_as_much_of_the_memory(tmp_path: Path) -> None:
    """Half a card is half of its memory, as the scheduler's extender gives it."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod(limits={keys.CORE_MILLI: 500})
        assert (await rig.run_pod(pod))["main"].env["GPU_MEMORY_LIMIT_MIB"] == "20000"


@pytest.mark.parametrize(
    "limits", [{keys.SLOT: 3, keys.MEMORY_MIB: 100}, {keys.CORE_MILLI: 1001}, {keys.SLOT: 1}]
)
async def test_a_pod_that_cannot_be_served_is_given_no_cards(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    """An assignment cannot be taken back, so none is written for it."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        pod = rig.pod(containers=[Container("main", limits={keys.SLOT: 1, **limits})])
        await rig.admit(pod)
        with pytest.raises(StartError, match="ContainerUnfit"):
            await rig.kubelet.start_container(pod.uid, "main")
        assert keys.ASSIGNED not in rig.api.pods[pod.uid].annotations


@pytest.mark.parametrize("loses_answers", [False, True])
async def test_choice_outlives_an_api_server_that_does_not_answer(
    tmp_path: Path, *, loses_answers: bool
) -> None:
    """No container starts on a choice that is not recorded, and the choice stays the same."""
    async with node(
        tmp_path, rig_card(0, memory_mib=10_000), rig_card(1, memory_mib=10_000)
    ) as rig:
        pod = rig.pod()
        if loses_answers:
            rig.api.loses_answers = True
        else:
            rig.api.up = False
        await rig.admit(pod)
        with pytest.raises(StartError, match="could not be recorded"):
            await rig.kubelet.start_container(pod.uid, "main")
        held = rig.service.state.ledger.usage()
        assert set(held) == {"GPU-0"}
        rig.api.loses_answers = False
        rig.api.come_back()
        assert (await rig.start(pod)).env["GPU_FRACTION_DEVICES"] == "GPU-0"
        assert rig.service.state.ledger.usage() == held


async def test_choice_respects_pods_that_are_assigned_but_not_started(tmp_path: Path) -> None:
    """A scheduler's decision counts before its container comes."""
    async with node(
        tmp_path, rig_card(0, memory_mib=10_000), rig_card(1, memory_mib=10_000)
    ) as rig:
        rig.pod({"main": [share(0)]})
        started = await rig.run_pod(rig.pod())
        assert started["main"].env["GPU_FRACTION_DEVICES"] == "GPU-1"


async def test_hundred_pods_at_once_in_random_order(tmp_path: Path) -> None:
    """Each of a hundred containers has its own slice, and every card is exactly full."""
    cards = [rig_card(i, memory_mib=25_000) for i in range(4)]
    async with node(tmp_path, *cards) as rig:
        pods = [rig.pod({"main": [share(i % 4, 40, 1_000)]}) for i in range(100)]
        random.Random(7).shuffle(pods)
        await asyncio.gather(*(rig.admit(pod) for pod in pods))
        random.Random(8).shuffle(pods)
        started = await asyncio.gather(*(rig.start(pod) for pod in pods))
        for pod, container in zip(pods, started, strict=True):
            wanted = assignment.parse(pod.annotations[keys.ASSIGNED])["main"][0]
            assert container.env["GPU_FRACTION_DEVICES"] == wanted.uuid
            assert container.env["GPU_MEMORY_LIMIT_MIB"] == str(wanted.memory_mib)
        assert rig.sums() == {f"GPU-{i}": (25_000, 25) for i in range(4)}
        assert len({s.cdi_names for s in started}) == 100
        assert rig.kubelet.bucket.rejected < 100
