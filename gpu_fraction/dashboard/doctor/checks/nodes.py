"""Nodes: which have GPUs, which have the daemon, and what they offer."""

from collections.abc import Iterator, Mapping
from typing import Final

from gpu_fraction.dashboard.doctor.evidence import Evidence, ready
from gpu_fraction.dashboard.doctor.finding import Finding, fail, warn
from gpu_fraction.dashboard.objects import Node, Taint
from gpu_fraction.domain import dra, keys, units
from gpu_fraction.domain.pod import Toleration

NVIDIA: Final = "nvidia.com/gpu"

PLUGINS: Final = (
    "k8s-device-plugin",
    "projecthami/hami",
    "gpushare-device-plugin",
    "gpu-manager",
    "elastic-gpu",
    "volcano-vgpu-device-plugin",
)
"""Parts of the images of other device plugins for NVIDIA's cards (facts of docs/backends.md)."""

ACCELERATORS: Final = (
    "feature.node.kubernetes.io/pci-10de.present",
    "feature.node.kubernetes.io/pci-0302_10de.present",
    "feature.node.kubernetes.io/pci-0300_10de.present",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "kubernetes.azure.com/accelerator",
)
"""Labels of nodes that very likely have an NVIDIA GPU. Source: node-feature-discovery (10de is
NVIDIA's PCI vendor), and the documentation of GKE, EKS and AKS."""

_DAEMON: Final = (Toleration(NVIDIA, "Exists", "", "NoSchedule"),)
"""What the node daemon tolerates by itself (deploy/node-daemon)."""


def second_plugin(found: Evidence) -> Iterator[Finding]:
    """11: two device plugins offer the same cards."""
    for node in found.snapshot.nodes.items:
        ours, theirs = (_amount(node, name) for name in (keys.SLOT, NVIDIA))
        if ours > 0 and theirs > 0:
            yield fail(
                f"Node {node.metadata.name}: status.allocatable has {keys.SLOT}={ours} and "
                f"{NVIDIA}={theirs}: its cards are given away twice",
                f"keep NVIDIA's device plugin off the node:\nkubectl label node "
                f"{node.metadata.name} nvidia.com/gpu.deploy.device-plugin=false --overwrite",
            )
    ours_here = any(_amount(node, keys.SLOT) > 0 for node in found.snapshot.nodes.items)
    for one in found.daemon_sets.items:
        images = [c.image for c in one.containers if any(part in c.image for part in PLUGINS)]
        count = one.status.desired_number_scheduled or 0
        if images and count > 0 and not ours_here and found.own_nodes:
            yield warn(
                f"DaemonSet {one.metadata.namespace}/{one.metadata.name}: image {images[0]} is "
                "a device "
                f"plugin on {count} nodes",
                "install gpu-fraction with that stack's backend (gpu-fraction backends "
                "detect), or keep "
                "its nodes apart",
            )
    for policy in found.policies.items:
        if policy.spec.device_plugin.enabled is not False and ours_here:
            yield warn(
                f"ClusterPolicy {policy.metadata.name}: spec.devicePlugin.enabled is not false",
                f"kubectl patch clusterpolicy {policy.metadata.name} --type=merge "
                '-p \'{"spec":{"devicePlugin":{"enabled":false}}}\'',
            )


def without_daemon(found: Evidence) -> Iterator[Finding]:
    """12: a node with GPUs has no pod of the node daemon, or the DaemonSet wants none."""
    daemon = found.workload("node-daemon")
    if daemon is None:
        return
    if not daemon.status.desired_number_scheduled:
        labels = ",".join(f"{key}={value}" for key, value in found.selector.items())
        yield fail(
            f"DaemonSet {daemon.metadata.name}: status.desiredNumberScheduled is 0: no node "
            "carries "
            f"{labels or 'what it selects'}",
            f"kubectl label node NODE {labels or 'nvidia.com/gpu.present=true'}",
        )
        return
    there = {pod.spec.node_name: pod for pod in found.component("node-daemon")}
    for node in found.gpu_nodes:
        name = node.metadata.name
        pod = there.get(name)
        chosen = daemon.spec.template.spec.affinity
        if pod is None and not chosen and not any(untolerated(found, node)):
            yield fail(
                f"Node {name}: no pod of DaemonSet {daemon.metadata.name} runs here",
                f"kubectl -n {found.system} describe daemonset {daemon.metadata.name}",
            )
        elif pod is not None and not ready(pod):
            yield fail(
                f"Pod {found.system}/{pod.metadata.name} on node {name} is not ready "
                "(status.phase "
                f"{pod.status.phase or 'unknown'})",
                f"kubectl -n {found.system} logs {pod.metadata.name} --tail=50",
            )


