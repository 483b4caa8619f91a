"""The node daemon as a process on a test's real node, over fake cards."""

import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gpu_fraction.claims.overlooked import LOOK_AGAIN
from gpu_fraction.domain import assignment, dra, keys, units
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.sandbox.nvml import build
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeCard, FakeHardware
from tests.cluster.harness import waiting
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import Node
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "gpu-fraction-system"
ACCOUNT = "gpu-fraction-node-daemon"
CARDS = 4
RBAC = ("node-daemon/rbac.yaml",)
DRA = (*RBAC, "dra/rbac.yaml", "dra/policy.yaml", "dra/device-classes.yaml")
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"

_AS_IN_A_POD = """
set -e
mkdir -p "$2"
mount --bind "$1" "$2"
shift 2
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon of one node.

    Attributes:
        node: its node.
        process: may be stopped, killed and started again.
        hardware: its cards.
        port: of its metrics.
    """

    node: Node
    process: Process
    hardware: FakeHardware
    port: int

    @property
    def uuids(self) -> list[str]:
        """The cards."""
        return [card.uuid for card in self.hardware.cards]

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log lines."""
        lines = self.process.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except OSError as e:
            return 0, str(e)

    def metric(self, name: str) -> float:
        """The value of a metric without labels, or with the labels in its name."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise KeyError(name)

    def quantile(self, name: str, q: float) -> float:
        """A quantile of a histogram, interpolated within its bucket as Prometheus does."""
        prefix = f'{name}_bucket{{le="'
        below, count_below = 0.0, 0.0
        wanted = q * self.metric(f"{name}_count")
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(prefix):
                bound, _, count = line.removeprefix(prefix).partition('"} ')
                if float(count) >= wanted:
                    part = (wanted - count_below) / (float(count) - count_below)
                    return below + part * (float(bound) - below)
                below, count_below = float(bound), float(count)
        raise KeyError(name)

    def wait_ready(self) -> None:
        """Wait until containers can start."""
        self.process.wait_until(lambda: self.get("/readyz")[0] == 200, 120, "ready")

    def allocatable(self, resource: str) -> int:
        """What the scheduler may give away."""
        node = self.node.plane.kubectl.json("get", "node", self.node.name)
        return int(units.parse_quantity(node["status"]["allocatable"].get(resource, "0")))

    def wait_allocatable(self, resource: str, amount: int) -> None:
        """Wait until the kubelet has reported an amount; it does so every ten seconds."""
        self.process.wait_until(
            lambda: self.allocatable(resource) == amount, 120, f"{resource} {amount}"
        )

    def slice_files(self) -> list[Path]:
        """Our files in the CDI directory."""
        return sorted(self.node.cdi_dir.glob("gpu-fraction-slice_*.json"))

    def printed(self, namespace: str, pod: str, container: str = "main") -> str:
        """What a container printed, once it has: it is Ready as soon as it runs."""

        def log() -> str:
            return self.container_log(namespace, pod, container)

        return waiting.wait_for(log)

    def container_log(self, namespace: str, pod: str, container: str = "main") -> str:
        """What a container has printed, read where the runtime writes it."""
        logs = sorted(
            (self.node.place.folder / "log" / "pods").glob(
                f"{namespace}_{pod}_*/{container}/*.log"
            )
        )
        lines = [line for log in logs for line in log.read_text().splitlines()]
        return "\n".join(line.split(" ", 3)[3] for line in lines if line.count(" ") >= 3)


@contextlib.contextmanager
def running_daemon(
    node: Node,
    *options: str,
    cards: int = CARDS,
    manifests: Sequence[str] = RBAC,
    ready: bool = True,
) -> Iterator[Daemon]:
    """The daemon, with the rights that ``deploy/`` grants and the identity of a pod.

    Args:
        node: where it runs.
        options: further flags.
        cards: how many the fake NVML library shows; 0 runs without that library.
        manifests: files of ``deploy/`` that are applied first.
        ready: whether to wait until containers can start.
    """
    folder = node.plane.run.folder("node-daemon")
    hardware = FakeHardware(folder / "gpus")
    hardware.cards[:] = [
        FakeCard(
            uuid=f"GPU-{i:08d}-aaaa-bbbb-cccc-dddddddddddd",
            pci=f"00000000:{0x1B + i:02X}:00.0",
            minor=i,
        )
        for i in range(cards)
    ]
    hardware.apply()
    if cards:
        build.build(folder / "lib")
    _account(node, folder / "account", manifests)
    daemon = _daemon(node, hardware, "node-daemon", options)
    daemon.process.start()
    try:
        if ready:
            daemon.wait_ready()
        yield daemon
    finally:
        daemon.process.stop()


