"""What a node needs below the kubelet: runtime, CDI, driver, engines."""

import re
from collections.abc import Iterator
from typing import Final

from gpu_fraction.dashboard.doctor.checks.server import git_version
from gpu_fraction.dashboard.doctor.evidence import Evidence, ready
from gpu_fraction.dashboard.doctor.finding import Finding, fail, warn
from gpu_fraction.domain import keys
from gpu_fraction.domain.container_runtime import cdi_warning

CGROUP_DRIVER: Final = 615
"""First driver branch with limits of a cgroup's device memory. Source: docs/isolation.md."""

ROOTS: Final = {
    "+k0s": "/var/lib/k0s/kubelet",
    "microk8s": "/var/snap/microk8s/common/var/lib/kubelet",
}
"""Kubelet roots that are not ``/var/lib/kubelet``, by a part of the version. Source:
github.com/NVIDIA/k8s-device-plugin#1252, github.com/hetznercloud/csi-driver#536."""

_RUNTIME_FILES: Final = {
    "+k3s": "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl",
    "+rke2": "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl",
}
"""Where distributions keep containerd's configuration. Source: docs.k3s.io, docs.rke2.io."""

_BRANCH: Final = re.compile(r"^(\d+)\.")


def runtime_class(found: Evidence) -> Iterator[Finding]:
    """15: a RuntimeClass that pods name is absent, or the runtime does not know its handler."""
    known = {one.metadata.name for one in found.runtime_classes.items}
    daemon = found.workload("node-daemon")
    named = (
        {daemon.spec.template.spec.runtime_class_name: f"DaemonSet {daemon.metadata.name}"}
        if daemon
        else {}
    )
    named |= {
        view.pod.spec.runtime_class_name: f"Pod {view.namespace}/{view.name}"
        for view in found.cluster.pods
        if not view.pod.finished
    }
    for name, by in sorted((n, b) for n, b in named.items() if n):
        if name not in known:
            yield fail(
                f"{by}: RuntimeClass {name} does not exist",
                f"kubectl create -f - <<'END'\napiVersion: node.k8s.io/v1\nkind: RuntimeClass\n"
                f"metadata: {{name: {name}}}\nhandler: {name}\nEND",
            )
    for event in found.about("no runtime for", "unknown runtime handler", "runtime handler")[:3]:
        version = git_version(found)
        file = next(
            (f for part, f in _RUNTIME_FILES.items() if part in version),
            "/etc/containerd/config.toml",
        )
        yield fail(
            f"{event.involved_object}: {event.reason}: {event.message[:200]}",
            f"nvidia-ctk runtime configure --runtime=containerd --config={file}     # on the "
            "node\n"
            "systemctl restart containerd",
        )


def cdi(found: Evidence) -> Iterator[Finding]:
    """16: the container runtime of a node with GPUs may not read CDI files."""
    names = {node.metadata.name for node in found.gpu_nodes}
    names |= {view.name for view in found.cluster.nodes}
    for node in found.snapshot.nodes.items:
        reported = node.status.node_info.container_runtime_version
        if node.metadata.name in names and reported and (why := cdi_warning(reported)):
            yield warn(
                f"Node {node.metadata.name}: status.nodeInfo.containerRuntimeVersion "
                f"{reported}: {why}",
                'set enable_cdi = true in [plugins."io.containerd.grpc.v1.cri"] of '
                "/etc/containerd/config.toml     # on the node\nsystemctl restart containerd",
            )
    for event in found.about("unresolvable CDI devices")[:3]:
        yield fail(
            f"{event.involved_object}: {event.reason}: {event.message[:200]}",
            "nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml"
            "     # on the node",
        )


