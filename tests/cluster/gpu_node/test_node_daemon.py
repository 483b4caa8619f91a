"""The node daemon on a real kubelet and a real containerd."""

import random
import time

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.assignment import CardShare
from tests.cluster.daemon import CARDS, Daemon, create_all, gpu_pod
from tests.cluster.harness.kubectl import Kubectl

pytestmark = pytest.mark.long


def wait_for(kubectl: Kubectl, name: str, condition: str = "condition=Ready") -> None:
    """Wait for a pod."""
    kubectl("wait", f"pod/{name}", f"--for={condition}", "--timeout=150s")


def returned(daemon: Daemon) -> bool:
    """Whether every slice is back."""
    return not daemon.slice_files()


def test_container_gets_its_slice(daemon: Daemon, kubectl: Kubectl, namespace: str) -> None:
    """The environment comes through the CDI file, late bound."""
    uuid = daemon.uuids[2]
    kubectl.apply(gpu_pod("one", (CardShare(uuid, 250, 20_000),)))
    wait_for(kubectl, "one")
    assert daemon.printed(namespace, "one") == f"{uuid} 20000 0.25"
    kubectl("delete", "pod", "one", "--wait=true")
    daemon.process.wait_until(lambda: returned(daemon), 120, "returned")


def test_node_shows_capacity_and_allocation(daemon: Daemon, kubectl: Kubectl) -> None:
    """``kubectl describe node`` tells MiB and thousandths, whole and taken."""
    memory_mib = CARDS * 80 * 1024  # whole GiB of the 81,559 less 600 MiB of each card
    daemon.wait_allocatable(keys.MEMORY_MIB, memory_mib)
    kubectl.apply(gpu_pod("seen", (CardShare(daemon.uuids[0], 250, 20_000),)))
    wait_for(kubectl, "seen")
    allocated = ""

    def alone() -> bool:
        # Pods of the tests before this one may take a while to go.
        nonlocal allocated
        text = kubectl("describe", "node", daemon.node.name)
        allocated = text.partition("Allocated resources:")[2]
        return [keys.SLOT, "1", "1"] in [line.split() for line in allocated.splitlines()]

    daemon.process.wait_until(alone, 60, "the only pod")
    capacity = kubectl("describe", "node", daemon.node.name).partition("Allocated resources:")[0]
    for line in (f"{keys.MEMORY_MIB}:  {memory_mib}", f"{keys.CORE_MILLI}:  4k", keys.INVENTORY):
        assert line in capacity, capacity
    rows = [line.split() for line in allocated.splitlines()]
    assert [keys.MEMORY_MIB, "20k", "20k"] in rows, allocated
    assert [keys.CORE_MILLI, "250", "250"] in rows, allocated


def test_cards_are_chosen_without_a_scheduler(
    daemon: Daemon, kubectl: Kubectl, namespace: str
) -> None:
    """A pod that nobody assigned is assigned by the daemon, which records it."""
    kubectl.apply(gpu_pod("plain", None, core_milli=100, memory_mib=3_000))
    wait_for(kubectl, "plain")
    uuid, limit, share = daemon.printed(namespace, "plain").split()
    assert (limit, share) == ("3000", "0.1")
    notes = kubectl.json("get", "pod", "plain")["metadata"]["annotations"]
    assert uuid in notes[keys.ASSIGNED]


def test_restarted_container_keeps_its_slice(
    daemon: Daemon, kubectl: Kubectl, namespace: str
) -> None:
    """The kubelet restarts a container that exits, and it finds the same cards."""
    script = 'echo "$GPU_FRACTION_DEVICES $GPU_MEMORY_LIMIT_MIB"; sleep 1; exit 1'
    kubectl.apply(gpu_pod("again", (CardShare(daemon.uuids[1], 100, 5_000),), script=script))
    path = "jsonpath={.status.containerStatuses[0].restartCount}=2"
    wait_for(kubectl, "again", path)
    lines = daemon.container_log(namespace, "again").splitlines()
    assert len(lines) >= 2
    assert set(lines) == {f"{daemon.uuids[1]} 5000"}
    assert len([p for p in daemon.slice_files() if _uid(kubectl, "again") in p.name]) == 1


@pytest.mark.timeout(900)
def test_hundred_pods_at_once(
    daemon: Daemon, kubectl: Kubectl, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of a hundred pods prints its own card and limit, and the sums fill the cards."""
    daemon.process.wait_until(lambda: returned(daemon), 90, "returned")
    amount = (81_559 - 600) // 25
    shares = [CardShare(daemon.uuids[i % CARDS], 40, amount) for i in range(100)]
    pods = [gpu_pod(f"burst-{i}", (share,)) for i, share in enumerate(shares)]
    random.Random(3).shuffle(pods)
    started = time.monotonic()
    create_all(kubectl, pods)
    kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=540s", timeout_s=560)
    took_s = time.monotonic() - started
    taken: dict[str, int] = {}
    for i, share in enumerate(shares):
        printed = daemon.printed(namespace, f"burst-{i}")
        assert printed == f"{share.uuid} {amount} 0.04"
        taken[share.uuid] = taken.get(share.uuid, 0) + int(printed.split()[1])
    assert taken == dict.fromkeys(daemon.uuids, 25 * amount)
    for uuid in daemon.uuids:
        name = f'gpu_fraction_card_slices{{uuid="{uuid}"}}'
        assert daemon.metric(name) == 25
    with capsys.disabled():
        p50_ms, p99_ms = (
            1000 * daemon.quantile("gpu_fraction_pre_start_seconds", q) for q in (0.5, 0.99)
        )
        waits = f"PreStart p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms"
        print(f"\n100 pods ready in {took_s:.1f} s; {waits}")
    kubectl("delete", "pod", "--all", "--wait=true", "--timeout=400s", timeout_s=420)
    daemon.process.wait_until(lambda: returned(daemon), 60, "returned")
    assert daemon.metric(f'gpu_fraction_card_slices{{uuid="{daemon.uuids[0]}"}}') == 0


def _uid(kubectl: Kubectl, name: str) -> str:
    return str(kubectl.json("get", "pod", name)["metadata"]["uid"])
