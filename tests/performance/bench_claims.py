"""What a share by the backend ``dra`` costs beside a claim that is written by hand.

Writes a section of docs/performance.md. Both are placed by the same kube-scheduler on the same
simulated nodes, in turns. The pods are created while the scheduler is stopped, and their claims
are made before it starts; the clock runs from the first to the last bind that a watch shows. The
processor time is that of the whole road: API server, etcd, scheduler, controller manager, webhook
and controller. Pods by hand are created without our policies.

Then pods are created one by one, each of a new shape, whose template is missing, and again
of the same shapes.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from gpu_fraction.domain import claim_template
from gpu_fraction.domain.claim_template import Shape
from gpu_fraction.domain.pod import Spec
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.resources import PODS, Resource
from gpu_fraction.kube.store import Change
from tests.cluster.claims.rig import DEPLOY, LARGE, RESOURCES, Rig, running_rig
from tests.cluster.claims.test_claims import pod, pods_path, templates_path
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.binaries import MissingBinariesError, find_binaries
from tests.cluster.harness.simulated_nodes import PROGRAMS
from tests.cluster.scheduling.rig import cpu_s, in_turns
from tests.performance import report

GOAL, CPU_GOAL = 0.95, 1.15
NODES, CARDS = 50, 8
CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
QUARTER = {"gpu-fraction": "0.25"}


class _Pod(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    spec: Spec = Spec()


@dataclass(frozen=True)
class Run:
    """One burst.

    Attributes:
        rate: Pods bound a second.
        parts_ms: Processor time a pod of each process, from its creation to its bind.
    """

    rate: float
    parts_ms: Mapping[str, float]

    @property
    def cpu_ms(self) -> float:
        """All of them."""
        return sum(self.parts_ms.values())


def main() -> int:
    """Measure in turns and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=40)
    args = parser.parse_args()
    binaries = find_binaries()
    try:
        binaries.require(PROGRAMS)
    except MissingBinariesError as e:
        sys.stdout.write(f"skipped: {e}\n")
        return 0
    with running_rig(binaries, {f"gpu-{i:02}": (LARGE,) * CARDS for i in range(NODES)}) as rig:
        pairs = []
        for turn in range(args.rounds):
            runs = {
                ours: asyncio.run(burst(rig, args.pods, ours=ours))
                for ours in (bool(turn % 2), not turn % 2)
            }
            pairs.append((runs[False], runs[True]))
            sys.stdout.write(f"{pairs[-1]}\n")
        first, again = asyncio.run(singles(rig, args.singles))
    version = ".".join(map(str, binaries.version))
    hand, given = zip(*pairs, strict=True)
    rates = [b.rate / a.rate for a, b in pairs]
    cpus = [b.cpu_ms / a.cpu_ms for a, b in pairs]
    report.write_section(
        "claims",
        "Claims: the backend dra beside claims by hand",
        f"`make bench-cluster`: {args.pods} pods of a quarter on {NODES} nodes x {CARDS} cards, "
        f"Kubernetes {version}, limits of requests raised to 1000 a second; {args.rounds} pairs "
        "of bursts in one control plane, medians, and the ratio inside each pair. CPU is that of "
        "API server, etcd, scheduler, controller manager, webhook and controller, from the "
        "creation of the pods to their binds.\n\n"
        f"Machine: {report.machine()}.\n\n"
        + report.table(
            ["", "by hand", "by annotation", "ratio", "goal"],
            [
                [
                    "pods bound a second",
                    *(f"{statistics.median(r.rate for r in runs):.1f}" for runs in (hand, given)),
                    ratio(rates),
                    "held" if statistics.median(rates) >= GOAL else "missed",
                ],
                [
                    "CPU ms a pod",
                    *(
                        f"{statistics.median(r.cpu_ms for r in runs):.1f}"
                        for runs in (hand, given)
                    ),
                    ratio(cpus),
                    "held" if statistics.median(cpus) <= CPU_GOAL else "missed",
                ],
            ],
        )
        + f"\n\nFrom the answer to a pod's creation to its claim, {args.singles} pods one by one, "
        f"median (90th percentile): template missing {spread(first)} ms, template there "
        f"{spread(again)} ms.",
    )
    return 0


