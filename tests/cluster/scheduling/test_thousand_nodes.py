"""A real kube-scheduler, our extender, a thousand nodes of 8 cards whose pods run and end."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from gpu_fraction.domain.placement import Ask
from tests.cluster.scheduling.rig import CARDS, Rig, cpu_s, pod_manifest
from tests.cluster.scheduling.test_scheduling import (
    api_calls,
    check_cards,
    check_shares,
    mixed,
    share,
)

pytestmark = pytest.mark.long

FOUR = (share(1000, 4),)
OF_A_KIND = 800
"""Chosen: about two minutes of two processors in all, most of them the API server's."""


def peak_mib(pid: int) -> int:
    """The most memory that a process has held at once."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1024


async def run_pods(rig: Rig, asks: Mapping[str, tuple[Ask, ...]]) -> None:
    """Create pods and wait until they run; each cost the API server one call of the extender."""
    calls, spent_s, begun_s = await api_calls(rig), cpu_s(rig.extender.pid), time.monotonic()
    await rig.create_pods([pod_manifest(name, *pod) for name, pod in asks.items()])
    await rig.until_running(timeout_s=300)
    spent_s, lasted_s = cpu_s(rig.extender.pid) - spent_s, time.monotonic() - begun_s
    calls = await api_calls(rig) - calls
    print(
        f"{len(asks)} pods in {lasted_s:.0f} s, {calls:.0f} calls; extender {spent_s:.1f} s CPU, "
        f"at most {peak_mib(rig.extender.pid)} MiB"
    )
    # Kubernetes may ask for a bind again; whatever watches begin anew is a call as well.
    assert len(asks) <= calls <= len(asks) * 1.01


async def check_books(rig: Rig, asks: Mapping[str, tuple[Ask, ...]]) -> int:
    """Cards that something is on; none is exceeded, and each pod has what it asked for."""
    pods = await rig.pods()
    assert pods.keys() == asks.keys()
    for name, pod in pods.items():
        check_shares(pod, asks[name])
    return sum(slots > 0 for _, _, slots in check_cards(pods, rig.nodes).values())


async def test_2400_pods_run_and_others_run_on_the_cards_that_some_leave(large_rig: Rig) -> None:
    """A third has four whole cards each; they end, and as many of the same kind follow them.

    More cards are asked for than were ever free, so the deleted pods' are used again.
    """
    rig, rng = large_rig, Random(7)
    workload = [*mixed(OF_A_KIND, rng), *[(share(1000, 2),)] * OF_A_KIND, *[FOUR] * OF_A_KIND]
    rng.shuffle(workload)
    asks = {f"p{at:04}": pod for at, pod in enumerate(workload)}
    await run_pods(rig, asks)
    free = len(rig.nodes) * CARDS - await check_books(rig, asks)
    assert free < 4 * OF_A_KIND
    ending = [name for name, pod in asks.items() if pod is FOUR]
    await rig.delete_pods(ending)
    following = {f"again-{name}": FOUR for name in ending}
    await run_pods(rig, following)
    await check_books(rig, {n: pod for n, pod in asks.items() if pod is not FOUR} | following)
