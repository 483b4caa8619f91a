"""The way a webhook is registered, shown with the reference server that Kubernetes tests with."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.ports import free_port, listens
from tests.cluster.harness.process import Process
from tests.cluster.harness.waiting import wait_for
from tests.cluster.harness.webhooks import loopback_service, service_host

SERVICE = "reference"
_START_TIMEOUT_S = 60


@pytest.fixture
def server(own_control_plane: ControlPlane, namespace: str) -> Iterator[tuple[Process, int]]:
    """The reference webhook server under its Service's name, and its port."""
    plane, port = own_control_plane, free_port("127.0.0.1")
    if "agnhost" not in plane.binaries.paths:
        pytest.skip("needs agnhost; `make cluster-assets` builds it")
    host = service_host(SERVICE, namespace)
    certificate, key = plane.authority.issue(host, host, hosts=[host])
    files = [f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"]
    process = plane.process(
        "reference-webhook", [plane.binaries["agnhost"], "webhook", f"--port={port}", *files]
    )
    process.start()
    process.wait_until(lambda: listens("127.0.0.1", port), _START_TIMEOUT_S, "listening")
    yield process, port
    process.stop()


def test_api_server_calls_a_webhook_by_its_service_name(
    own_control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    server: tuple[Process, int],
) -> None:
    """Refused by the webhook while it runs, failed closed when it is gone, untouched elsewhere."""
    process, port = server
    kubectl("label", "namespace", namespace, f"webhook={namespace}")
    hook = _deny_config_maps(namespace, port, own_control_plane.authority.bundle)
    kubectl.apply(loopback_service(SERVICE, namespace), hook)
    try:
        denied = f'admission webhook "deny.{namespace}.test" denied the request'
        names = map("early-{}".format, itertools.count())
        # The API server learns of a registration by a watch.
        wait_for(lambda: denied in kubectl.run("create", "configmap", next(names)).stderr)
        process.kill()
        failed = kubectl.run("create", "configmap", "a")
        assert f'failed calling webhook "deny.{namespace}.test"' in failed.stderr
        with own_control_plane.namespace() as other:
            kubectl.within(other)("create", "configmap", "a")
    finally:
        kubectl("delete", "validatingwebhookconfiguration", namespace)


def _deny_config_maps(namespace: str, port: int, bundle: str) -> dict[str, Any]:
    service = {"name": SERVICE, "namespace": namespace, "path": "/always-deny", "port": port}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": f"deny.{namespace}.test",
                "clientConfig": {"service": service, "caBundle": bundle},
                "namespaceSelector": {"matchLabels": {"webhook": namespace}},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["configmaps"],
                    }
                ],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 5,
            }
        ],
    }
