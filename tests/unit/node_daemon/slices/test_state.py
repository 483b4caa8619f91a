"""What the daemon remembers survives, and what cannot be trusted is set aside."""

import asyncio
import shutil
import sys
import threading
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gpu_fraction.node_daemon.state.allocation import (
    Allocation,
    Binding,
    ContainerKey,
    Nonce,
    PodUid,
    Token,
)
from gpu_fraction.node_daemon.state.durable import write_durably
from gpu_fraction.node_daemon.state.errors import Reason, Refusal
from gpu_fraction.node_daemon.state.ledger import Ledger
from gpu_fraction.node_daemon.state.store import AllocationStore
from tests.support.node_rig import Rig, StartError, inventory, node, rig_card, share


async def restart(rig: Rig) -> None:
    """A new daemon process."""
    await rig.kill_daemon()
    await rig.start_daemon()
    await rig.ready()


async def test_reboot_brings_the_same_slices_back(tmp_path: Path) -> None:
    """The CDI directory is empty after a boot; names and slices are as before."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        pods = [rig.pod({"main": [share(i)]}) for i in (0, 1)]
        first = [(await rig.run_pod(pod))["main"] for pod in pods]
        await rig.kill_daemon()
        await rig.kubelet.stop()
        rig.kubelet.running.clear()
        shutil.rmtree(rig.paths.cdi)
        await rig.kubelet.start()
        with pytest.raises(StartError, match="0 devices"):
            await rig.kubelet.start_container(pods[0].uid, "main")
        await rig.start_daemon()
        await rig.ready()
        assert [await rig.start(pod) for pod in pods] == first


async def test_pods_deleted_while_the_daemon_was_down_are_returned(tmp_path: Path) -> None:
    """A new process finds what nobody holds any more, and keeps the rest."""
    async with node(tmp_path, rig_card(0)) as rig:
        gone, kept, unbound = (rig.pod({"main": [share(0)]}) for _ in range(3))
        await rig.run_pod(gone)
        await rig.run_pod(kept)
        await rig.admit(unbound)
        await rig.kill_daemon()
        rig.end(gone)
        await rig.start_daemon()
        await rig.ready()
        await rig.until(lambda: len(rig.files()) == 1)
        await rig.until(lambda: rig.service.state.ledger.usage()["GPU-0"].slots == 1)
        await rig.start(unbound)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b'{"v":1,"crc32":0,"allocation":{}}', b'{"v":0,"old":"format"}', b"\xff\x00"],
)
async def test_damaged_file_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    """It is neither trusted nor fatal: its pod must come anew, all others go on."""
    async with node(tmp_path, rig_card(0, memory_mib=20_000)) as rig:
        victim, other = (rig.pod({"main": [share(0)]}) for _ in range(2))
        await rig.run_pod(victim)
        first = (await rig.run_pod(other))["main"]
        rig.api.put(
            replace(
                victim,
                containers=tuple(replace(c, container_id="0" * 64) for c in victim.containers),
            )
        )
        name = rig.kubelet.running[victim.uid, "main"].cdi_names[0].partition("=")[2]
        await rig.kill_daemon()
        (rig.paths.state / "allocations" / f"{name}.json").write_bytes(damage)
        await rig.start_daemon()
        await rig.ready()
        assert await rig.start(other) == first
        with pytest.raises(StartError, match="state was lost"):
            await rig.kubelet.start_container(victim.uid, "main")
        aside = list((rig.paths.state / "allocations" / "set-aside").iterdir())
        assert [path.name.partition(".")[0] for path in aside] == [name]
        late = rig.pod({"main": [share(0)]})
        await rig.admit(late)
        with pytest.raises(StartError, match="no room"):
            await rig.kubelet.start_container(late.uid, "main")


async def test_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """A file that reads well but is not what was written is not trusted."""
    store = AllocationStore(tmp_path)
    await asyncio.to_thread(store.load)
    allocation = Allocation(Nonce("a1"), Token("gpu-fraction-slot-0001"), 1, 1.0)
    await store.put(allocation)
    path = tmp_path / "a1.json"
    path.write_bytes(path.read_bytes().replace(b"slot-0001", b"slot-0002"))
    again = AllocationStore(tmp_path)
    assert await asyncio.to_thread(again.load) == 1
    assert list(again) == []


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_return(
    tmp_path: Path,
) -> None:
    """A power cut at any moment leaves the old content or the new, and the new after the end."""
    path = tmp_path / "a1.json"
    path.write_bytes(b"old")
    synced: list[tuple[str, bytes, bytes]] = []

    def fsync(descriptor: int) -> None:
        """Note what is synced, and what the file holds under either name at that moment."""
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        content = b"" if name.is_dir() else name.read_bytes()
        synced.append((str(name.relative_to(tmp_path)), content, path.read_bytes()))

    write_durably(path, b"new", fsync=fsync)
    assert synced == [(".a1.json.tmp", b"new", b"old"), (".", b"", b"new")]


def test_stored_bindings_keep_their_field_names() -> None:
    """A newer daemon reads the files of the one before it."""
    stored = (
        b'{"namespace":"ns","pod":"p","uid":"u","container":"c","shares":'
        b'[{"uuid":"GPU-0","coreMilli":250,"memoryMib":10000}],"demand":"required","root_risk":""'
    )
    binding = msgspec.json.decode(stored + b"}", type=Binding)
    assert binding == Binding("ns", "p", PodUid("u"), "c", (share(0),), "required", "")
    assert msgspec.json.encode(binding) == stored + b',"own_env":null}'


async def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A temporary file that a crash left is dropped at the next start."""
    store = AllocationStore(tmp_path)
    await asyncio.to_thread(store.load)
    allocation = Allocation(Nonce("a1"), Token("t"), 1, 1.0)
    await store.put(allocation)
    (tmp_path / ".a1.json.tmp").write_bytes(b"half")
    again = AllocationStore(tmp_path)
    assert await asyncio.to_thread(again.load) == 0
    assert list(again) == [allocation]
    assert again.next_sequence() > 1
    assert [path.name for path in tmp_path.iterdir()] == ["a1.json"]


