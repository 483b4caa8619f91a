"""GPUQuota: creates a second in one namespace, API writes a pod, and counting 10,000 pods.

The creates go through a real API server with both webhooks installed, in namespaces that differ
only in the quota that they have. The counting is done by ``gpu-fraction controller`` as it is
deployed, on the project's own API server, where 10,000 pods are quickly made.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gpu_fraction.sandbox.apiserver import ApiServer
from gpu_fraction.sandbox.apiserver.kinds import from_crd
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.binaries import find_binaries
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.quota import Quotas, quota, quotas_installed
from tests.performance import report

ROOT = Path(__file__).parents[2]
CLIENTS = 20
WRITES = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One namespace filled with pods."""

    label: str
    rate: float
    p50_ms: float
    p99_ms: float
    writes: float
    events: float


def pod(name: str) -> dict[str, Any]:
    """A pod with a share of a GPU."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {"gpu-fraction": "0.25"}},
        "spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:1"}]},
    }


def writes(plane: ControlPlane) -> dict[str, float]:
    """Writes of quotas and of events that the API server has taken so far."""
    found: dict[str, float] = {}
    for match in WRITES.finditer(plane.kubectl("get", "--raw", "/metrics")):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
        kind = "events" if labels["resource"] == "events" else "quotas"
        ours = {"events", "gpuquotas", "resourcequotas"}
        if labels["resource"] in ours and labels["verb"] in {"POST", "PATCH", "PUT", "APPLY"}:
            found[kind] = found.get(kind, 0) + float(match["count"])
    return found


async def fill(plane: ControlPlane, namespace: str, count: int) -> list[float]:
    """Milliseconds of each create, so many clients at a time."""
    times: list[float] = []
    numbers = iter(range(count))
    loop = asyncio.get_running_loop()
    path = f"/api/v1/namespaces/{namespace}/pods"

    async def work(client: ApiClient) -> None:
        for number in numbers:
            started = loop.time()
            await client.create(path, pod(f"p{number}"))
            times.append((loop.time() - started) * 1000)

    async with ApiClient(plane.access) as client, asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            tasks.create_task(work(client), name=f"client-{number}")
    return times


def measure(quotas: Quotas, label: str, count: int, kind: str) -> Run:
    """Fill one namespace that has a quota of some kind."""
    plane = quotas.plane
    namespace = quotas.plane.create_namespace()
    if kind == "ResourceQuota":
        hard = {"requests.gpu-fraction.dev/core-milli": "100M"}
        manifest = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "team", "namespace": namespace},
            "spec": {"hard": hard},
        }
        plane.kubectl.apply(manifest)
        time.sleep(2)
    elif kind == "GPUQuota":
        quotas.create(namespace, hard={"cores": "100k", "memory": "10Pi"})
    asyncio.run(fill(plane, namespace, count // 10))  # connections and caches
    plane.kubectl.within(namespace)("delete", "pods", "--all", "--force", "--grace-period=0")
    before, started = writes(plane), time.monotonic()
    times = sorted(asyncio.run(fill(plane, namespace, count)))
    took_s = time.monotonic() - started
    time.sleep(2)
    after = writes(plane)
    written = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in ("quotas", "events")}
    return Run(
        label,
        count / took_s,
        times[len(times) // 2],
        times[len(times) * 99 // 100],
        written["quotas"] / count,
        written["events"] / count,
    )


def creates(count: int) -> list[Run]:
    """Every kind of quota, with one webhook replica and with two."""
    runs = []
    with running_control_plane(find_binaries()) as plane:
        with quotas_installed(plane, replicas=1, controllers=1) as quotas:
            runs.append(measure(quotas, "no quota, 1 replica", count, ""))
            runs.append(measure(quotas, "ResourceQuota, 1 replica", count, "ResourceQuota"))
            runs.append(measure(quotas, "GPUQuota, 1 replica", count, "GPUQuota"))
        with quotas_installed(plane, replicas=2, controllers=1) as quotas:
            runs.append(measure(quotas, "no quota, 2 replicas", count, ""))
            runs.append(measure(quotas, "GPUQuota, 2 replicas", count, "GPUQuota"))
    return runs


def stored_pod(number: int) -> dict[str, Any]:
    """A pod as a cluster holds it: rewritten, with the fields that real ones have."""
    recorded = json.loads(
        (ROOT / "examples" / "reviews" / "inference-create-validating.json").read_text()
    )
    body = recorded.get("body", recorded)["request"]["object"]
    limits = {"gpu-fraction.dev/slot": "1", "gpu-fraction.dev/core-milli": "250"}
    limits["gpu-fraction.dev/memory-mib"] = "20480"
    body["spec"]["containers"][0]["resources"] = {"limits": limits, "requests": dict(limits)}
    metadata = body["metadata"] | {"name": f"p{number}", "namespace": "big"}
    for field in ("uid", "resourceVersion", "generateName"):
        metadata.pop(field, None)
    return {"apiVersion": "v1", "kind": "Pod", **body, "metadata": metadata}


async def counting(pods: int, changes: int) -> dict[str, float]:
    """Time and memory of the controller beside so many pods."""
    server = ApiServer()
    crd = YAML(typ="safe").load((ROOT / "deploy" / "crd" / "gpuquotas.yaml").read_text())
    async with server.serve():
        server.register(from_crd(crd))
        for name in ("big", "gpu-fraction-system"):
            server.add_namespace(name)
        server.add(*(stored_pod(n) for n in range(pods)))
        server.add(quota("team", "big", hard={"cores": "100k", "memory": "10Pi"}))
        with tempfile.TemporaryDirectory() as folder:
            return await _controlled(server, Path(folder), pods, changes)


async def _controlled(
    server: ApiServer, folder: Path, pods: int, changes: int
) -> dict[str, float]:
    config = folder / "kubeconfig"
    named = {"name": "x", "cluster": {"server": server.url}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    user: dict[str, Any] = {"name": "x", "user": {}}
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [named],
                "users": [user],
                "contexts": [context],
                "current-context": "x",
            }
        )
    )
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "gpu_fraction.cli.main", "controller", "--host", "127.0.0.1"]
    command += ["--manage-certificates", "false"]
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command, "--port", str(port), "--kubeconfig", str(config), cwd=ROOT
    )
    try:
        await _counted(server, pods)
        first_s = time.monotonic() - started
        for number in range(changes):
            server.add(stored_pod(pods + number))
            await asyncio.sleep(0.25)
        await _counted(server, pods + changes)
        text = await asyncio.to_thread(_metrics, port)
    finally:
        process.terminate()
        await process.wait()
    total, number = (
        _value(text, f"gpu_fraction_quota_reconcile_seconds_{part}") for part in ("sum", "count")
    )
    return {
        "first_s": first_s,
        "reconcile_ms": 1000 * total / number,
        "rss_mib": _value(text, "process_resident_memory_bytes") / 2**20,
    }


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _value(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


async def _counted(server: ApiServer, pods: int) -> None:
    """Wait until the quota's status says so many pods."""
    async with asyncio.timeout(120):
        while True:
            for stored in server.storage.snapshot(_quota_kind(server)).values():
                used = stored.copy().get("status", {}).get("used", {})
                if used.get("pods") == str(pods):
                    return
            await asyncio.sleep(0.02)


