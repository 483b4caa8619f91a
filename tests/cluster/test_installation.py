"""The programs as the manifests of ``deploy/`` start them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.admission import SERVICE, SYSTEM_NAMESPACE, Admission
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.webhooks import loopback_service

DEPLOY = Path(__file__).parents[2] / "deploy"
QUICK = ("--cert-settle", "1", "--cert-retire", "1")


def rendered(kubectl: Kubectl, folder: str) -> str:
    """What ``kubectl apply -k`` would send."""
    return kubectl("kustomize", str(DEPLOY / folder))


@pytest.fixture
def installation(own_control_plane: ControlPlane) -> Iterator[Admission]:
    """Webhook and controller as their manifests start them: accounts, no certificate given."""
    plane, port = own_control_plane, free_port("127.0.0.1")
    admin = plane.kubectl
    admin.run("create", "namespace", SYSTEM_NAMESPACE)
    for folder in ("crd", "rbac"):
        admin("apply", "-f", "-", stdin=rendered(admin, folder))
    admin.apply(loopback_service(SERVICE, SYSTEM_NAMESPACE))
    text = (DEPLOY / "webhook" / "configurations.yaml").read_text(encoding="utf-8")
    admin("apply", "-f", "-", stdin=text.replace("port: 443", f"port: {port}"))

    def started(part: str, *words: str) -> Process:
        account = plane.service_account_kubeconfig(SYSTEM_NAMESPACE, f"gpu-fraction-{part}")
        argv = [sys.executable, "-m", "gpu_fraction.cli.main", part, "--host", "127.0.0.1"]
        argv += ["--kubeconfig", str(account), *words, *QUICK]
        made = plane.process(f"installed-{part}", [*argv], PYTHONPATH=str(DEPLOY.parent))
        made.start()
        return made

    controller = started("controller", "--port", "0", "--lease-duration", "3")
    webhook = started("webhook", "--port", str(port), "--replica-name", "webhook-0")
    try:
        yield Admission(plane, [webhook], webhook)
    finally:
        for kind in ("mutating", "validating"):
            admin("delete", f"{kind}webhookconfiguration", "gpu-fraction")
        webhook.kill()
        controller.kill()


def test_an_installation_needs_no_certificate_of_anybodys(installation: Admission) -> None:
    """The controller makes a CA and injects it, the webhook signs a leaf, pods are rewritten."""
    namespace = installation.plane.create_namespace()
    kubectl = installation.plane.kubectl.within(namespace)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "first", "annotations": {"gpu-fraction": "0.25"}},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    }

    def works() -> bool:
        done = kubectl.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=pod)
        return done.returncode == 0 and "gpu-fraction.dev/slot" in done.stdout

    installation.front.wait_until(works, 60, "trusted by the API server")
    shown = certs(installation, "status")
    assert "CA in Secret gpu-fraction-system/gpu-fraction-webhook-ca" in shown
    assert "webhook-0" in shown
    # Every account may read the server's version, and this one is supported.
    assert "server_version_supported" in installation.front.log.read_text()
    before = fingerprint(installation)
    assert "CA rotation is requested" in certs(installation, "rotate", "--ca")
    installation.front.wait_until(
        lambda: works() and fingerprint(installation) != before, 60, "on a new CA"
    )


def certs(installation: Admission, *words: str) -> str:
    """What ``gpu-fraction certs`` prints to an administrator."""
    done = subprocess.run(
        [sys.executable, "-m", "gpu_fraction.cli.main", "certs", *words]
        + ["--kubeconfig", str(installation.plane.kubectl.kubeconfig), *QUICK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fingerprint(installation: Admission) -> str:
    """The caBundle that the API server has now."""
    return installation.plane.kubectl(
        "get",
        "mutatingwebhookconfiguration",
        "gpu-fraction",
        "-o",
        "jsonpath={.webhooks[0].clientConfig.caBundle}",
    )
