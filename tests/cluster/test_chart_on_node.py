"""The chart's own pods on a real node: installed, used, upgraded under load, taken away.

Every component runs as the chart's pod from the image that ``make image`` builds. The tests share
one release, in the order of this file; the last takes it away. Two replicas stand on one node:
what several nodes would show is not shown here.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.image.build import Image
from tests.cluster.conftest import _require_own
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.gateway import reachable_from_pods
from tests.cluster.harness.images import kube_scheduler_image
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import Node, running_node
from tests.cluster.harness.options import ControlPlaneOptions
from tests.support.chart import CHART, Helm

pytestmark = pytest.mark.long

NAMESPACE = "gpu-fraction-system"
NAME = "gpu-fraction"
PARTS = ("webhook", "controller", "scheduler", "node-daemon")
CARDS = 2
HELM_TIMEOUT_S = 400
VALUES = {"simulatedCards": {"count": CARDS}, "image": {"pullPolicy": "Never"}}
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:" + NAMESPACE]}],
}


@dataclass(frozen=True, slots=True)
class Release:
    """The release, and what it runs on.

    Attributes:
        plane: the control plane.
        node: its only node.
        helm: Helm 4.
        image: the programs' image.
        folder: for charts.
        audit: the API server's log of what the release's accounts have asked for.
    """

    plane: ControlPlane
    node: Node
    helm: Helm
    image: Image
    folder: Path
    audit: Path

    @property
    def kubectl(self) -> Kubectl:
        """In the release's namespace."""
        return self.plane.kubectl.within(NAMESPACE)

    def run(self, *words: str, values: Any = None) -> str:
        """What a command of Helm prints."""
        stdin = json.dumps(values) if values else ""
        options = [f"--namespace={NAMESPACE}", *(["--values=-"] if values else [])]
        kubeconfig = str(self.plane.kubectl.kubeconfig)
        try:
            return self.helm(
                *words, *options, stdin=stdin, timeout_s=HELM_TIMEOUT_S, KUBECONFIG=kubeconfig
            )
        except ValueError as e:
            raise AssertionError(f"{e}\n{self.state()}") from e

    def chart(self, version: str) -> str:
        """The chart of a version, packed; its image is the one that was built."""
        tag = self.image.reference.rpartition(":")[2]
        words = (f"--version={version}", f"--app-version={tag}", f"--destination={self.folder}")
        self.helm("package", str(CHART), *words)
        return str(self.folder / f"gpu-fraction-{version}.tgz")

    def pods(self) -> list[dict[str, Any]]:
        """All pods of the release."""
        return list(self.kubectl.json("get", "pods")["items"])

    def state(self) -> str:
        """What a person would look at."""
        logs = [
            self.kubectl.run("logs", name, "--all-containers", "--tail=25").stdout
            for name in (pod["metadata"]["name"] for pod in self.pods())
        ]
        return "\n".join([self.kubectl("get", "pods,events", "-o", "wide"), *logs])


@pytest.fixture(scope="module")
def release(
    existing: Cluster | None,
    binaries: Binaries,
    helm: Helm,
    product_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Release]:
    """Installed from the archive alone, and ready."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    folder = tmp_path_factory.mktemp("release")
    policy, audit = folder / "audit-policy", folder / "audit.log"
    policy.write_text(json.dumps(AUDIT_POLICY))
    flags = {
        # Services of webhooks lead to the addresses of their pods: there is no kube-proxy.
        "enable-aggregator-routing": "true",
        "audit-policy-file": str(policy),
        "audit-log-path": str(audit),
    }
    options = ControlPlaneOptions(flags={"kube-apiserver": flags})
    with (
        running_control_plane(binaries, options) as plane,
        running_node(plane) as node,
        reachable_from_pods(plane),
    ):
        kube_scheduler_image(binaries, folder / "kube-scheduler.tar")
        for archive in (product_image.archive, folder / "kube-scheduler.tar"):
            node.import_image(archive)
        made = Release(plane, node, helm, product_image, folder, audit)
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.wait_for_account(NAMESPACE)
        made.run("install", NAME, made.chart("0.2.0"), "--wait", "--timeout=300s", values=VALUES)
        yield made


def test_all_of_it_runs_as_pods(release: Release) -> None:
    """Ready is what Helm waits for: webhook, controller, scheduler with extender, node daemon."""
    ready: Counter[str] = Counter()
    for pod in release.pods():
        assert all(status["ready"] for status in pod["status"]["containerStatuses"])
        ready[pod["metadata"]["labels"]["app.kubernetes.io/component"]] += 1
    assert ready == {"webhook": 2, "controller": 2, "scheduler": 2, "node-daemon": 1}