def _quota_kind(server: ApiServer) -> Any:
    return server._kind_of(quota("x", "x"))  # noqa: SLF001 - the bench reads what is stored


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--creates", type=int, default=400)
    parser.add_argument("--pods", type=int, default=10_000)
    args = parser.parse_args()
    count = asyncio.run(counting(args.pods, 20))
    runs = creates(args.creates)
    rows = [
        [
            r.label,
            f"{r.rate:.0f}",
            f"{r.p50_ms:.1f}",
            f"{r.p99_ms:.1f}",
            f"{r.writes:.2f}",
            f"{r.events:.2f}",
        ]
        for r in runs
    ]
    header = [
        "one namespace",
        "creates/s",
        "p50 ms",
        "p99 ms",
        "quota writes a pod",
        "event writes a pod",
    ]
    text = report.table(header, rows)
    text += (
        f"\n\nThe controller with {args.pods:,} GPU pods in one namespace: "
        f"{count['reconcile_ms']:.1f} ms a count, {count['rss_mib']:.0f} MiB resident, "
        f"{count['first_s']:.1f} s from its start to the first stored count: process start, "
        "lists and lease included."
    )
    sys.stdout.write(text + "\n")
    version = ".".join(map(str, find_binaries().version))
    report.write_section(
        "quota",
        "GPUQuota: creates in one namespace, and counting",
        f"`make bench`: {args.creates} creates by {CLIENTS} clients through kube-apiserver "
        f"{version} with both webhooks; etcd, API server, controllers, webhooks and clients all "
        "on this machine. Writes are those of webhooks and controllers. For ResourceQuota they "
        "are only those of its controller: the API server does not count its own.\n\n"
        f"Machine: {report.machine()}.\n\n{text}",
    )


if __name__ == "__main__":
    main()
