"""A healthy installation as objects: the manifests of deploy/, and what a cluster adds."""

import base64
import copy
import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML

from gpu_fraction.certs import pki
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.dashboard import objects, snapshot
from gpu_fraction.dashboard.doctor import objects as o
from gpu_fraction.dashboard.doctor.evidence import Evidence, Right, Scrape, Trial
from gpu_fraction.dashboard.doctor.rights import needed
from gpu_fraction.dashboard.snapshot import Part, Snapshot
from gpu_fraction.domain import assignment, inventory, keys
from gpu_fraction.domain.assignment import CardShare
from tests.builders.cards import card
from tests.builders.views import gpu_node, gpu_pod, quota

Raw = dict[str, Any]

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
NOW: Final = dt.datetime(2026, 12, 1, 12, 0, tzinfo=dt.UTC)
SYSTEM: Final = keys.SYSTEM_NAMESPACE
IMAGE: Final = "registry.test/gpu-fraction:0.1.0"


def moment(seconds_ago: float) -> str:
    """A time of the API."""
    return (NOW - dt.timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def authority(now: dt.datetime = NOW, life_days: float = 365) -> bytes:
    """A CA's certificate, PEM."""
    lives = Lifetimes(ca_life_s=life_days * 86400.0)
    return pki.new_authority("test", now, lives).certificate.pem.encode()


_CA: Final = authority()


def shipped(*folders: str) -> list[Raw]:
    """The objects of these folders of deploy/, without kustomizations."""
    found: list[Raw] = []
    for folder in folders:
        for file in sorted((DEPLOY / folder).glob("*.yaml")):
            documents = YAML(typ="safe", pure=True).load_all(file.read_text())
            # Anchors of the manifests would make two parts of an object one.
            found += [copy.deepcopy(one) for one in documents if one and one["kind"] in _KINDS]
    return found


_KINDS: Final = frozenset(
    {
        "Deployment",
        "DaemonSet",
        "Service",
        "CustomResourceDefinition",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    }
)


def own_pod(component: str, name: str, container: str, **fields: Any) -> Raw:
    """A pod of ours that is ready."""
    status = {
        "name": container,
        "ready": True,
        "restartCount": 0,
        "image": IMAGE,
        "imageID": "registry.test/gpu-fraction@sha256:1",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"gpu-fraction-{name}",
            "namespace": SYSTEM,
            "uid": f"uid-{name}",
            "creationTimestamp": moment(3600),
            "labels": {
                "app.kubernetes.io/name": "gpu-fraction",
                "app.kubernetes.io/component": component,
            },
        },
        "spec": {
            "serviceAccountName": f"gpu-fraction-{component}",
            "containers": [{"name": container, "image": IMAGE}],
            "nodeName": fields.get("node", "n1"),
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [status],
        },
    }


def native_node(name: str, *cards: inventory.Card, driver: str = "615.71.09") -> Raw:
    """A node that offers what its inventory says."""
    text = inventory.render(inventory.Inventory(driver_version=driver, cards=cards))
    made = gpu_node(name, text=text)
    made["metadata"]["labels"] = {"nvidia.com/gpu.present": "true"}
    made["status"] |= {
        "allocatable": {
            keys.SLOT: str(sum(one.slots for one in cards)),
            keys.CORE_MILLI: str(sum(one.core_milli for one in cards)),
            keys.MEMORY_MIB: str(sum(one.memory_mib for one in cards)),
        },
        "nodeInfo": {
            "kubeletVersion": "v1.37.2",
            "containerRuntimeVersion": "containerd://2.1.0",
        },
    }
    return made


def healthy() -> list[Raw]:
    """Two nodes, all parts, a pod that runs and one quota."""
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in (SYSTEM, "team-a", "default")
    ]
    made += shipped("webhook", "controller", "scheduler", "node-daemon", "crd")
    for one in made:
        _served(one)
    made += [
        native_node("n1", card(0, uuid="GPU-a"), card(1, uuid="GPU-b")),
        native_node("n2", card(0, uuid="GPU-c")),
        own_pod("webhook", "webhook-a", "webhook"),
        own_pod("webhook", "webhook-b", "webhook", node="n2"),
        own_pod("controller", "controller-a", "controller"),
        own_pod("scheduler", "scheduler-a", "extender"),
        own_pod("node-daemon", "node-daemon-n1", "node-daemon"),
        own_pod("node-daemon", "node-daemon-n2", "node-daemon", node="n2"),
        _endpoints("gpu-fraction-webhook", 2),
        _lease("gpu-fraction-controller", "controller-a_1"),
        _lease("gpu-fraction-webhook-certificates", "controller-a_1"),
        _leaf("webhook-a"),
        gpu_pod("train", CardShare("GPU-a", 500, 8192), node="n1"),
        quota(
            "budget",
            {"cores": "2"},
            {"cores": "500m"},
            status={"conditions": [{"type": "Ready", "status": "True"}]},
        ),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "gpu-fraction-webhook", "namespace": SYSTEM},
            "status": {"disruptionsAllowed": 1, "currentHealthy": 2, "expectedPods": 2},
        },
    ]
    return made