def taints(found: Evidence) -> Iterator[Finding]:
    """13: a taint keeps the node daemon off a node with GPUs.

    Where the daemon runs on all nodes, nothing says which have GPUs.
    """
    for node in found.gpu_nodes if found.selector and found.own_nodes else ():
        for taint in untolerated(found, node):
            text = f"{taint.key}={taint.value}:{taint.effect}".replace("=:", ":")
            yield fail(
                f"Node {node.metadata.name}: the node daemon does not tolerate spec.taints {text}",
                "chart: nodeDaemon.tolerations=[{key: " + taint.key + ", operator: Exists}]",
            )


def unlabelled(found: Evidence) -> Iterator[Finding]:
    """14: a node that very likely has GPUs lacks the label that the DaemonSet selects."""
    known = {node.metadata.name for node in found.gpu_nodes}
    text = " ".join(f"{key}={value}" for key, value in found.selector.items())
    for node in found.snapshot.nodes.items if found.own_nodes else ():
        labels = node.metadata.labels or {}
        hint = next((name for name in ACCELERATORS if labels.get(name, "false") != "false"), "")
        if hint and node.metadata.name not in known:
            yield warn(
                f"Node {node.metadata.name}: label {hint}={labels[hint]}, but not {text}",
                f"kubectl label node {node.metadata.name} {text}",
            )


def offered(found: Evidence) -> Iterator[Finding]:
    """19: a node offers another amount than its inventory says."""
    for view in found.native_nodes:
        inventory = view.inventory
        if inventory is None or _by_claims(found, view.name):
            continue
        well = [card for card in inventory.cards if card.healthy]
        slots, core, memory = (_amount(view.node, name) for name in keys.NATIVE_RESOURCES)
        wanted_core = sum(card.core_milli for card in well)
        # Memory is rounded up to the size under which a card is sold (docs/limits.md).
        memory_mib = sum(card.memory_mib for card in well)
        wrong = []
        if bool(slots) != bool(well) or slots > MOST_SLOTS:
            wrong.append(
                f"{keys.SLOT}={slots} for {sum(card.slots for card in well)} in the inventory"
            )
        if core != wanted_core:
            wrong.append(f"{keys.CORE_MILLI}={core}, inventory {wanted_core}")
        if not memory_mib <= memory <= memory_mib + 8192 * len(well):
            wrong.append(f"{keys.MEMORY_MIB}={memory}, inventory {memory_mib}")
        if wrong:
            yield fail(
                f"Node {view.name}: status.allocatable {'; '.join(wrong)}",
                f"kubectl describe node {view.name}\nkubectl -n {found.system} delete pod "
                f"--field-selector=spec.nodeName={view.name} -l "
                "app.kubernetes.io/component=node-daemon",
            )


MOST_SLOTS: Final = 2000
"""Source: node_daemon/state/tokens.py, MAX_TOKENS."""


def sick(found: Evidence) -> Iterator[Finding]:
    """20: a card is not healthy."""
    for view in found.cluster.nodes:
        for one in view.cards:
            if not one.card.healthy:
                yield warn(
                    f"Node {view.name}: card {one.card.uuid} is not healthy: "
                    f"{one.card.health_reason or 'no reason given'}; {len(one.slices)} slices "
                    "are on it",
                    f"kubectl describe node {view.name}\nkubectl drain {view.name} "
                    "--ignore-daemonsets"
                    "     # before a reset or an exchange of the card",
                )


def untolerated(found: Evidence, node: Node) -> Iterator[Taint]:
    """The taints that keep the node daemon off; every DaemonSet tolerates Kubernetes' own."""
    daemon = found.workload("node-daemon")
    held = daemon.spec.template.spec.tolerations if daemon else _DAEMON
    for taint in node.spec.taints or ():
        if taint.effect == "PreferNoSchedule" or taint.key.startswith("node.kubernetes.io/"):
            continue
        if not any(_tolerates(one, taint) for one in held or ()):
            yield taint


def _tolerates(one: Toleration, taint: Taint) -> bool:
    """Source: component-helpers scheduling/corev1/helpers.go, ToleratesTaint."""
    if one.effect not in {"", taint.effect} or one.key not in {"", taint.key}:
        return False
    return one.operator == "Exists" or (bool(one.key) and one.value == taint.value)


def _by_claims(found: Evidence, node: str) -> bool:
    """Whether a node offers its cards as devices of our DRA driver instead."""
    return any(
        one.spec.driver == dra.DRIVER and one.spec.node_name == node
        for one in found.snapshot.devices.items
    )


def _amount(node: Node, name: str) -> int:
    amounts: Mapping[str, str] = node.status.allocatable or {}
    return units.whole_amount(amounts[name]) if name in amounts else 0
