"""Pods that a real kube-scheduler binds in a second, with our extender and without.

Starts etcd, API server, controllers and scheduler as the cluster tests do, and needs the same
programs. Without the extender the scheduler adds up nodes and binds itself, so that pods may
not fit on any card: it is what the extender's price is measured against, not an alternative.

The pods are created while the scheduler is stopped; the clock runs from the first to the last
bind that a watch shows.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import PODS
from gpu_fraction.kube.store import Change
from scheduler.pods import Pod
from tests.cluster.harness.binaries import (
    CONTROL_PLANE,
    Binaries,
    MissingBinariesError,
    find_binaries,
)
from tests.cluster.scheduling.rig import Rig, pod_manifest, running_rig
from tests.cluster.scheduling.test_scheduling import mixed

GOAL = 0.8


@dataclass(frozen=True)
class Run:
    """One round.

    Attributes:
        rate: Pods bound a second.
        extender_ms: The extender's processor time a pod.
        scheduler_ms: The scheduler's processor time a pod.
    """

    rate: float
    extender_ms: float
    scheduler_ms: float


def main() -> int:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    binaries = find_binaries()
    try:
        binaries.require(CONTROL_PLANE)
    except MissingBinariesError as e:
        sys.stdout.write(f"skipped: {e}\n")
        return 0
    found: Mapping[bool, list[Run]] = {True: [], False: []}
    for _ in range(args.rounds):
        for extender in (False, True):
            found[extender].append(measure(binaries, args.pods, extender=extender))
    report(found, args.pods)
    return 0


def measure(binaries: Binaries, count: int, *, extender: bool) -> Run:
    """One cluster, one burst of pods."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_rig(binaries, Path(folder), extender=extender) as made,
    ):
        rig = replace(made, namespace=made.plane.create_namespace())
        return asyncio.run(burst(rig, count, extender=extender))


async def burst(rig: Rig, count: int, *, extender: bool) -> Run:
    """Create the pods, start the scheduler, wait until all are bound."""
    rig.plane.scheduler.kill()
    workload = mixed(count, Random(11))
    await rig.create_pods([pod_manifest(f"p{at}", *asks) for at, asks in enumerate(workload)])
    bound_at: list[float] = []
    done = asyncio.Event()

    def note(change: Change[Pod]) -> None:
        old, new = change.old, change.new
        if new and new.spec.node_name and not (old and old.spec.node_name):
            bound_at.append(time.monotonic())
            if len(bound_at) == count:
                done.set()

    async with connect(kubeconfig(str(rig.plane.kubectl.kubeconfig)), component="bench") as client:
        reflector = Reflector(client, PODS.at(), Pod)
        reflector.subscribe(note)
        task = asyncio.create_task(reflector.run(), name="watch")
        await reflector.synced.wait()
        before_s = cpu_s(rig.extender.pid) if extender else 0.0
        rig.plane.scheduler.start()
        async with asyncio.timeout(180):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    spent_s = cpu_s(rig.extender.pid) - before_s if extender else 0.0
    return Run(
        rate=(count - 1) / (bound_at[-1] - bound_at[0]),
        extender_ms=spent_s * 1e3 / count,
        scheduler_ms=cpu_s(rig.plane.scheduler.pid) * 1e3 / count,
    )


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(found: Mapping[bool, list[Run]], count: int) -> None:
    """Print every round and the ratio of the best ones."""
    sys.stdout.write(
        f"{count} mixed pods, 50 nodes x 8 cards, {os.cpu_count()} cores for everything\n\n"
        f"{'':<20}{'pods bound/s':>14}{'scheduler ms/pod':>18}{'extender ms/pod':>17}\n"
    )
    for extender, runs in found.items():
        for run in runs:
            sys.stdout.write(
                f"{'with extender' if extender else 'without':<20}{run.rate:>14.0f}"
                f"{run.scheduler_ms:>18.2f}{run.extender_ms:>17.2f}\n"
            )
    best = {extender: max(run.rate for run in runs) for extender, runs in found.items()}
    ratio = best[True] / best[False]
    sys.stdout.write(
        f"\nratio {ratio:.2f}, goal {GOAL}: {'held' if ratio >= GOAL else 'MISSED'}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
