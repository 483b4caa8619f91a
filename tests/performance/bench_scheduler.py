"""Pods that a real kube-scheduler binds in a second, with our extender and without.

Writes a section of docs/performance.md. Starts a cluster as the tests of scheduling do, and needs
the same programs. Without the extender the scheduler adds up nodes and binds itself, so that pods
may not fit on any card: it is what the extender's price is measured against, not an alternative.

The pods are created while the scheduler is stopped; the clock runs from the first to the last
bind that a watch shows. kwok, which would run the bound pods on the same processors, has ended by
then, and so have the controllers, which would miss the nodes' leases. Three limits of the
scheduler's requests are compared: Kubernetes' default, ours in deploy/, and none to speak of,
where the machine is the limit.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import PODS
from gpu_fraction.kube.store import Change
from gpu_fraction.scheduler.objects import Pod
from tests.cluster.harness.binaries import Binaries, MissingBinariesError, find_binaries
from tests.cluster.harness.simulated_nodes import PROGRAMS
from tests.cluster.scheduling.rig import Rig, cpu_s, pod_manifest, running_rig
from tests.cluster.scheduling.test_scheduling import mixed
from tests.performance import report

GOAL = 0.8
DEFAULT_QPS = 50
"""Source: SetDefaults_KubeSchedulerConfiguration, pkg/scheduler/apis/config."""
SHIPPED_QPS = 200
"""deploy/scheduler/config.yaml."""
UNLIMITED_QPS = 5000

LIMITS = {
    DEFAULT_QPS: "Kubernetes' default, 50 a second",
    SHIPPED_QPS: "deploy/, 200 a second",
    UNLIMITED_QPS: "none",
}


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
    """Measure in turns and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    binaries = find_binaries()
    try:
        binaries.require(PROGRAMS)
    except MissingBinariesError as e:
        sys.stdout.write(f"skipped: {e}\n")
        return 0
    rows = []
    for qps, name in LIMITS.items():
        pairs = [
            (
                measure(binaries, args.pods, qps=qps, extender=False),
                measure(binaries, args.pods, qps=qps, extender=True),
            )
            for _ in range(args.rounds)
        ]
        rows.append(row(name, pairs))
        sys.stdout.write(" | ".join(rows[-1]) + "\n")
    report.write_section(
        "scheduler",
        "Scheduling: pods bound a second",
        f"`make bench-cluster`: {args.pods} mixed pods on 50 nodes x 8 cards, kube-scheduler "
        f"{'.'.join(map(str, binaries.version))}; scheduler, extender, API server and "
        f"etcd share this machine's processors. {args.rounds} pairs of runs for each limit "
        f"of the scheduler's requests (`clientConnection.qps`); medians, and the ratio inside "
        f"each pair. The goal is {GOAL}. Binds go through the extender, so the limit is not "
        "theirs; without a limit the processors are what runs out.\n\n"
        f"Machine: {report.machine()}.\n\n"
        + report.table(
            [
                "limit of the scheduler's requests",
                "pods/s without",
                "pods/s with",
                "ratio",
                "goal",
                "scheduler CPU ms a pod, without and with",
                "extender CPU ms a pod",
            ],
            rows,
        ),
    )
    return 0


def row(name: str, pairs: list[tuple[Run, Run]]) -> list[str]:
    """One limit's figures."""
    without = [pair[0] for pair in pairs]
    given = [pair[1] for pair in pairs]
    ratios = [b.rate / a.rate for a, b in pairs]
    median = statistics.median
    ratio = median(ratios)
    return [
        name,
        f"{median(run.rate for run in without):.0f}",
        f"{median(run.rate for run in given):.0f}",
        f"{ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        "held" if ratio >= GOAL else "missed",
        ", ".join(f"{median(run.scheduler_ms for run in runs):.2f}" for runs in (without, given)),
        f"{median(run.extender_ms for run in given):.2f}",
    ]


def measure(binaries: Binaries, count: int, *, qps: int, extender: bool) -> Run:
    """One cluster, one burst of pods."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_rig(binaries, Path(folder), extender=extender, client_qps=qps) as made,
    ):
        rig = replace(made, namespace=made.plane.create_namespace())
        return asyncio.run(burst(rig, count, extender=extender))


async def burst(rig: Rig, count: int, *, extender: bool) -> Run:
    """Create the pods, start the scheduler, wait until all are bound."""
    for process in (rig.plane.scheduler, rig.plane.controller_manager, rig.kubelets):
        process.kill()
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


if __name__ == "__main__":
    sys.exit(main())
