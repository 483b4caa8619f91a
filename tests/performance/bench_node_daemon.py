"""What the node daemon costs: start, a burst of container starts, an idle node.

Run: ``python -m tests.performance.bench_node_daemon``, as root (it mounts a service account's
folder for the daemon, as a pod has one). The daemon is a process of its own, with fake cards,
between the sandbox's kubelet and its API server over TLS.
"""

import asyncio
import os
import random
import ssl
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.kube.resources import PODS
from gpu_fraction.sandbox.apiserver.kinds import BUILT_IN
from gpu_fraction.sandbox.apiserver.server import ApiServer
from gpu_fraction.sandbox.kubelet.devices import StartError
from gpu_fraction.sandbox.kubelet.kubelet import FakeKubelet, KubeletPod
from gpu_fraction.sandbox.nvml import build
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeCard, FakeHardware
from tests.performance import report

NODE = "node-1"
BURST = 100
CARDS = 4
STARTS = 5
IDLE_S = 60.0
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
AS_IN_A_POD = 'mkdir -p "$2" && mount --bind "$1" "$2" && shift 2 && exec "$@"'
POD_KIND = next(kind for kind in BUILT_IN if kind.resource is PODS)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Node:
    """Everything around the daemon."""

    root: Path
    server: ApiServer
    kubelet: FakeKubelet
    uuids: tuple[str, ...]
    starts_s: list[float] = field(default_factory=list)
    pre_start_s: list[float] = field(default_factory=list)

    async def start(self) -> asyncio.subprocess.Process:
        """Start the daemon, and note when its first list of tokens came."""
        before = self.kubelet.devices.messages
        loop = asyncio.get_running_loop()
        at = loop.time()
        process = await asyncio.create_subprocess_exec(*self._words(), env=self._environ())
        await until(lambda: self.kubelet.devices.messages > before)
        self.starts_s.append(loop.time() - at)
        await until(lambda: bool(self.kubelet.devices.endpoint.healthy))
        return process

    def _words(self) -> list[str]:
        command = [str(Path(sys.executable).parent / "gpu-fraction"), "node-daemon"]
        command += [f"--node-name={NODE}", "--host=127.0.0.1", "--port=0", "--log-level=warning"]
        command += [f"--kubelet-dir={self.root / 'k'}", f"--state-dir={self.root / 'state'}"]
        command += [f"--cdi-dir={self.root / 'cdi'}", f"--host-cdi-dirs={self.root / 'cdi'}"]
        shell = ["unshare", "--mount", "sh", "-c", AS_IN_A_POD, "sh"]
        return [*shell, str(self.root / "account"), ACCOUNT, *command]

    def _environ(self) -> dict[str, str]:
        host, _, port = self.server.url.removeprefix("https://").rpartition(":")
        return os.environ | {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "LD_LIBRARY_PATH": str(self.root / "lib"),
            VARIABLE: str(self.root / "gpus"),
        }

    def create(self, index: int) -> KubeletPod:
        """An assigned pod at the API server, as the kubelet sees it."""
        name = f"pod-{index}"
        shares = (CardShare(self.uuids[index % CARDS], 40, 1_000),)
        limits = {keys.SLOT: "1", keys.CORE_MILLI: "40", keys.MEMORY_MIB: "1000"}
        container = {"name": "main", "resources": {"limits": limits}}
        annotations = {keys.ASSIGNED: assignment.render({"main": shares})}
        metadata = {"name": name, "namespace": "default", "annotations": annotations}
        self.server.add(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"nodeName": NODE, "containers": [container]},
                "status": {"phase": "Pending"},
            }
        )
        stored = self.server.storage.get(POD_KIND, ("default", name))
        assert stored is not None
        return KubeletPod("default", name, str(stored.body["metadata"]["uid"]), ("main",))

    async def burst(self) -> float:
        """A hundred containers at once; seconds until all run."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        pods = [self.create(index) for index in range(BURST)]
        random.Random(1).shuffle(pods)
        await asyncio.gather(*(self._run(pod) for pod in pods))
        return loop.time() - at

    async def _run(self, pod: KubeletPod) -> None:
        await self.kubelet.admit(pod)
        loop = asyncio.get_running_loop()
        while True:
            at = loop.time()
            try:
                await self.kubelet.start_container(pod.uid, "main")
            except StartError as e:
                print("refused:", e)
                await asyncio.sleep(0.1)
            else:
                self.pre_start_s.append(loop.time() - at)
                return


async def until(holds: Callable[[], bool]) -> None:
    """Wait, looking each millisecond."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


