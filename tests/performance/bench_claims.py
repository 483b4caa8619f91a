"""What a share by the backend ``dra`` costs beside a claim that is written by hand.

Writes a section of docs/performance.md. Four kinds of pods are placed on the same simulated nodes
by the same kube-scheduler, in turns: plain ones with an extended resource, claims by hand, shares
by annotation, and shares by annotation that our extender places. The pods are created while the
scheduler is stopped, and their claims are made before it starts; the clock runs from the first to
the last bind that a watch shows. The processor time is that of the whole road: API server, etcd,
scheduler, controller manager, webhook and controller, and the extender, which runs in its own
turns only. Pods by hand are created without our policies. All pods of a burst have one owner, as
those of a Deployment or Job do, and so one Event of the webhook.

Then pods are created one by one, each of a new shape, whose template is missing, and again
of the same shapes.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from gpu_fraction.certs.pod_tls import write_pod_tls
from gpu_fraction.domain import claim_template, keys
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
from tests.cluster.harness.binaries import Binaries, MissingBinariesError, find_binaries
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.simulated_nodes import PROGRAMS
from tests.cluster.scheduling.rig import (
    ACCOUNT,
    cpu_s,
    extender_of,
    in_turns,
    node_manifest,
    scheduler_config,
)
from tests.performance import report

GOAL, CPU_GOAL = 0.95, 1.15
NODES, CARDS = 50, 8
CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
QUARTER = {"gpu-fraction": "0.25"}
PLAIN, HAND, OURS, EXTENDER = range(4)
KINDS = {
    PLAIN: "plain pods, an extended resource",
    EXTENDER: "by annotation, our extender",
    HAND: "claims by hand",
    OURS: "by annotation, backend dra",
}
PLAIN_RESOURCE = "example.com/quarter"


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
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=40)
    args = parser.parse_args()
    binaries = find_binaries()
    try:
        binaries.require(PROGRAMS)
    except MissingBinariesError as e:
        sys.stdout.write(f"skipped: {e}\n")
        return 0
    with bench(binaries) as (rig, extender):
        rounds = []
        for turn in range(args.rounds):
            order = [(turn + at) % len(KINDS) for at in range(len(KINDS))]
            found = {k: asyncio.run(burst(rig, args.pods, k, extender)) for k in order}
            rounds.append(found)
            sys.stdout.write(f"{found}\n")
        first, again = asyncio.run(singles(rig, args.singles))
    version = ".".join(map(str, binaries.version))
    report.write_section(
        "claims",
        "Claims: the backend dra beside claims by hand",
        f"`make bench-cluster`: {args.pods} pods of a quarter on {NODES} nodes x {CARDS} cards, "
        f"Kubernetes {version}, limits of requests raised to 1000 a second; {args.rounds} rounds "
        "of bursts in one control plane, medians with their range. CPU is that of API server, "
        "etcd, scheduler, controller manager, webhook, controller and extender, from the creation "
        "of the pods to their binds. The pods of a burst have one owner.\n\n"
        f"Machine: {report.machine()}.\n\n"
        + report.table(
            ["", "pods bound a second", "CPU ms a pod", "of plain pods"],
            [
                [
                    name,
                    spanned([found[kind].rate for found in rounds], 0),
                    spanned([found[kind].cpu_ms for found in rounds], 1),
                    ratio([found[kind].cpu_ms / found[PLAIN].cpu_ms for found in rounds]),
                ]
                for kind, name in KINDS.items()
            ],
        )
        + "\n\n"
        + verdict(rounds)
        + f"\n\nFrom the answer to a pod's creation to its claim, {args.singles} pods one by one, "
        f"median (90th percentile): template missing {spread(first)} ms, template there "
        f"{spread(again)} ms.",
    )
    return 0


def verdict(rounds: Sequence[Mapping[int, Run]]) -> str:
    """By annotation against by hand, inside each round."""
    rates = [found[OURS].rate / found[HAND].rate for found in rounds]
    cpus = [found[OURS].cpu_ms / found[HAND].cpu_ms for found in rounds]
    names = sorted({name for found in rounds for name in found[OURS].parts_ms})
    parts = (
        f"{name} "
        + ", ".join(
            f"{statistics.median(found[kind].parts_ms.get(name, 0.0) for found in rounds):.1f}"
            for kind in (HAND, OURS)
        )
        for name in names
    )
    held = ("missed", "held")
    return (
        f"The backend dra against claims by hand: pods bound a second {ratio(rates)}, the goal of "
        f"{GOAL} is {held[statistics.median(rates) >= GOAL]}; CPU {ratio(cpus)}, the goal of "
        f"{CPU_GOAL} is {held[statistics.median(cpus) <= CPU_GOAL]}. CPU ms a pod, by hand and by "
        f"annotation: {'; '.join(parts)}."
    )


def spanned(found: list[float], digits: int) -> str:
    """Median and range."""
    return (
        f"{statistics.median(found):.{digits}f} ({min(found):.{digits}f}-{max(found):.{digits}f})"
    )


def ratio(found: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def spread(found: list[float]) -> str:
    """Median and 90th percentile in milliseconds."""
    return (
        f"{statistics.median(found) * 1e3:.0f} ({statistics.quantiles(found, n=10)[8] * 1e3:.0f})"
    )


@contextlib.contextmanager
def bench(binaries: Binaries) -> Iterator[tuple[Rig, Process]]:
    """A rig whose scheduler knows our extender as well, and the extender, not started."""
    with tempfile.TemporaryDirectory() as folder:
        tls, port = Path(folder), free_port("127.0.0.1")
        write_pod_tls(tls, datetime.now(UTC))
        config = scheduler_config(tls, port)
        config["profiles"].append({"schedulerName": "default-scheduler"})
        with running_rig(
            binaries,
            {f"gpu-{i:02}": (LARGE,) * CARDS for i in range(NODES)},
            node=bench_node,
            options=ControlPlaneOptions(scheduler_config=config),
            webhook_arguments=(
                *("--allow-pod-backend", "true", "--namespace-backends", keys.NATIVE),
                *("--system-users", f"system:serviceaccount:{keys.SYSTEM_NAMESPACE}:{ACCOUNT}"),
            ),
        ) as rig:
            extender = extender_of(rig.plane, tls, port)
            try:
                yield rig, extender
            finally:
                extender.kill()


def bench_node(name: str) -> dict[str, Any]:
    """A node with the resources of the extender, and one of plain pods."""
    made = node_manifest(name)
    for amounts in made["status"].values():
        amounts[PLAIN_RESOURCE] = str(4 * CARDS)
    return made


def spent_s(rig: Rig, extender: Process) -> dict[str, float]:
    """Processor time of the processes that count, where they run."""
    plane, quotas = rig.plane, rig.quotas
    parts = (plane.etcd, plane.api_server, plane.controller_manager, *quotas.controllers)
    running = [process for process in (plane.scheduler, extender) if process.running]
    return {p.name: cpu_s(p.pid) for p in (*parts, *quotas.admission.replicas, *running)}


async def owner_in(api: ApiClient, namespace: str) -> dict[str, Any]:
    """What the pods belong to, as those of a Deployment or Job do; no controller acts on it."""
    body = {"metadata": {"name": "owner"}}
    made = await api.create(f"/api/v1/namespaces/{namespace}/configmaps", body)
    uid = made["metadata"]["uid"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "owner",
        "uid": uid,
        "controller": True,
    }


def pod_of(kind: int, name: str, owner: dict[str, Any]) -> dict[str, Any]:
    """One of the pods."""
    annotations = {OURS: QUARTER, EXTENDER: {**QUARTER, keys.BACKEND: keys.NATIVE}}
    made = pod(name, annotations.get(kind))
    made["metadata"]["ownerReferences"] = [owner]
    asked: dict[str, Any] = {}
    if kind == PLAIN:
        asked = {"limits": {PLAIN_RESOURCE: "1"}}
    elif kind == HAND:
        made["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "quarter"}]
        asked = {"claims": [{"name": "gpu"}]}
    made["spec"]["containers"][0]["resources"] = asked
    return made


async def burst(rig: Rig, count: int, kind: int, extender: Process) -> Run:
    """Create the pods and their claims, start the scheduler, wait until all are bound."""
    namespace, plane = rig.plane.create_namespace(), rig.plane
    policies = str(DEPLOY / "claims" / "policy.yaml")
    free = kind == HAND
    plane.kubectl(*(("delete", "--ignore-not-found") if free else ("apply",)), "-f", policies)
    claims = f"{RESOURCES}/namespaces/{namespace}/resourceclaims"
    async with ApiClient(plane.access) as api:
        while await by_hand(api, namespace) is not free:
            await asyncio.sleep(0.1)  # until the server obeys the policies, or their absence
        plane.scheduler.kill()
        if kind == EXTENDER:
            extender.start()
            extender.wait_healthy(timeout_s=30)
        owner = await owner_in(api, namespace)
        before_s = spent_s(rig, extender)
        made_pods = [pod_of(kind, f"p{i}", owner) for i in range(count)]
        await in_turns(made_pods, lambda m: api.create(pods_path(namespace), m))
        if kind in (HAND, OURS):
            await rig.until(claims, lambda found: len(found) == count, timeout_s=120)
    async with connect(kubeconfig(str(plane.kubectl.kubeconfig)), component="bench") as client:
        rate = await bind(rig, client, namespace, count)
    after_s = spent_s(rig, extender)
    async with ApiClient(plane.access) as api:
        await api.delete(pods_path(namespace))  # the collection
    await rig.until(pods_path(namespace), lambda found: not found, timeout_s=180)
    await rig.until(claims, lambda found: not found, timeout_s=180)
    extender.kill()
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
