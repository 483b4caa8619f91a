"""One annotation, all the way: webhook, scheduler, extender, daemon, container."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from gpu_fraction.certs.pod_tls import CLIENT_NAME, write_pod_tls
from gpu_fraction.domain import assignment, keys
from tests.cluster.conftest import _require_own
from tests.cluster.daemon import CARDS, Daemon, running_daemon
from tests.cluster.harness.admission import Admission, installed
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import running_node
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.ports import free_port
from tests.cluster.scheduling.rig import DEPLOY, ROOT, scheduler_config

pytestmark = pytest.mark.long

SCRIPT = 'echo "$GPU_FRACTION_DEVICES $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION"; sleep 10000'


@dataclass(frozen=True)
class System:
    """Everything running.

    Attributes:
        plane: the control plane.
        daemon: the node's daemon.
        admission: the webhook.
    """

    plane: ControlPlane
    daemon: Daemon
    admission: Admission


@pytest.fixture(scope="module")
def system(
    existing: Cluster | None, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """A node with four cards, and each of our programs as its own process and account."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    tls = tmp_path_factory.mktemp("tls")
    write_pod_tls(tls, datetime.now(UTC))
    port = free_port("127.0.0.1")
    options = ControlPlaneOptions(scheduler_config=scheduler_config(tls, port))
    with (
        running_control_plane(binaries, options) as plane,
        running_node(plane) as node,
        running_daemon(node) as daemon,
    ):
        daemon.wait_allocatable(keys.SLOT, CARDS * 32)
        daemon.wait_allocatable(keys.CORE_MILLI, CARDS * 1000)
        plane.kubectl("apply", "-f", str(DEPLOY / "scheduler" / "rbac.yaml"))
        account = plane.service_account_kubeconfig(keys.SYSTEM_NAMESPACE, keys.SCHEDULER)
        argv = [sys.executable, "-m", "gpu_fraction.cli.main"]
        argv += ["scheduler-extender", "--kubeconfig", str(account), "--host", "127.0.0.1"]
        argv += [
            "--port",
            str(port),
            "--tls-cert",
            f"{tls}/tls.crt",
            "--tls-key",
            f"{tls}/tls.key",
        ]
        argv += ["--client-ca", f"{tls}/ca.crt", "--client-names", CLIENT_NAME]
        extender = replace(
            plane.process("extender", [*argv], PYTHONPATH=str(ROOT), OPENBLAS_NUM_THREADS="1"),
            health_url=f"https://127.0.0.1:{port}/readyz",
            authority=tls / "ca.crt",
        )
        try:
            extender.start()
            extender.wait_healthy(timeout_s=60)
            with installed(plane) as admission:
                yield System(plane, daemon, admission)
        finally:
            extender.kill()


@pytest.fixture
def kubectl(system: System) -> Iterator[Kubectl]:
    """Kubectl in a namespace whose pods go through the webhook; they hold no card afterwards."""
    with system.plane.namespace() as name:
        own = system.plane.kubectl.within(name)
        yield own
        own("delete", "pods", "--all", "--timeout=100s", timeout_s=120)


def test_the_container_prints_the_cards_that_the_binding_named(
    system: System, kubectl: Kubectl
) -> None:
    """From `gpu-fraction: "0.25"` to a container that sees that card and that share of it."""
    names = [f"pod-{i}" for i in range(6)]
    for name in names:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "annotations": {"gpu-fraction": "0.25"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "main",
                        "image": "busybox:1",
                        "imagePullPolicy": "Never",
                        "command": ["sh", "-c", SCRIPT],
                    }
                ],
            },
        }
        kubectl.apply(pod)
    waited = kubectl.run(
        "wait", "pod", "--all", "--for=condition=Ready", "--timeout=150s", timeout_s=180
    )
    assert waited.returncode == 0, kubectl("describe", "pods")
    per_card: dict[str, int] = {}
    for name in names:
        stored = kubectl.json("get", "pod", name)
        given = assignment.parse(stored["metadata"]["annotations"][keys.ASSIGNED])
        (share,) = given["main"]
        printed = system.daemon.printed(kubectl.namespace, name).split()
        assert printed == [share.uuid, str(share.memory_mib), "0.25"]
        # A quarter of what NVML says, where the webhook was told 80 GiB.
        assert (share.core_milli, share.memory_mib) == (250, (81_559 - 600) // 4)
        per_card[share.uuid] = per_card.get(share.uuid, 0) + share.core_milli
    # Binpack, the default: one card is full before the next is begun.
    assert sorted(per_card.values()) == [500, 1000]


def test_a_sidecar_gets_the_slice_and_no_other_init_container_may(
    system: System, kubectl: Kubectl
) -> None:
    """The container beside it sees no card; the webhook refuses what ends before the others."""
    container = {"image": "busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", SCRIPT]}
    sidecar = {**container, "name": "proxy", "restartPolicy": "Always"}
    notes = {keys.FRACTION: "0.25", keys.CONTAINER_NAME: "proxy"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "beside", "annotations": notes},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "initContainers": [sidecar],
            "containers": [{**container, "name": "main"}],
        },
    }
    kubectl.apply(pod)
    kubectl("wait", "pod/beside", "--for=condition=Ready", "--timeout=150s", timeout_s=180)
    stored = kubectl.json("get", "pod", "beside")
    given = assignment.parse(stored["metadata"]["annotations"][keys.ASSIGNED])
    (share,) = given["proxy"]
    line = f"{share.uuid} {share.memory_mib} 0.25"
    assert system.daemon.printed(kubectl.namespace, "beside", "proxy") == line
    assert system.daemon.printed(kubectl.namespace, "beside", "main").split() == []
    sidecar.pop("restartPolicy")
    pod["metadata"] = {"name": "before", "annotations": notes}
    refused = kubectl.run("create", "-f", "-", stdin=pod)
    assert refused.returncode != 0
    assert "only regular containers and sidecars" in refused.stderr


def test_what_does_not_fit_a_card_waits_with_the_reason(kubectl: Kubectl) -> None:
    """Enough is free on the node, but not on one card: the event says so, card by card."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "too-many",
            "annotations": {"gpu-fraction": "0.1", "gpu-fraction-num-devices": str(CARDS + 1)},
        },
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    }
    kubectl.apply(pod)
    kubectl(
        "wait",
        "pod/too-many",
        "--for=condition=PodScheduled=false",
        "--timeout=150s",
        timeout_s=180,
    )
    events = json.loads(kubectl("get", "events", "-o", "json"))["items"]
    messages = [e["message"] for e in events if e["reason"] == "FailedScheduling"]
    assert any("card" in message for message in messages), messages
