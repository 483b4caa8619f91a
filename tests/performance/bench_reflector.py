"""A reflector of 10,000 pods: time to sync, memory, time per event, time after a relist.

Writes a section of docs/performance.md; asserts nothing. The sandbox's API server runs as a
process of its own, so that its memory and processor time are not counted. The pods are as large
as the API server sends them: about 4 KiB of JSON each, managedFields included.
"""

import argparse
import asyncio
import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import PODS
from tests.performance import report
from tests.support.access import fixed

NAMESPACES = 20
EVENTS = 2000


class Resources(msgspec.Struct, frozen=True, gc=False):
    """What a quota reads of a container's resources."""

    limits: dict[str, str] = msgspec.field(default_factory=dict)


class Container(msgspec.Struct, frozen=True, gc=False):
    """What a quota reads of a container."""

    name: str
    resources: Resources = Resources()


class Spec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What a quota reads of a pod's spec."""

    containers: tuple[Container, ...] = ()
    node_name: str = ""
    priority_class_name: str = ""


class Status(msgspec.Struct, frozen=True, gc=False):
    """What a quota reads of a pod's status."""

    phase: str = ""


class Annotated(Meta, frozen=True, gc=False):
    """Metadata with annotations."""

    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Pod(msgspec.Struct, frozen=True, gc=False):
    """What a quota reads of a pod."""

    metadata: Annotated
    spec: Spec = Spec()
    status: Status = Status()


def manifest(number: int) -> dict[str, Any]:
    """A pod of a Deployment, with what Kubernetes and its controllers add."""
    fields = {f"f:field-{n}": {".": {}, "f:a": {}, "f:b": {}} for n in range(30)}
    container = {
        "name": "main",
        "image": "registry.example.test/team/trainer:2026.1",
        "command": ["python", "-m", "trainer", "--epochs", "10"],
        "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(12)],
        "resources": {
            "limits": {"cpu": "4", "memory": "16Gi", "gpu-fraction.dev/memory-mib": "8192"}
        },
        "volumeMounts": [{"name": f"v{n}", "mountPath": f"/mnt/v{n}"} for n in range(4)],
        "terminationMessagePath": "/dev/termination-log",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"trainer-7d4b9c6f5-{number:05}",
            "namespace": f"team-{number % NAMESPACES}",
            "labels": {"app": "trainer", "pod-template-hash": "7d4b9c6f5"},
            "annotations": {
                "gpu-fraction": "0.25",
                "gpu-fraction.dev/request": '{"backend":"native","containers":{"main":250}}',
            },
            "managedFields": [
                {
                    "manager": "kube-controller-manager",
                    "operation": "Update",
                    "apiVersion": "v1",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": fields,
                }
            ],
        },
        "spec": {
            "containers": [container],
            "nodeName": f"node-{number % 500}",
            "volumes": [{"name": f"v{n}", "emptyDir": {}} for n in range(4)],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"}
                for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
            ],
        },
    }


@contextlib.contextmanager
def server(count: int) -> Iterator[str]:
    """A sandbox process with that many pods; its URL."""
    command = [sys.executable, __file__, "--serve", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def serve(count: int) -> None:
    """Be that process, until terminated."""
    from gpu_fraction.sandbox.apiserver import ApiServer  # noqa: PLC0415 - not in the measured process

    api = ApiServer()
    for number in range(NAMESPACES):
        api.add_namespace(f"team-{number}")
    api.add(*(manifest(number) for number in range(count)))
    async with api.serve():
        print(api.url, flush=True)
        await asyncio.Event().wait()


def resident_mib() -> float:
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def decoding(client: Client) -> tuple[float, float, float]:
    """MiB of all pods as JSON, and ms to decode them into Structs and into dictionaries."""
    raw = await client.list(PODS.at(), msgspec.Raw, page_size=0)
    bodies = [bytes(item) for item in raw.items]
    took = []
    for into in (Pod, dict):
        decoder = msgspec.json.Decoder(into)
        began = time.perf_counter()
        for body in bodies:
            decoder.decode(body)
        took.append(1000 * (time.perf_counter() - began))
    return sum(map(len, bodies)) / 2**20, took[0], took[1]


async def longest_pause_ms(stop: asyncio.Event) -> float:
    """The longest time for which the event loop ran nothing else."""
    worst = 0.0
    while not stop.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - began - 0.001)
    return 1000 * worst