async def test_nothing_changes_under_a_reader_that_does_not_wait(tmp_path: Path) -> None:
    """Files are written beside the event loop; what it sees changes only where it waits."""
    store = AllocationStore(tmp_path)
    await asyncio.to_thread(store.load)
    allocations = tuple(Allocation(Nonce(f"a{i:02}"), Token("t"), i, 1.0) for i in range(40))

    def files() -> int:
        return len(list(tmp_path.glob("*.json")))

    async def under_way(works: Iterable[Awaitable[None]]) -> asyncio.Future[list[None]]:
        all_of_them = asyncio.gather(*works)
        for _ in range(3):
            await asyncio.sleep(0)
        return all_of_them

    puts = await under_way(store.put(allocation) for allocation in allocations)
    seen = store.of_token(Token("t"))
    while files() < len(allocations):
        assert store.of_token(Token("t")) == seen
    await puts
    assert store.of_token(Token("t")) == allocations
    removals = await under_way(store.remove(allocation.nonce) for allocation in allocations)
    seen = store.of_token(Token("t"))
    while files():
        assert store.of_token(Token("t")) == seen
    await removals
    assert store.of_token(Token("t")) == ()


def test_the_ledger_says_why_it_refuses() -> None:
    """By the reason of the Event, and with the amounts; what it holds stays as it was."""
    ledger, key = Ledger(), ContainerKey(PodUid("uid"), "main")
    cards = {"GPU-0": rig_card(0)}
    ledger.reserve(key, [share(0)], cards)
    with pytest.raises(Refusal, match=r"250 milli 10000 MiB.*1 milli 2 MiB") as differs:
        ledger.reserve(key, [share(0, 1, 2)], cards)
    other = ContainerKey(PodUid("uid"), "other")
    with pytest.raises(Refusal, match="no card 'GPU-7'") as unknown:
        ledger.reserve(other, [share(7)], cards)
    assert differs.value.reason is Reason.ASSIGNMENT_DIFFERS
    assert unknown.value.reason is Reason.CARD_UNKNOWN
    assert (ledger.shares(key), ledger.shares(other)) == ((share(0),), ())


def test_usage_can_be_read_beside_the_event_loop() -> None:
    """As a scrape of the metrics does, while containers come."""
    ledger = Ledger()
    ledger.record(ContainerKey(PodUid("first"), "main"), [share(0, 1, 1)])
    reading, done = threading.Event(), threading.Event()
    slots: list[int] = []

    def scrape() -> None:
        while not done.is_set():
            slots.append(ledger.usage()["GPU-0"].slots)
            reading.set()

    thread = threading.Thread(target=scrape)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        assert reading.wait(5)
        for i in range(1_000):
            ledger.record(ContainerKey(PodUid(f"later-{i}"), "main"), [share(0, 1, 1)])
    finally:
        sys.setswitchinterval(interval_s)
        done.set()
        thread.join()
    assert slots == sorted(slots)


async def test_lost_state_still_counts_running_containers(tmp_path: Path) -> None:
    """Without its own memory the daemon counts what the pods' assignments say is running."""
    async with node(tmp_path, rig_card(0, memory_mib=10_000)) as rig:
        pod = rig.pod({"main": [share(0)]})
        await rig.run_pod(pod)
        rig.api.put(
            replace(
                pod, containers=tuple(replace(c, container_id="0" * 64) for c in pod.containers)
            )
        )
        await rig.kill_daemon()
        shutil.rmtree(rig.paths.state)
        await rig.start_daemon()
        await rig.ready()
        late = rig.pod({"main": [share(0)]})
        await rig.admit(late)
        with pytest.raises(StartError, match="no room"):
            await rig.kubelet.start_container(late.uid, "main")
        assert len(rig.files()) == 1, "the file of a living pod is never deleted"
        rig.end(pod)
        await rig.start(late)