def ratio(found: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def spread(found: list[float]) -> str:
    """Median and 90th percentile in milliseconds."""
    return (
        f"{statistics.median(found) * 1e3:.0f} ({statistics.quantiles(found, n=10)[8] * 1e3:.0f})"
    )


def spent_s(rig: Rig) -> dict[str, float]:
    """Processor time of the processes that count, the scheduler's where it runs."""
    plane, quotas = rig.plane, rig.quotas
    parts = (plane.etcd, plane.api_server, plane.controller_manager, *quotas.controllers)
    running = [plane.scheduler] if plane.scheduler.running else []
    return {p.name: cpu_s(p.pid) for p in (*parts, *quotas.admission.replicas, *running)}


async def burst(rig: Rig, count: int, *, ours: bool) -> Run:
    """Create the pods and their claims, start the scheduler, wait until all are bound."""
    namespace, plane = rig.plane.create_namespace(), rig.plane
    policies = str(DEPLOY / "claims" / "policy.yaml")
    plane.kubectl(*(("apply",) if ours else ("delete", "--ignore-not-found")), "-f", policies)
    spec: dict[str, Any] = {}
    async with ApiClient(plane.access) as api:
        while await by_hand(api, namespace) is ours:
            await asyncio.sleep(0.1)  # until the server obeys the policies, or their absence
        if not ours:
            spec["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "quarter"}]
        plane.scheduler.kill()
        before_s = spent_s(rig)
        made_pods = [pod(f"p{i}", QUARTER if ours else None, **spec) for i in range(count)]
        for one in made_pods if not ours else ():
            one["spec"]["containers"][0]["resources"] = {"claims": [{"name": "gpu"}]}
        await in_turns(made_pods, lambda m: api.create(pods_path(namespace), m))
        claims = f"{RESOURCES}/namespaces/{namespace}/resourceclaims"
        await rig.until(claims, lambda found: len(found) == count, timeout_s=120)
    async with connect(kubeconfig(str(plane.kubectl.kubeconfig)), component="bench") as client:
        rate = await bind(rig, client, namespace, count)
    after_s = spent_s(rig)
    kubectl = plane.kubectl.within(namespace)
    kubectl("delete", "pods", "--all", "--wait=false")
    await rig.until(claims, lambda found: not found, timeout_s=180)
    parts = {name: (s - before_s.get(name, 0.0)) * 1e3 / count for name, s in after_s.items()}
    return Run(rate, parts)


async def by_hand(api: ApiClient, namespace: str) -> bool:
    """Make the template ``quarter``; whether the server let us, or had before."""
    part = Slice("main", core_milli=250, memory_milli=250)
    made = claim_template.template(Shape(part), Request((part,)))
    body = {"metadata": {"name": "quarter"}, "spec": made.spec}
    try:
        await api.create(templates_path(namespace), body)
    except StatusError as e:
        return e.code != HTTPStatus.FORBIDDEN
    return True


async def bind(rig: Rig, client: Client, namespace: str, count: int) -> float:
    """Pods bound a second, from the scheduler's start on."""
    bound_at: list[float] = []
    done = asyncio.Event()

    def note(change: Change[_Pod]) -> None:
        old, new = change.old, change.new
        if new and new.spec.node_name and not (old and old.spec.node_name):
            bound_at.append(time.monotonic())
            if len(bound_at) == count:
                done.set()

    reflector = Reflector(client, PODS.at(namespace=namespace), _Pod)
    reflector.subscribe(note)
    task = asyncio.create_task(reflector.run(), name="watch")
    await reflector.synced.wait()
    rig.plane.scheduler.start()
    async with asyncio.timeout(180):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return (count - 1) / (bound_at[-1] - bound_at[0])


async def singles(rig: Rig, count: int) -> tuple[list[float], list[float]]:
    """Seconds from a pod's creation to its claim: without its template, and with it."""
    namespace = rig.plane.create_namespace()
    seen: dict[str, float] = {}
    waits: tuple[list[float], list[float]] = ([], [])

    def note(change: Change[Identity]) -> None:
        if change.new is not None:
            seen[change.new.metadata.name.partition("-gpu-")[0]] = time.monotonic()

    async with (
        connect(kubeconfig(str(rig.plane.kubectl.kubeconfig)), component="bench") as client,
        ApiClient(rig.plane.access) as api,
    ):
        reflector = Reflector(client, CLAIMS.at(namespace=namespace), Identity)
        reflector.subscribe(note)
        task = asyncio.create_task(reflector.run(), name="watch")
        await reflector.synced.wait()
        for turn, found in enumerate(waits):
            for number in range(count):
                name = f"s{turn}x{number}"
                share = {"gpu-fraction": f"0.{number + 1:03}"}
                await api.create(pods_path(namespace), pod(name, share))
                started = time.monotonic()
                async with asyncio.timeout(30):
                    while name not in seen:
                        await asyncio.sleep(0.001)
                found.append(max(0.0, seen[name] - started))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return waits


if __name__ == "__main__":
    sys.exit(main())