def beside(daemon: Daemon, name: str, *options: str) -> Daemon:
    """A further daemon of the same node and mode, not started; ``name`` is that of its process."""
    return _daemon(daemon.node, daemon.hardware, name, ("--mode=dra", *options))


def _daemon(node: Node, hardware: FakeHardware, name: str, options: Sequence[str]) -> Daemon:
    """A daemon, not started."""
    folder = hardware.directory.parent
    libraries = {}
    if (folder / "lib").exists():
        library = str(folder / "lib")
        libraries = {"LD_LIBRARY_PATH": library, VARIABLE: str(hardware.directory)}
    port = free_port("127.0.0.1")
    host, _, api_port = node.plane.access.server.removeprefix("https://").rpartition(":")
    words: list[str | Path] = [
        Path(sys.executable).parent / "gpu-fraction",
        "node-daemon",
        f"--node-name={node.name}",
        f"--kubelet-dir={node.kubelet_dir}",
        f"--state-dir={folder / 'state'}",
        f"--cdi-dir={node.cdi_dir}",
        f"--host-cdi-dirs={node.cdi_dir}",
        "--host=127.0.0.1",
        f"--port={port}",
        *options,
    ]
    in_pod = ["unshare", "--mount", "sh", "-c", _AS_IN_A_POD, "sh"]
    process = node.plane.process(
        name,
        [*in_pod, folder / "account", ACCOUNT_FOLDER, *words],
        KUBERNETES_SERVICE_HOST=host,
        KUBERNETES_SERVICE_PORT=api_port,
        PYTHONPATH=str(ROOT),
        **libraries,
    )
    return Daemon(node, process, hardware, port)


def _account(node: Node, folder: Path, files: Sequence[str]) -> None:
    """Make the folder that a pod of the ServiceAccount would see."""
    kubectl = node.plane.kubectl
    kubectl("create", "namespace", NAMESPACE)
    for file in files:
        kubectl.apply(*YAML(typ="safe").load_all((ROOT / "deploy" / file).read_text()))
    written = node.plane.service_account_kubeconfig(NAMESPACE, ACCOUNT, node=node.name)
    kubeconfig = json.loads(written.read_text())
    folder.mkdir()
    (folder / "token").write_text(kubeconfig["users"][0]["user"]["token"])
    (folder / "ca.crt").write_bytes(node.plane.access.authority.read_bytes())


def gpu_pod(
    name: str,
    shares: tuple[CardShare, ...] | None,
    *,
    core_milli: int = 40,
    memory_mib: int = 1_000,
    script: str = 'echo "$GPU_FRACTION_DEVICES $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION"; sleep 10000',
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A pod as the webhook and the scheduler leave it; without shares, as the webhook does."""
    notes = dict(annotations or {})
    if shares is not None:
        notes[keys.ASSIGNED] = assignment.render({"main": shares})
        core_milli = sum(share.core_milli for share in shares)
        memory_mib = sum(share.memory_mib for share in shares)
    amounts = {
        keys.SLOT: "1",
        keys.CORE_MILLI: str(core_milli),
        keys.MEMORY_MIB: str(memory_mib),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": notes},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "main",
                    "image": "busybox:1",
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", script],
                    "resources": {"limits": amounts, "requests": amounts},
                }
            ],
        },
    }


def wait_started(kubectl: Kubectl, *names: str) -> None:
    """Wait until pods with claims are ready.

    Where no controller of ours runs, a pod that the scheduler overlooked is shown to it here
    (docs/dra.md, "What it costs").
    """
    pods = [f"pod/{name}" for name in names]
    for _ in range(5):
        done = kubectl.run("wait", *pods, "--for=condition=Ready", "--timeout=30s", timeout_s=60)
        if done.returncode == 0:
            return
        mark = f"{LOOK_AGAIN}={time.monotonic()}"
        kubectl("annotate", "deviceclass", dra.FRACTION_CLASS, mark, "--overwrite")
    raise AssertionError(f"{done.stderr}\n{kubectl('describe', *pods)}")


def create_all(kubectl: Kubectl, pods: list[dict[str, Any]]) -> None:
    """Create many pods in one call."""
    kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": pods})