async def test_orphan_files_go_when_their_pod_has_gone(tmp_path: Path) -> None:
    """Files that no allocation explains are removed, but never a living pod's."""
    async with node(tmp_path, rig_card(0)) as rig:
        alive = rig.pod({"main": [share(0)]})
        await rig.kill_daemon()
        orphans = {
            uid: rig.paths.cdi / f"gpu-fraction-slice_{'0' * 31}{i}_{uid}.json"
            for i, uid in enumerate((alive.uid, PodUid("gone")))
        }
        for path in orphans.values():
            path.write_text('{"kind":"gpu-fraction.dev/slice","devices":[]}')
        other = rig.paths.cdi / "somebody-else.json"
        other.write_text('{"kind":"example.com/nic","devices":[]}')
        await rig.start_daemon()
        await rig.ready()
        await rig.until(lambda: not orphans[PodUid("gone")].exists())
        assert orphans[alive.uid].exists()
        assert other.exists()


async def test_first_list_does_not_wait_for_the_cards(tmp_path: Path) -> None:
    """A new process advertises what its predecessor saw until the cards answer."""
    async with node(tmp_path, rig_card(0, slots=3), rig_card(1, slots=4)) as rig:
        pod = rig.pod({"main": [share(0)]})
        first = (await rig.run_pod(pod))["main"]
        await rig.until((rig.paths.state / "inventory.json").exists)
        await rig.kill_daemon()
        cards, rig.cards = rig.cards, None
        await rig.start_daemon()
        await rig.registered()
        assert len(rig.kubelet.devices.endpoint.healthy) == 7
        assert await rig.start(pod) == first, "a bound slice restarts before that, too"
        assert cards is not None
        await rig.show_cards(cards)
        await rig.ready()


async def test_tokens_follow_the_cards_health(tmp_path: Path) -> None:
    """A sick card lowers the slots, and the pods on it see their own token turn unhealthy."""
    async with node(tmp_path, rig_card(0, slots=4), rig_card(1, slots=4)) as rig:
        endpoint = rig.kubelet.devices.endpoint
        pods = [rig.pod({"main": [share(i, 100, 1_000)]}) for i in (0, 0, 1)]
        for pod in pods:
            await rig.run_pod(pod)
        tokens = {a.uid: a.ids[0] for a in rig.kubelet.devices.allocated}
        await rig.show_cards(inventory(rig_card(0, slots=4, healthy=False), rig_card(1, slots=4)))
        await rig.until(lambda: len(endpoint.healthy) == 4)
        assert len(endpoint.unhealthy) == 4
        assert {tokens[pods[0].uid], tokens[pods[1].uid]} <= endpoint.unhealthy
        assert tokens[pods[2].uid] in endpoint.healthy
        await rig.show_cards(inventory(rig_card(0, slots=4), rig_card(1, slots=4)))
        await rig.until(lambda: len(endpoint.healthy) == 8)


async def test_metrics_show_what_is_allocated(tmp_path: Path) -> None:
    """Allocation comes from the daemon's own state, before any container used its card."""
    async with node(tmp_path, rig_card(0)) as rig:
        await rig.run_pod(rig.pod({"main": [share(0)]}))
        late = rig.pod({"main": [share(7)]})
        await rig.admit(late)
        with pytest.raises(StartError):
            await rig.kubelet.start_container(late.uid, "main")
        value = rig.registry.get_sample_value
        on_card = {"uuid": "GPU-0"}
        assert value("gpu_fraction_card_allocated_core_milli", on_card) == 250
        assert value("gpu_fraction_card_allocated_memory_bytes", on_card) == 10_000 * 2**20
        assert value("gpu_fraction_card_capacity_memory_bytes", on_card) == 40_000 * 2**20
        assert value("gpu_fraction_card_slices", on_card) == 1
        # The call is counted when it has ended, which may be after its answer has come.
        await rig.until(lambda: value("gpu_fraction_pre_start_seconds_count") == 2)
        assert value("gpu_fraction_refusals_total", {"reason": "CardUnknown"}) == 1
        assert value("gpu_fraction_kubelet_registrations_total", {"cause": "start"}) == 1
        assert value("gpu_fraction_kubelet_streams") == 1


async def test_kubelet_message_only_where_something_changed(tmp_path: Path) -> None:
    """For each message the kubelet writes its checkpoint, so none is sent without a reason."""
    async with node(tmp_path, rig_card(0)) as rig:
        await rig.until(lambda: len(rig.kubelet.devices.endpoint.healthy) == 32)
        before = rig.kubelet.devices.messages
        for _ in range(5):
            await rig.run_pod(rig.pod({"main": [share(0, 10, 100)]}))
        assert rig.kubelet.devices.messages == before
