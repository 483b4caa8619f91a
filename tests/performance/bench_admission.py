"""What both webhooks add to a pod's creation on a real API server.

Pods are created at a steady rate, in turn one that goes through ``/mutate`` and ``/validate``
and one that goes through neither; the same client, connection pool and moment for both.
"""

import argparse
import asyncio
import statistics
import sys
from typing import Any

from tests.cluster.harness.admission import Admission, installed
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.binaries import find_binaries
from tests.cluster.harness.control_plane import running_control_plane
from tests.performance import report


def pod(name: str, *, gpu: bool) -> dict[str, Any]:
    """The same pod with and without a share of a GPU."""
    metadata: dict[str, Any] = {"name": name, "annotations": {"example.com/a": "b"}}
    if gpu:
        metadata["annotations"]["gpu-fraction"] = "0.25"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:1"}]},
    }


async def measure(admission: Admission, rate: float, count: int) -> dict[str, list[float]]:
    """Milliseconds of each create."""
    through = admission.plane.create_namespace()
    past = admission.plane.create_namespace()
    times: dict[str, list[float]] = {"through": [], "past": []}
    loop = asyncio.get_running_loop()

    async def create(client: ApiClient, name: str, kind: str) -> None:
        namespace = through if kind == "through" else past
        started = loop.time()
        manifest = pod(name, gpu=kind == "through")
        await client.create(f"/api/v1/namespaces/{namespace}/pods", manifest)
        times[kind].append((loop.time() - started) * 1000)

    async with ApiClient(admission.plane.access) as client, asyncio.TaskGroup() as tasks:
        started = loop.time()
        for number in range(count):
            await asyncio.sleep(max(0, started + number / rate - loop.time()))
            kind = "through" if number % 2 else "past"
            tasks.create_task(create(client, f"p{number}", kind), name="create")
    # The first creates open connections and fill caches.
    return {kind: values[len(values) // 10 :] for kind, values in times.items()}


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def main() -> None:
    """Start a cluster, measure, write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--count", type=int, default=1500)
    args = parser.parse_args()
    binaries = find_binaries()
    with running_control_plane(binaries) as plane, installed(plane) as admission:
        times = asyncio.run(measure(admission, args.rate, args.count))
    rows = []
    for kind, label in (("past", "no webhook"), ("through", "both webhooks")):
        values = times[kind]
        rows.append([label, f"{percentile(values, 50):.2f}", f"{percentile(values, 99):.2f}"])
    p50, p99 = (percentile(times["through"], n) - percentile(times["past"], n) for n in (50, 99))
    rows.append(["added", f"{p50:.2f}", f"{p99:.2f}"])
    text = report.table(["a pod's creation", "p50 ms", "p99 ms"], rows)
    sys.stdout.write(text + "\n")
    version = ".".join(map(str, binaries.version))
    report.write_section(
        "admission-latency",
        "Admission: what a user waits for",
        f"`make bench`: {args.count} creates at {args.rate:g} a second through kube-apiserver "
        f"{version}, in turn with both webhooks and with none; one webhook process, etcd, API "
        f"server, controllers and client all on this machine.\n\nMachine: {report.machine()}.\n\n"
        + text,
    )


main()
