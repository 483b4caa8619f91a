"""GPUQuotas on a cluster: the CRD, least rights, webhook replicas and controllers."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness.admission import REWRITE, SYSTEM_NAMESPACE, Admission, installed
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process

_ROOT = Path(__file__).parents[3]
_START_TIMEOUT_S = 60
_POLL_S = 0.1
TTL_S = 40
"""Of reservations; above the 34 s that the API server gives a request, as in production."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """GPUQuotas as they are installed.

    Attributes:
        plane: the cluster.
        admission: the webhook.
        controllers: their processes; one of them counts.
    """

    plane: ControlPlane
    admission: Admission
    controllers: Sequence[Process]

    def create(self, namespace: str, name: str = "team-a", **spec: Any) -> dict[str, Any]:
        """A quota that is counted and ready; the object."""
        manifest = quota(name, namespace, **spec)
        self.plane.kubectl.apply(manifest)
        return self.wait(namespace, name, lambda q: _condition(q, "Ready") == "True")

    def get(self, namespace: str, name: str = "team-a") -> dict[str, Any]:
        """The object."""
        return self.plane.kubectl.within(namespace).json("get", "gpuquota", name)

    def wait(self, namespace: str, name: str, ready: Any, timeout_s: float = 90) -> dict[str, Any]:
        """The object, once a condition holds.

        Raises:
            TimeoutError: it did not come to hold.
        """
        deadline = time.monotonic() + timeout_s
        while not ready(found := self.get(namespace, name)):
            if time.monotonic() > deadline:
                raise TimeoutError(json.dumps(found.get("status"), indent=1))
            time.sleep(_POLL_S)
        return found


def _condition(found: Mapping[str, Any], kind: str) -> str:
    conditions = found.get("status", {}).get("conditions", ())
    return next((str(c["status"]) for c in conditions if c["type"] == kind), "")


condition = _condition


def quota(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A GPUQuota's manifest."""
    return {
        "apiVersion": "gpu-fraction.dev/v1alpha1",
        "kind": "GPUQuota",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def prepare(plane: ControlPlane) -> dict[str, Path]:
    """Install the CRD and the roles; kubeconfigs of the components, by name."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": SYSTEM_NAMESPACE},
    }
    plane.kubectl.apply(namespace)
    crd = _ROOT / "deploy" / "crd" / "gpuquotas.yaml"
    plane.kubectl("apply", "-f", str(crd))
    for name in ("webhook", "controller"):
        plane.kubectl("apply", "-f", str(_ROOT / "deploy" / "rbac" / f"{name}.yaml"))
    plane.kubectl("wait", "--for=condition=Established", "crd/gpuquotas.gpu-fraction.dev")
    return {
        name: plane.service_account_kubeconfig(SYSTEM_NAMESPACE, f"gpu-fraction-{name}")
        for name in ("webhook", "controller")
    }


def controller_process(plane: ControlPlane, name: str, arguments: Sequence[str]) -> Process:
    """A replica of the controller, not started."""
    command: list[str | Path] = [sys.executable, "-m", "gpu_fraction.cli.main", "controller"]
    command += ["--host", "127.0.0.1", "--port", str(free_port("127.0.0.1")), *arguments]
    return plane.process(name, command, PYTHONPATH=str(_ROOT))


@contextlib.contextmanager
def quotas_installed(
    plane: ControlPlane,
    *,
    replicas: int = 2,
    controllers: int = 2,
    webhook_arguments: Sequence[str] = (),
    controller_arguments: Sequence[str] = (),
    ttl_s: int = TTL_S,
    sizes: Sequence[str] = REWRITE,
) -> Iterator[Quotas]:
    """Webhook and controllers with the rights of their service accounts; gone afterwards."""
    configs = prepare(plane)
    common = ["--quota-ttl", str(ttl_s)]
    webhook = ["--kubeconfig", str(configs["webhook"]), *common, *webhook_arguments]
    counting = ["--kubeconfig", str(configs["controller"]), *common, "--lease-duration", "3"]
    counting += ["--manage-certificates", "false", *controller_arguments]
    processes = [
        controller_process(plane, f"quota-controller-{i}", counting) for i in range(controllers)
    ]
    try:
        for process in processes:
            process.start()
        with installed(plane, replicas, webhook, "quota-webhook", sizes) as admission:
            yield Quotas(plane, admission, processes)
    finally:
        for process in processes:
            process.kill()
