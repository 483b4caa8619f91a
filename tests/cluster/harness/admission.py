"""Our admission webhook on a cluster: replicas as processes, manifests from ``deploy/``."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.webhooks import loopback_service, service_host

SERVICE = "gpu-fraction-webhook"
SYSTEM_NAMESPACE = "gpu-fraction-system"
CARD_MIB = 81920
_ROOT = Path(__file__).parents[3]
_ADDRESS = "127.0.0.1"
_START_TIMEOUT_S = 60
TIMEOUT_S = 30
"""The most that Kubernetes allows. Two slow processors that carry a whole cluster take longer for
hundreds of creates at once than the manifests' 5 s."""
REWRITE = ("--gpu-memory-mib", str(CARD_MIB))


@dataclass(frozen=True, slots=True)
class Admission:
    """The webhook as it is installed.

    Attributes:
        plane: the cluster.
        replicas: their processes; may be killed, stopped and started.
        front: the balancer before them; a single replica is its own.
    """

    plane: ControlPlane
    replicas: Sequence[Process]
    front: Process

    def wait_listening(self, replica: Process) -> None:
        """Wait until a replica's present process has said that it listens."""

        def listens() -> bool:
            lines = replica.log.read_text(errors="replace").splitlines()
            events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
            return events[-1:] == ["server.listening"] or (
                "server.listening" in events
                and "server.stopped" not in events[events.index("server.listening") :]
            )

        replica.wait_until(listens, _START_TIMEOUT_S, "listening")


@contextlib.contextmanager
def installed(
    plane: ControlPlane,
    replicas: int = 1,
    arguments: Sequence[str] = (),
    name: str = "webhook",
    sizes: Sequence[str] = REWRITE,
) -> Iterator[Admission]:
    """The webhook, registered and ready; gone afterwards.

    Args:
        plane: the cluster.
        replicas: processes of the webhook, behind a balancer if there are several.
        arguments: further flags of ``gpu-fraction webhook``.
        name: of the processes, for their logs.
        sizes: its flags for the cards' sizes.
    """
    host = service_host(SERVICE, SYSTEM_NAMESPACE)
    certificate, key = plane.authority.issue(host, host, hosts=[host])
    ports = [free_port(_ADDRESS) for _ in range(replicas)]
    command: list[str | Path] = [sys.executable, "-m", "gpu_fraction.cli.main", "webhook"]
    command += ["--host", _ADDRESS, "--tls-cert", certificate, "--tls-key", key]
    command += ["--drain-least", "3", "--drain-most", "15", *sizes, *arguments]
    path = str(_ROOT)
    servers = [
        plane.process(f"{name}-{i}", [*command, "--port", str(port)], PYTHONPATH=path)
        for i, port in enumerate(ports)
    ]
    front, front_port = servers[0], ports[0]
    if replicas > 1:
        front_port = free_port(_ADDRESS)
        balancer: list[str | Path] = [sys.executable, "-m", "tests.cluster.harness.balancer"]
        balancer += [str(port) for port in (front_port, *ports)]
        front = plane.process(f"{name}-balancer", balancer, PYTHONPATH=path)
    admission = Admission(plane, servers, front)
    try:
        for server in servers:
            server.log.unlink(missing_ok=True)
            server.start()
        for server in servers:
            admission.wait_listening(server)
        front.start()
        configurations = _configurations(plane, front_port)
        plane.kubectl.apply(_namespace(), loopback_service(SERVICE, SYSTEM_NAMESPACE))
        plane.kubectl.apply(*configurations)
        try:
            _wait_called(admission)
            yield admission
        finally:
            for kind in ("mutating", "validating"):
                plane.kubectl("delete", f"{kind}webhookconfiguration", "gpu-fraction")
    finally:
        for process in (front, *servers):
            process.kill()


def _namespace() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}


def _configurations(plane: ControlPlane, port: int) -> list[dict[str, Any]]:
    """The manifests that people install, pointed at this machine."""
    text = (_ROOT / "deploy" / "webhook" / "configurations.yaml").read_text(encoding="utf-8")
    manifests = list(YAML(typ="safe").load_all(text))
    for manifest in manifests:
        for webhook in manifest["webhooks"]:
            webhook["clientConfig"]["caBundle"] = plane.authority.bundle
            webhook["clientConfig"]["service"]["port"] = port
            webhook["timeoutSeconds"] = TIMEOUT_S
    return manifests


def _wait_called(admission: Admission) -> None:
    """The API server learns of a registration by a watch, without an acknowledgement."""
    namespace = admission.plane.create_namespace()
    kubectl = admission.plane.kubectl.within(namespace)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {"gpu-fraction": "nonsense"}},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    }

    def refused() -> bool:
        done = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=pod)
        return "denied the request" in done.stderr

    admission.front.wait_until(refused, _START_TIMEOUT_S, "called by the API server")
    admission.plane.kubectl("delete", "namespace", namespace, "--wait=false")
