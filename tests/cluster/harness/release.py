"""The chart as a release on a real node: every component runs as the chart's pod.

The image is the one that ``make image`` builds. Two replicas stand on one node: what several nodes
would show is not shown here.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from scripts.image.build import Image
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.control_plane import ControlPlane, running_control_plane
from tests.cluster.harness.gateway import reachable_from_pods
from tests.cluster.harness.images import kube_scheduler_image
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.node import Node, running_node
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.stored import everything
from tests.support.chart import CHART, Helm

NAMESPACE = "gpu-fraction-system"
NAME = "gpu-fraction"
REGISTRY = "registry.example"
"""The images are there too, by the names and tags of the chart's own values."""
CARDS = 2
VALUES = {"simulatedCards": {"count": CARDS}, "image": {"pullPolicy": "Never"}}
WAIT = ("--wait", "--timeout=380s")
TIMEOUT_S = 400
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"]}],
}


@dataclass(slots=True)
class Release:
    """The release, which may be installed or not, and what it runs on.

    Attributes:
        plane: the control plane.
        node: its only node.
        helm: Helm.
        tag: of the programs' image.
        folder: for charts.
        audit: the API server's log of what the release's accounts ask for.
        before: the objects of the cluster before the first installation.
        node_before: what the Node named then.
    """

    plane: ControlPlane
    node: Node
    helm: Helm
    tag: str
    folder: Path
    audit: Path
    before: set[str] = field(default_factory=set)
    node_before: set[str] = field(default_factory=set)
    _read: int = 0

    @property
    def kubectl(self) -> Kubectl:
        """In the release's namespace."""
        return self.plane.kubectl.within(NAMESPACE)

    @property
    def installed(self) -> bool:
        """Whether it is there."""
        return self.plane.kubectl.run("get", "namespace", NAMESPACE).returncode == 0

    def run(self, *words: str, values: Any = None) -> str:
        """What a command of Helm prints."""
        options = [f"--namespace={NAMESPACE}", *(["--values=-"] if values else [])]
        try:
            return self.helm(
                *words,
                *options,
                stdin=json.dumps(values) if values else "",
                timeout_s=TIMEOUT_S,
                KUBECONFIG=str(self.plane.kubectl.kubeconfig),
            )
        except ValueError as e:
            raise AssertionError(f"{e}\n{self.state()}") from e

    def chart(self, version: str) -> str:
        """The chart of a version, packed; its image is the one that was built."""
        words = (f"--version={version}", f"--app-version={self.tag}")
        self.helm("package", str(CHART), *words, f"--destination={self.folder}")
        return str(self.folder / f"gpu-fraction-{version}.tgz")

    def install(self) -> None:
        """Installs version 0.2.0 and waits until all its pods are ready."""
        self.plane.kubectl("create", "namespace", NAMESPACE)
        self.plane.wait_for_account(NAMESPACE)
        self.run("install", NAME, self.chart("0.2.0"), *WAIT, values=VALUES)

    def pods(self) -> list[dict[str, Any]]:
        """Its pods that are not about to end."""
        items = self.kubectl.json("get", "pods")["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def names(self) -> set[str]:
        """All its pods, those that are about to end too."""
        return set(self.kubectl("get", "pods", "--output=name").split())

    def node_names(self) -> set[str]:
        """Labels, annotations and amounts of the Node."""
        node = self.plane.kubectl.json("get", "node", self.node.name)
        fields = (
            *(node["metadata"].get(field, {}) for field in ("labels", "annotations")),
            *(node["status"].get(field, {}) for field in ("capacity", "allocatable")),
        )
        return {name for field in fields for name in field}

    def asked(self) -> dict[str, set[str]]:
        """By RBAC's decision, what its accounts have asked for since it was installed."""
        found: dict[str, set[str]] = {}
        for line in self.audit.read_bytes()[self._read :].splitlines():
            event = json.loads(line)
            decision = event["annotations"]["authorization.k8s.io/decision"]
            account = event["user"]["username"].rpartition(":")[2]
            words = f"{account} {event['verb']} {event['requestURI']}"
            found.setdefault(decision, set()).add(words)
        return found

    def delete_namespace(self) -> None:
        """Takes the rest away after an uninstallation, and waits until it is gone."""
        # The webhook's serve until the API server drops its idle connections, after 90 s.
        for pod in self.kubectl.json("get", "pods")["items"]:
            for status in pod["status"].get("containerStatuses", ()):
                container = status.get("containerID", "").removeprefix("containerd://")
                with contextlib.suppress(subprocess.CalledProcessError):  # it has ended
                    self.node.ctr("tasks", "kill", "--signal=SIGKILL", container)
        self.plane.kubectl("delete", "namespace", NAMESPACE)
        self._read = self.audit.stat().st_size

    def state(self) -> str:
        """What a person would look at."""
        names = [pod["metadata"]["name"] for pod in self.pods()]
        logs = [self.kubectl.run("logs", n, "--all-containers", "--tail=25").stdout for n in names]
        return "\n".join([self.kubectl("get", "pods,events", "-o", "wide"), *logs])


@contextlib.contextmanager
def releasable(binaries: Binaries, helm: Helm, image: Image, folder: Path) -> Iterator[Release]:
    """A control plane and a node that has the images; nothing is installed yet."""
    policy, audit = folder / "audit-policy", folder / "audit.log"
    policy.write_text(json.dumps(_AUDIT_POLICY))
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
        scheduler = folder / "kube-scheduler.tar"
        tag = kube_scheduler_image(binaries, scheduler)
        for archive in (image.archive, scheduler):
            node.import_image(archive)
        made = Release(plane, node, helm, image.reference.rpartition(":")[2], folder, audit)
        version = YAML(typ="safe").load((CHART / "Chart.yaml").read_text())["appVersion"]
        node.ctr("images", "tag", image.reference, f"{REGISTRY}/gpu-fraction:{version}")
        node.ctr("images", "tag", tag, f"{REGISTRY}/{tag.rpartition('/')[2]}")
        made.before = everything(plane.kubectl)
        made.node_before = made.node_names()
        yield made