def driver(found: Evidence) -> Iterator[Finding]:
    """17: the daemon of a node runs, but has read no cards."""
    nodes = {node.metadata.name: node for node in found.snapshot.nodes.items}
    published = {view.name for view in found.native_nodes if view.cards}
    for pod in found.component("node-daemon"):
        node = pod.spec.node_name or ""
        statuses = pod.status.container_statuses or ()
        if node in nodes and node not in published and ready(pod):
            yield fail(
                f"Node {node}: annotation {keys.INVENTORY} has no cards, though Pod "
                f"{pod.metadata.name} "
                "is ready: NVML does not answer",
                f"kubectl -n {found.system} logs {pod.metadata.name} --tail=50\nnvidia-smi     "
                "# on the node",
            )
        for status in statuses:
            if status.restart_count >= RESTARTS:
                ended = (status.last_state or {}).get("terminated") or {}
                why = ended.get("message") or ended.get("reason") or "unknown"
                yield warn(
                    f"Pod {pod.metadata.name} on node {node}: restartCount "
                    f"{status.restart_count}, last "
                    f"end: {why!s:.200}",
                    f"kubectl -n {found.system} logs {pod.metadata.name} --previous --tail=50",
                )


RESTARTS: Final = 5
"""Chosen: more than upgrades and reboots of a node cause in a day."""


def old_driver(found: Evidence) -> Iterator[Finding]:
    """18: the only engine that is asked for needs a newer driver."""
    daemon = found.workload("node-daemon")
    asked = (daemon.setting("isolation") if daemon else None) or "cgroup"
    if not found.own_nodes or {part.strip() for part in asked.split(",")} != {"cgroup"}:
        return
    for node in found.snapshot.nodes.items:
        view = found.cluster.node(node.metadata.name)
        inventory = view.inventory if view else None
        labels = node.metadata.labels or {}
        version = inventory.driver_version if inventory else ""
        version = version or labels.get("nvidia.com/cuda.driver-version.full", "")
        match = _BRANCH.match(version)
        if match and int(match[1]) < CGROUP_DRIVER:
            yield warn(
                f"Node {node.metadata.name}: driver {version}; --isolation={asked} needs "
                f"R{CGROUP_DRIVER}, "
                "so that shares are not enforced",
                "chart: nodeDaemon.isolation=[cgroup, mps]     # docs/isolation.md\n"
                f"or upgrade the driver to R{CGROUP_DRIVER}",
            )


def required(found: Evidence) -> Iterator[Finding]:
    """38: pods wait for enforcement that no card offers."""
    cards = found.cluster.cards
    best = {(c.card.enforces_memory, c.card.enforces_compute) for c in cards}
    if (True, True) in best:
        return
    for view in found.cluster.waiting:
        if any(ask.isolation == "required" for ask in view.asks):
            offer = sorted({str(c.card.isolation) for c in cards}) or ["no card"]
            yield warn(
                f"Pod {view.namespace}/{view.name}: annotation {keys.ISOLATION} is required; "
                "cards offer "
                f"{', '.join(offer)}",
                f"kubectl -n {view.namespace} annotate pod ... {keys.ISOLATION}=preferred     "
                "# in the "
                "template\nchart: nodeDaemon.isolation=[cgroup, mps]",
            )


def kubelet_root(found: Evidence) -> Iterator[Finding]:
    """39: the daemon looks for the kubelet in the wrong folder."""
    daemon = found.workload("node-daemon")
    if daemon is not None and daemon.setting("mode") == "dra":
        return
    silent = {one.pod for one in found.metrics.items if one.values.get(STREAMS) == 0}
    nodes = {node.metadata.name: node for node in found.snapshot.nodes.items}
    for pod in found.component("node-daemon"):
        node = nodes.get(pod.spec.node_name or "")
        if node is None:
            continue
        version = node.status.node_info.kubelet_version
        root = next((path for part, path in ROOTS.items() if part in version.lower()), "")
        offers = keys.SLOT in (node.status.allocatable or {})
        if pod.metadata.name in silent:
            yield fail(
                f"Pod {pod.metadata.name} on node {node.metadata.name}: metric {STREAMS} is 0: "
                "the daemon "
                f"is not registered with the kubelet ({version})",
                f"chart: nodeDaemon.kubeletRoot={root or 'DIRECTORY'}     # --root-dir of the "
                "kubelet",
            )
        elif root and not offers and found.metrics.gap is not None:
            yield warn(
                f"Node {node.metadata.name}: kubelet {version} keeps its sockets in {root}, and "
                f"status.allocatable has no {keys.SLOT}",
                f"chart: nodeDaemon.kubeletRoot={root}",
            )


STREAMS: Final = "gpu_fraction_kubelet_streams"
"""Source: docs/metrics.md."""