def threads_s(pid: int) -> dict[str, float]:
    """Processor time of each thread so far."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[task.name] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def resident_mib(pid: int) -> float:
    """Memory of a process now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def prepare(root: Path, stack: AsyncExitStack) -> Node:
    """API server, kubelet and cards."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    (root / "account").mkdir()
    (root / "account" / "token").write_text("a-token")
    authority.cert_pem.write_to_path(str(root / "account" / "ca.crt"))
    hardware = FakeHardware(root / "gpus")
    hardware.cards[:] = [
        FakeCard(uuid=f"GPU-{i:08d}-aaaa-bbbb-cccc-dddddddddddd", minor=i) for i in range(CARDS)
    ]
    hardware.apply()
    build.build(root / "lib")
    server = ApiServer()
    server.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": {}})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    await stack.enter_async_context(server.serve(tls=context))
    (root / "cdi").mkdir()
    kubelet = FakeKubelet(root / "k", root / "cdi", keys.SLOT)
    await kubelet.start()
    stack.push_async_callback(kubelet.stop)
    return Node(root, server, kubelet, tuple(card.uuid for card in hardware.cards))


async def measure(node: Node) -> str:
    """The figures as a section of docs/performance.md."""
    process = await node.start()
    for _ in range(STARTS - 1):
        process.terminate()
        await process.wait()
        process = await node.start()
    await asyncio.sleep(2)
    took_s = await node.burst()
    burst_mib = resident_mib(process.pid)
    await asyncio.sleep(5)
    before = threads_s(process.pid)
    await asyncio.sleep(IDLE_S)
    spent = sorted(at_s - before.get(t, 0.0) for t, at_s in threads_s(process.pid).items())
    idle = sum(spent[:-1]) / IDLE_S
    idle_mib = resident_mib(process.pid)
    process.terminate()
    await process.wait()
    waits = statistics.quantiles(node.pre_start_s, n=100)
    starts = sorted(node.starts_s)
    rows = [
        ["process start to first ListAndWatch, first ever", f"{node.starts_s[0]:.2f} s"],
        ["the same, median and worst of all", f"{starts[STARTS // 2]:.2f} s, {starts[-1]:.2f} s"],
        [f"{BURST} containers at once: PreStart p50", f"{waits[49] * 1000:.0f} ms"],
        [f"{BURST} containers at once: PreStart p99", f"{waits[98] * 1000:.0f} ms"],
        [f"{BURST} containers at once: all running after", f"{took_s:.2f} s"],
        ["resident memory after the burst", f"{burst_mib:.0f} MiB"],
        [f"resident memory, idle with {BURST} slices", f"{idle_mib:.0f} MiB"],
        [f"processor, idle with {BURST} slices, over {IDLE_S:.0f} s", f"{idle:.2%} of a core"],
        ["processor of the thread that waits for NVML events", f"{spent[-1] / IDLE_S:.2%}"],
    ]
    intro = (
        f"`make bench`: the daemon as a process with {CARDS} fake cards, between the sandbox's "
        "kubelet (the real gRPC protocols) and its API server over TLS. The pause of 30 ms in "
        "which the container runtime notices a file is included. The fake NVML polls for events "
        "200 times a second, where the real one sleeps; the last row has its thread."
    )
    load = f"load average {os.getloadavg()[0]:.1f} at the end"
    figures = report.table(["what", "figure"], rows)
    return f"{intro}\n\nMachine: {report.machine()}, {load}.\n\n{figures}"


async def main() -> None:
    """Measure, print and write the section."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with AsyncExitStack() as stack:
            text = await measure(await prepare(Path(folder), stack))
    print(text)
    report.write_section("node-daemon", "Node daemon", text)


if __name__ == "__main__":
    asyncio.run(main())
