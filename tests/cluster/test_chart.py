"""A release of the chart on a real API server: installed, upgraded, rolled back, taken away.

There is no node, so none of its pods runs.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.stored import everything
from tests.support.chart import CHART, Helm, find_helm

NAMESPACE, NAME = "sharing", "gpus"
CONFIGURATIONS = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")
CA_BUNDLE = b64encode(
    b"-----BEGIN CERTIFICATE-----\n"
    b"MIIBbzCCARWgAwIBAgIUCkZ0cVOEL3jDt8PAbGe0ti6n2YEwCgYIKoZIzj0EAwIw\n"
    b"-----END CERTIFICATE-----\n"
).decode()
KEPT = {
    "customresourcedefinitions.apiextensions.k8s.io/gpuquotas.gpu-fraction.dev",
    "apiservices.apiregistration.k8s.io/v1alpha1.gpu-fraction.dev",
}
"""The definition of GPUQuotas, by choice, and what Kubernetes makes of it."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release and those who look after it.

    Attributes:
        plane: the cluster.
        first: Helm that installs.
        then: Helm that does everything else.
    """

    plane: ControlPlane
    first: Helm
    then: Helm

    def helm(self, helm: Helm, *words: str) -> str:
        """What a command of Helm prints."""
        kubeconfig = str(self.plane.kubectl.kubeconfig)
        return helm(*words, f"--namespace={NAMESPACE}", KUBECONFIG=kubeconfig)

    @property
    def kubectl(self) -> Kubectl:
        """In the release's namespace."""
        return self.plane.kubectl.within(NAMESPACE)

    def replicas(self) -> int:
        """Of the webhook."""
        deployment = self.kubectl.json("get", "deployment", f"{NAME}-gpu-fraction-webhook")
        return int(deployment["spec"]["replicas"])

    def bundles(self) -> set[str]:
        """What the API server trusts."""
        return {
            webhook["clientConfig"].get("caBundle", "")
            for kind in CONFIGURATIONS
            for webhook in self.kubectl.json("get", kind, f"{NAME}-gpu-fraction")["webhooks"]
        }

    def write_bundles(self) -> None:
        """As the controller does: by server-side apply, and nothing but the one field."""
        for kind in CONFIGURATIONS:
            found = self.kubectl.json("get", kind, f"{NAME}-gpu-fraction")
            written = {
                "apiVersion": found["apiVersion"],
                "kind": found["kind"],
                "metadata": {"name": found["metadata"]["name"]},
                "webhooks": [
                    {"name": webhook["name"], "clientConfig": {"caBundle": CA_BUNDLE}}
                    for webhook in found["webhooks"]
                ],
            }
            words = ("apply", "--server-side", "--field-manager=gpu-fraction-certificates")
            self.kubectl(*words, "-f", "-", stdin=written)


def remove_definition(kubectl: Kubectl) -> None:
    """Of GPUQuotas, whoever has installed it."""
    kubectl("delete", "crd", "gpuquotas.gpu-fraction.dev", "--ignore-not-found")


def pod(name: str, **annotations: str) -> dict[str, Any]:
    """A small pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    }


@pytest.fixture(
    params=[("helm3", "helm3"), ("helm4", "helm4"), ("helm3", "helm4")],
    ids=["3", "4", "3 then 4"],
)
def release(
    own_control_plane: ControlPlane,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Release]:
    """Not installed yet; gone afterwards, whatever the test has left."""
    first, then = (find_helm(program, tmp_path_factory) for program in request.param)
    made = Release(own_control_plane, first, then)
    kubectl = own_control_plane.kubectl
    remove_definition(kubectl)
    kubectl("create", "namespace", NAMESPACE)
    made.plane.wait_for_account(NAMESPACE)
    try:
        yield made
    finally:
        made.helm(then, "uninstall", NAME, "--ignore-not-found")
        remove_definition(kubectl)
        kubectl("delete", "namespace", NAMESPACE)


def test_install_upgrade_rollback_uninstall(release: Release) -> None:
    """Nothing conflicts with what the controller writes, and nothing is left that stops a pod."""
    kubectl, first, then = release.kubectl, release.first, release.then
    before = everything(kubectl)
    printed = release.helm(first, "install", NAME, str(CHART), "--set=simulatedCards.count=2")
    assert f"kubectl --namespace {NAMESPACE} get pods" in printed
    release.write_bundles()
    assert (release.replicas(), release.bundles()) == (2, {CA_BUNDLE})

    changed = ("--reuse-values", "--set=webhook.replicas=3,settings.log_level=debug")
    release.helm(then, "upgrade", NAME, str(CHART), *changed)
    assert (release.replicas(), release.bundles()) == (3, {CA_BUNDLE})
    release.helm(then, "rollback", NAME, "1")
    assert (release.replicas(), release.bundles()) == (2, {CA_BUNDLE})

    release.helm(then, "uninstall", NAME, "--wait")
    kubectl("wait", "--for=delete", "deployment,daemonset,replicaset,pod", "--all")
    kubectl("create", "-f", "-", stdin=pod("at-once", **{"gpu-fraction": "0.5"}))
    kubectl("delete", "pod", "at-once", "--now")
    assert {one.split()[-1] for one in everything(kubectl) - before} == {
        name.partition("/")[2] for name in KEPT
    }
    assert before <= everything(kubectl)

    # What was kept is of no release, and the next one takes it.
    release.helm(then, "install", NAME, str(CHART))


def test_pods_without_gpus_do_not_wait_for_the_webhook(
    release: Release,
) -> None:
    """With no replica alive a GPU pod is refused, and every other pod is created.

    The definition of GPUQuotas that kubectl has installed is taken over.
    """
    crd = CHART.parent / "crd" / "gpuquotas.yaml"
    release.kubectl("apply", "-f", str(crd))
    words = ["--take-ownership"]
    if "helm4" in release.first.program.name:
        words.append("--force-conflicts")  # it applies on the server
    release.helm(release.first, "install", NAME, str(CHART), *words)
    with release.plane.namespace() as name:
        kubectl = release.plane.kubectl.within(name)
        kubectl("create", "-f", "-", stdin=pod("plain"))
        done = kubectl.run("create", "-f", "-", stdin=pod("gpu", **{"gpu-fraction": "0.5"}))
        assert "mutate.gpu-fraction.dev" in done.stderr
