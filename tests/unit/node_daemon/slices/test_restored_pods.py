"""Pods of a backup, and of another release: no share is handed out twice."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gpu_fraction.domain import keys
from tests.support.node_rig import StartError, node, rig_card, share

GOLDEN = Path(__file__).parents[3] / "data" / "formats" / "0.1.0"


async def test_cards_that_are_gone_are_refused(tmp_path: Path) -> None:
    """Of another node, or taken out since; the Event names the card."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(7)]})
        await rig.admit(pod)
        with pytest.raises(StartError, match="this node has no card 'GPU-7'"):
            await rig.kubelet.start_container(pod.uid, "main")
        assert [event[:2] for event in rig.api.events] == [(pod.name, "CardUnknown")]
        assert rig.sums() == {}


async def test_a_pod_of_another_uid_waits_for_the_cards_of_its_earlier_life(
    tmp_path: Path,
) -> None:
    """Its containers may still run: the API server has forgotten them, the node has not."""
    async with node(tmp_path, rig_card(0, memory_mib=10_000)) as rig:
        before = rig.pod({"main": [share(0)]})
        await rig.run_pod(before)
        rig.cgroups.add(before.uid)
        rig.api.delete(before.uid)
        after = rig.pod({"main": [share(0)]})
        await rig.admit(after)
        with pytest.raises(StartError, match="no room"):
            await rig.kubelet.start_container(after.uid, "main")
        rig.kubelet.remove(before.uid)
        rig.cgroups.clear()
        assert (await rig.start(after)).env["GPU_FRACTION_DEVICES"] == "GPU-0"


async def test_a_pod_that_is_back_keeps_its_running_slice(tmp_path: Path) -> None:
    """Of the same UID, as after a restore of etcd: a restart finds the slice as it was."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        pod = rig.pod({"main": [share(1)]})
        first = (await rig.run_pod(pod))["main"]
        rig.cgroups.add(pod.uid)
        rig.api.delete(pod.uid)
        rig.api.put(pod)
        assert await rig.start(pod) == first


async def test_the_state_of_0_1_0_is_taken_over(tmp_path: Path) -> None:
    """Its running containers are counted, and nothing is set aside (docs/formats.md)."""
    async with node(tmp_path, rig_card(0, memory_mib=19_000)) as rig:
        await rig.kill_daemon()
        kept = rig.paths.state / "allocations" / "0123456789abcdef0123456789abcdef.json"
        shutil.copy(GOLDEN / "allocation.json", kept)
        shutil.copy(GOLDEN / "inventory.json", rig.paths.state)
        assert rig.pod({"main": [share(0)]}).uid == "uid-0"
        await rig.start_daemon()
        await rig.ready()
        assert kept.exists()
        assert rig.service.state.ledger.usage()["GPU-0"].memory_mib == 10_000
        late = rig.pod({"main": [share(0)]})
        await rig.admit(late)
        with pytest.raises(StartError, match="no room: memory 10000"):
            await rig.kubelet.start_container(late.uid, "main")


async def test_cards_that_a_newer_release_remembered_are_read_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a rollback: the log says so, and pods start."""
    async with node(tmp_path, rig_card(0)) as rig:
        await rig.kill_daemon()
        (rig.paths.state / "inventory.json").write_text('{"v":2}')
        await rig.start_daemon()
        await rig.ready()
        await rig.run_pod(rig.pod({"main": [share(0)]}))
    assert (
        "version 2, from a newer release; this program reads version 1" in capsys.readouterr().out
    )


@pytest.mark.parametrize("text", ['{"v":2}', "{"])
async def test_running_on_cards_that_nobody_can_name_closes_the_node(
    tmp_path: Path, text: str
) -> None:
    """The state is lost and the annotation is newer: any card may be the one."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        running = tuple(replace(c, container_id="0" * 64) for c in pod.containers)
        rig.api.put(replace(pod, annotations={keys.ASSIGNED: text}, containers=running))
        await rig.kill_daemon()
        shutil.rmtree(rig.paths.state)
        await rig.start_daemon()
        await rig.ready()
        late, unplaced = rig.pod({"main": [share(1)]}), rig.pod()
        for new in (late, unplaced):
            await rig.admit(new)
            with pytest.raises(StartError, match="'main' of pod uid-0 runs on cards that cannot"):
                await rig.kubelet.start_container(new.uid, "main")
        rig.end(pod)
        await rig.start(late)
        await rig.start(unplaced)