async def measure(url: str, count: int) -> list[tuple[str, str]]:
    """All figures."""
    async with connect(fixed(Access(server=url)), component="bench") as client:
        await client.get(PODS.at("trainer-7d4b9c6f5-00000", namespace="team-0"), Identity)
        gc.collect()
        before_mib, cpu = resident_mib(), time.process_time()
        indexes = {
            "namespace": lambda pod: (pod.metadata.namespace,),
            "node": lambda pod: (pod.spec.node_name,),
        }
        reflector = Reflector(client, PODS.at(), Pod, indexes=indexes)
        stop = asyncio.Event()
        pause = asyncio.create_task(longest_pause_ms(stop))
        began = time.perf_counter()
        run = asyncio.create_task(reflector.run())
        await reflector.synced.wait()
        synced_s, synced_cpu_s = time.perf_counter() - began, time.process_time() - cpu
        stop.set()
        pause_ms = await pause
        gc.collect()
        after_mib = resident_mib()
        event_us = await events(client, reflector, run)
        json_mib, typed_ms, dict_ms = await decoding(client)
    return [
        (
            "pods",
            f"{count:,} ({json_mib:.0f} MiB of JSON, {json_mib * 1024 / count:.1f} KiB each)",
        ),
        ("list, decode, index: wall clock", f"{synced_s * 1000:.0f} ms"),
        ("the same: processor time of this process", f"{synced_cpu_s * 1000:.0f} ms"),
        ("longest pause of the event loop meanwhile", f"{pause_ms:.0f} ms"),
        ("of that, decoding into Structs alone", f"{typed_ms:.0f} ms"),
        ("decoding into dictionaries instead", f"{dict_ms:.0f} ms"),
        ("memory added by the copy", f"{after_mib - before_mib:.1f} MiB"),
        ("process with the copy", f"{after_mib:.0f} MiB"),
        ("one watch event, processor time", f"{event_us:.0f} µs"),
    ]


async def events(client: Client, reflector: Reflector[Pod], run: asyncio.Task[Any]) -> float:
    """Microseconds of processor time an event: patches while it follows, less without it."""
    seen = 0

    def count(_: object) -> None:
        nonlocal seen
        seen += 1

    async def patch_all() -> None:
        for number in range(EVENTS):
            name = f"trainer-7d4b9c6f5-{number:05}"
            address = PODS.at(name, namespace=f"team-{number % NAMESPACES}")
            change = {"metadata": {"annotations": {"changed": str(time.time_ns())}}}
            await client.patch(address, PatchKind.MERGE, change, msgspec.Raw)

    reflector.subscribe(count)
    seen = 0
    began = time.process_time()
    await patch_all()
    while seen < EVENTS:
        await asyncio.sleep(0.01)
    followed_s = time.process_time() - began
    run.cancel()
    await asyncio.wait((run,))
    began = time.process_time()
    await patch_all()
    return (followed_s - (time.process_time() - began)) / EVENTS * 1e6


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
        return 0
    with server(arguments.pods) as url:
        rows = asyncio.run(measure(url, arguments.pods))
    report.write_section(
        "reflector",
        "Following pods",
        f"`make bench`: a reflector of {arguments.pods:,} pods against the sandbox's API server, "
        "which runs as a separate process.\n\n"
        f"Machine: {report.machine()}.\n\n"
        + report.table(["what", "figure"], [list(row) for row in rows]),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
