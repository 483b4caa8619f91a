"""Kubelet answers that are wrong, late or missing give no wrong or doubled slice."""

import asyncio
from pathlib import Path

import pytest

from tests.support.node_rig import StartError, node, rig_card, share


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("survivor", [0, 1])
async def test_one_id_for_two_pods(tmp_path: Path, *, checkpoint: bool, survivor: int) -> None:
    """Neither pod starts while both hold the id; the one that stays gets its own slice."""
    async with node(tmp_path, rig_card(0), rig_card(1), checkpoint=checkpoint) as rig:
        pods = [rig.pod({"main": [share(i)]}) for i in (0, 1)]
        await rig.admit(pods[0], ["gpu-fraction-slot-0003"])
        await rig.admit(pods[1], ["gpu-fraction-slot-0003"])
        for pod in pods:
            with pytest.raises(StartError, match="to 2 containers"):
                await rig.kubelet.start_container(pod.uid, "main")
        assert {(name, reason) for name, reason, _ in rig.api.events} == {
            (pod.name, "SlotShared") for pod in pods
        }
        assert rig.files() == set()
        rig.end(pods[1 - survivor])
        if checkpoint:
            started = await rig.start(pods[survivor])
            assert started.env["GPU_FRACTION_DEVICES"] == f"GPU-{survivor}"
            return
        # Without the kubelet's notes the later name is taken, once it is certainly listed: the
        # earlier pod then never finds its own, and starts nothing rather than another's slice.
        if survivor == 1:
            assert (await rig.start(pods[1])).env["GPU_FRACTION_DEVICES"] == "GPU-1"
        else:
            await asyncio.sleep(0.1)
            with pytest.raises(StartError, match="0 devices"):
                await rig.kubelet.start_container(pods[0].uid, "main")


async def test_running_container_whose_id_is_given_again(tmp_path: Path) -> None:
    """The owner keeps its slice; the newcomer starts only after the owner has gone."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        owner, late = (rig.pod({"main": [share(i)]}) for i in (0, 1))
        await rig.admit(owner, ["gpu-fraction-slot-0000"])
        await rig.start(owner)
        await rig.admit(late, ["gpu-fraction-slot-0000"])
        for pod in (owner, late):
            with pytest.raises(StartError, match="SlotShared"):
                await rig.kubelet.start_container(pod.uid, "main")
        rig.end(owner)
        assert (await rig.start(late)).env["GPU_FRACTION_DEVICES"] == "GPU-1"


async def test_two_pods_of_one_name(tmp_path: Path) -> None:
    """A force-deleted pod and its successor share a name; neither gets the other's slice."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        old = rig.pod({"main": [share(0)]}, name="db-0")
        await rig.admit(old)
        rig.api.delete(old.uid)
        new = rig.pod({"main": [share(1)]}, name="db-0")
        with pytest.raises(StartError, match="another pod"):
            await rig.kubelet.start_container(old.uid, "main")
        await rig.admit(new)
        for pod in (old, new):
            with pytest.raises(StartError, match="two pods named ns/db-0"):
                await rig.kubelet.start_container(pod.uid, "main")
        rig.kubelet.remove(old.uid)
        assert (await rig.start(new)).env["GPU_FRACTION_DEVICES"] == "GPU-1"


async def test_rate_limited_pod_resources(tmp_path: Path) -> None:
    """Thirty starts pass although the kubelet answers one question in fifty milliseconds."""
    async with node(tmp_path, rig_card(0)) as rig:
        rig.kubelet.bucket = type(rig.kubelet.bucket)(per_second=20, burst=1)
        pods = [rig.pod({"main": [share(0, 10, 1_000)]}) for _ in range(30)]
        await asyncio.gather(*(rig.run_pod(pod) for pod in pods))
        assert rig.sums() == {"GPU-0": (30_000, 30)}


async def test_kubelet_state_lost(tmp_path: Path) -> None:
    """Ids that the kubelet has forgotten and gives anew never carry an old slice."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        owner = rig.pod({"main": [share(0)]})
        await rig.admit(owner, ["gpu-fraction-slot-0000"])
        await rig.start(owner)
        await rig.kubelet.stop()
        rig.kubelet.devices.lose_checkpoint()
        await rig.kubelet.start()
        await rig.registered()
        late = rig.pod({"main": [share(1)]})
        await rig.admit(late, ["gpu-fraction-slot-0000"])
        assert (await rig.start(late)).env["GPU_FRACTION_DEVICES"] == "GPU-1"
        assert rig.sums() == {"GPU-0": (10_000, 1), "GPU-1": (10_000, 1)}


async def test_silent_kubelet_returns_nothing(tmp_path: Path) -> None:
    """Without the kubelet's list a pod's absence from the API proves nothing."""
    async with node(tmp_path, rig_card(0)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        rig.kubelet.bucket = type(rig.kubelet.bucket)(per_second=0, burst=0)
        rig.api.delete(pod.uid)
        await asyncio.sleep(0.2)
        assert len(rig.files()) == 1


async def test_more_than_one_slot_is_refused(tmp_path: Path) -> None:
    """One token a container; the message says so."""
    async with node(tmp_path, rig_card(0)) as rig:
        with pytest.raises(Exception, match=r"exactly 1 of gpu-fraction\.dev/slot, got 2"):
            await rig.service.binder.allocate(["a", "b"])