def _served(one: Raw) -> None:
    """What a cluster adds to a manifest."""
    if "webhooks" in one:
        for webhook in one["webhooks"]:
            webhook["clientConfig"]["caBundle"] = base64.b64encode(_CA).decode()
    if one["kind"] == "DaemonSet":
        one["status"] = {"desiredNumberScheduled": 2, "numberReady": 2}
    if one["kind"] == "CustomResourceDefinition":
        one["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    if one["metadata"]["name"] == "gpu-fraction-scheduler" and one["kind"] == "Deployment":
        for container in one["spec"]["template"]["spec"]["containers"]:
            if container["name"] == "kube-scheduler":
                container["image"] = "registry.k8s.io/kube-scheduler:v1.37.2"


def _endpoints(service: str, ready: int, known: int | None = None) -> Raw:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-1",
            "namespace": SYSTEM,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [f"10.0.0.{at}"], "conditions": {"ready": at < ready}}
            for at in range(known or ready)
        ],
    }


def _lease(name: str, holder: str) -> Raw:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": SYSTEM},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "renewTime": moment(2),
        },
    }


def _leaf(replica: str) -> Raw:
    made = _lease(f"gpu-fraction-webhook-replica-{replica}", replica)
    made["metadata"]["annotations"] = {keys.SERVING_NOT_AFTER: moment(-20 * 86400)}
    return made


def event(kind: str, name: str, reason: str, message: str, namespace: str = SYSTEM) -> Raw:
    """A warning of a minute ago."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{reason.lower()}", "namespace": namespace},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": moment(60),
        "involvedObject": {"kind": kind, "namespace": namespace, "name": name},
    }


_PARTS: Final[dict[str, tuple[str, type[Any]]]] = {
    "MutatingWebhookConfiguration": ("mutating", o.Configuration),
    "ValidatingWebhookConfiguration": ("validating", o.Configuration),
    "Service": ("services", o.Service),
    "EndpointSlice": ("endpoints", o.Endpoints),
    "Namespace": ("namespaces", o.Namespace),
    "Deployment": ("deployments", o.Workload),
    "DaemonSet": ("daemon_sets", o.Workload),
    "Lease": ("leases", o.Lease),
    "RuntimeClass": ("runtime_classes", o.RuntimeClass),
    "CustomResourceDefinition": ("crds", o.Crd),
    "PodDisruptionBudget": ("budgets", o.Budget),
    "ClusterPolicy": ("policies", o.ClusterPolicy),
    "Event": ("events", o.Warned),
}
_OF_SNAPSHOT: Final[dict[str, tuple[str, type[Any]]]] = {
    into.__name__: (name, into) for name, (_, into) in snapshot.PARTS.items()
} | {"GPUQuota": ("quotas", objects.Quota)}


REWRITTEN: Final = Trial("default", "rewritten")


def evidence(
    manifests: Iterable[Raw],
    *,
    git_version: str = "v1.37.2",
    trial: Trial = REWRITTEN,
    streams: float = 1.0,
    denied: Iterable[tuple[str, str]] = (),
    **fields: Any,
) -> Evidence:
    """What a reading of these objects would give to somebody who may read everything.

    Args:
        manifests: The objects.
        git_version: The server's.
        trial: The answer to the trial pod.
        streams: The kubelet streams that every daemon reports.
        denied: Component and resource of rights that are missing.
        fields: Further fields of the evidence, in the place of these.
    """
    found: dict[str, dict[str, list[Any]]] = {"": {}, "snapshot": {}}
    for one in manifests:
        for where, table in (("", _PARTS), ("snapshot", _OF_SNAPSHOT)):
            if one["kind"] in table:
                name, into = table[one["kind"]]
                # As the server sends it: msgspec decodes base64 in JSON alone.
                decoded = msgspec.json.decode(msgspec.json.encode(one), type=into)
                found[where].setdefault(name, []).append(decoded)
    parts = {name: Part(tuple(items)) for name, items in found[""].items()}
    seen = {name: Part(tuple(items)) for name, items in found["snapshot"].items()}
    lacking = set(denied)
    rights = tuple(
        Right(
            f"{SYSTEM}/gpu-fraction-{of.component}",
            of.verb,
            of.qualified,
            allowed=(of.component, of.qualified) not in lacking,
        )
        for of in needed()
    )
    given: dict[str, Any] = {
        "at": NOW,
        "skew_s": 0.0,
        "snapshot": Snapshot(NOW, **seen),
        "version": Part((o.Version(git_version=git_version),)),
        "rights": Part(rights),
        "trials": Part((trial,)),
        "metrics": Part((Scrape("gpu-fraction-node-daemon-n1", {STREAMS: streams}),)),
        **parts,
        **fields,
    }
    return Evidence(**given)


STREAMS: Final = "gpu_fraction_kubelet_streams"


def assigned(*shares: CardShare) -> str:
    """The annotation of these shares of container ``main``."""
    return assignment.render({"main": shares})
