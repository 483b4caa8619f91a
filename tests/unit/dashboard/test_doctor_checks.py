"""Each check finds its fault in a healthy installation, and nothing else finds it there."""

import base64
import dataclasses
import datetime as dt
import hashlib
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from gpu_fraction.dashboard.doctor import objects as o
from gpu_fraction.dashboard.doctor.checks.rights import ENFORCE
from gpu_fraction.dashboard.doctor.evidence import Evidence, Right, Trial
from gpu_fraction.dashboard.doctor.finding import Result, link
from gpu_fraction.dashboard.doctor.table import CHECKS, examine
from gpu_fraction.dashboard.snapshot import Gap, Part, Snapshot
from gpu_fraction.domain import keys
from gpu_fraction.domain.assignment import CardShare
from tests.builders.cards import card
from tests.builders.installation import (
    NOW,
    SYSTEM,
    Raw,
    authority,
    event,
    evidence,
    healthy,
    moment,
    native_node,
)
from tests.builders.views import gpu_pod, quota

Plant = Callable[[list[Raw]], Any]


def one(objects: list[Raw], kind: str, name: str = "") -> Raw:
    """An object of a kind, by a part of its name."""
    return next(x for x in objects if x["kind"] == kind and name in x["metadata"]["name"])


def found(results: tuple[Result, ...]) -> dict[str, str]:
    """The level of each check that is not ok."""
    return {r.check.name: r.level for r in results if r.level != "ok"}


def test_a_healthy_installation_is_green() -> None:
    """No check finds or lacks anything, before an installation's end or after it."""
    assert found(examine(evidence(healthy()))) == {}


def test_an_empty_cluster_is_green_before_an_installation() -> None:
    """Only the checks of a cluster without gpu-fraction are made."""
    results = examine(evidence([]), before=True)
    assert found(results) == {}
    assert {r.check.number for r in results} == {
        *(1, 3, 10, 11, 13, 14, 15, 16, 18, 22, 23, 24, 25, 40)
    }


def test_an_absent_installation_is_a_failure_afterwards() -> None:
    """``doctor --wait`` must not be content with an empty cluster."""
    assert found(examine(evidence([])))["webhook-installed"] == "fail"


def test_numbers_and_names_are_unique() -> None:
    """All of the list but the void 42."""
    assert sorted(c.number for c in CHECKS) == [n for n in range(1, 44) if n != 42]
    assert len({c.name for c in CHECKS}) == len(CHECKS)


def drop(kind: str, name: str = "") -> Plant:
    """Take an object out."""
    return lambda objects: objects.remove(one(objects, kind, name))


def put(kind: str, path: str, value: Any, name: str = "") -> Plant:
    """Set a field; numbers in the path are positions in lists, ``//`` stands for a dot."""

    def plant(objects: list[Raw]) -> None:
        at: Any = one(objects, kind, name)
        *way, last = [step.replace("//", ".") for step in path.split(".")]
        for step in way:
            at = at[int(step)] if step.isdecimal() else at.setdefault(step, {})
        at[int(last) if last.isdecimal() else last] = value

    return plant


def add(*more: Raw) -> Plant:
    """Put objects in."""
    return lambda objects: objects.extend(more)


def foreign_webhook(name: str, service: str = "gone", **fields: Any) -> Raw:
    """A webhook of somebody else on pods."""
    rule = {"apiGroups": [""], "operations": ["CREATE"], "resources": ["pods"]}
    hook = {
        "name": name,
        "rules": [rule],
        "clientConfig": {"service": {"name": service, "namespace": "other"}},
        **fields,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [hook],
    }


def claimed(name: str, **fields: Any) -> Raw:
    """A pod of our scheduler that waits since ten minutes."""
    made = gpu_pod(name, **fields)
    made["metadata"]["creationTimestamp"] = moment(600)
    return made


def device_plugin() -> Raw:
    """NVIDIA's own."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "nvidia", "namespace": "gpu"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [{"name": "a", "image": "nvcr.io/nvidia/k8s-device-plugin:1"}]
                }
            }
        },
        "status": {"desiredNumberScheduled": 3},
    }


def nameless(name: str, **status: Any) -> Raw:
    """A pod without GPUs or annotations."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team-a", "uid": name},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", **status},
    }


def peeping() -> Raw:
    """A pod that sees every card of its node."""
    made = nameless("peep")
    made["spec"]["containers"][0]["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    return made


def never_seen() -> Raw:
    """A pod that was created past the webhook."""
    made = nameless("late")
    made["metadata"]["annotations"] = {keys.FRACTION: "0.5"}
    return made


def refused() -> Raw:
    """A pod that its kubelet refused."""
    return claimed("stale", phase="Failed") | {
        "status": {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no slot"}
    }


def labelled(name: str, labels: dict[str, str]) -> Raw:
    """A node with other labels than ours."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
    }


HOOK = "webhooks.0."
DAEMON = "spec.template.spec."
READY = "status.conditions.0.status"
IMAGE = "status.containerStatuses.0.imageID"

UNREADABLE = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nx\n").decode()

FAULTS: dict[str, tuple[str, str, str, Plant]] = {
    "match conditions lost": (
        "match-conditions", "fail", "matchConditions is empty",
        put("MutatingWebhookConfiguration", HOOK + "matchConditions", []),
    ),
    "no service": (
        "webhook-installed", "fail", "gpu-fraction-system/gpu-fraction-webhook does not exist",
        drop("Service"),
    ),
    "one webhook is gone": (
        "webhook-installed", "fail", "mutate.gpu-fraction.dev is in no configuration",
        drop("MutatingWebhookConfiguration"),
    ),
    "no endpoint is ready": (
        "webhook-endpoints", "fail", "0 of 2 endpoints are ready",
        put("EndpointSlice", "endpoints", [{"conditions": {"ready": False}}] * 2),
    ),
    "one endpoint is ready": (
        "webhook-endpoints", "warn", "1 of 2 endpoints are ready",
        put("EndpointSlice", "endpoints.0.conditions.ready", False),
    ),
    "an empty caBundle": (
        "ca-bundle", "fail", "caBundle is empty",
        put("MutatingWebhookConfiguration", HOOK + "clientConfig.caBundle", ""),
    ),
    "an unreadable caBundle": (
        "ca-bundle", "fail", "no readable certificate",
        put("MutatingWebhookConfiguration", HOOK + "clientConfig.caBundle", UNREADABLE),
    ),
    "rules without bindings": (
        "webhook-as-shipped", "fail", "rules lack CREATE pods",
        put(
            "MutatingWebhookConfiguration",
            HOOK + "rules",
            [{"apiGroups": [""], "resources": ["pods"]}],
        ),
    ),
    "a policy that lets pods pass": (
        "webhook-as-shipped", "warn", "failurePolicy is Ignore (managedFields: argo)",
        lambda objects: (
            put("MutatingWebhookConfiguration", HOOK + "failurePolicy", "Ignore")(objects),
            put(
                "MutatingWebhookConfiguration",
                "metadata.managedFields",
                [{"manager": "argo", "fieldsV1": {"f:webhooks": {"k": {"f:failurePolicy": {}}}}}],
            )(objects),
        ),
    ),
    "a long time-out": (
        "webhook-as-shipped", "warn", "timeoutSeconds is 30",
        put("MutatingWebhookConfiguration", HOOK + "timeoutSeconds", 30),
    ),
    "our own namespace is not left out": (
        "webhook-as-shipped", "fail", "does not leave out gpu-fraction-system",
        put("MutatingWebhookConfiguration", HOOK + "namespaceSelector", {}),
    ),
    "a webhook of others is down": (
        "other-webhooks", "fail", "Service other/gone does not exist",
        add(foreign_webhook("policy.example.com")),
    ),
    "HAMi's webhook": (
        "other-webhooks", "warn", "of HAMi receives pods as well",
        add(foreign_webhook("vgpu.hami.io", failurePolicy="Ignore")),
    ),
    "no CRD": ("crd", "fail", "does not exist", drop("CustomResourceDefinition")),
    "a CRD that is not served": (
        "crd", "fail", "condition Established is False",
        put("CustomResourceDefinition", "status.conditions.0.status", "False"),
    ),
    "two images": (
        "equal-versions", "warn", "imageID differs",
        put("Pod", IMAGE, "sha256:2", "webhook-a"),
    ),
    "two device plugins": (
        "second-device-plugin", "fail", "nvidia.com/gpu=2",
        put("Node", "status.allocatable.nvidia//com/gpu", "2", "n1"),
    ),
    "the operator's device plugin": (
        "second-device-plugin", "warn", "spec.devicePlugin.enabled is not false",
        add({"kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"}, "spec": {}}),
    ),
    "no node for the daemon": (
        "daemon-pods", "fail", "status.desiredNumberScheduled is 0",
        put("DaemonSet", "status.desiredNumberScheduled", 0),
    ),
    "a node without its daemon": (
        "daemon-pods", "fail", "Node n2: no pod", drop("Pod", "node-daemon-n2"),
    ),
    "a daemon that is not ready": (
        "daemon-pods", "fail", "is not ready", put("Pod", READY, "False", "daemon-n2"),
    ),
    "a taint": (
        "taints", "fail", "spec.taints dedicated=ml:NoExecute",
        put(
            "Node",
            "spec.taints",
            [{"key": "dedicated", "value": "ml", "effect": "NoExecute"}],
            "n1",
        ),
    ),
    "a node that has GPUs and no label": (
        "unlabelled-nodes", "warn", "pci-10de.present=true",
        add(labelled("n3", {"feature.node.kubernetes.io/pci-10de.present": "true"})),
    ),
    "no RuntimeClass": (
        "runtime-class", "fail", "RuntimeClass nvidia does not exist",
        put("DaemonSet", DAEMON + "runtimeClassName", "nvidia"),
    ),
    "an unknown handler": (
        "runtime-class", "fail", 'no runtime for "nvidia"',
        add(event("Pod", "p", "FailedCreatePodSandBox", 'no runtime for "nvidia" is configured')),
    ),
    "a runtime with CDI off": (
        "cdi", "warn", "containerd://1.7.24",
        put("Node", "status.nodeInfo.containerRuntimeVersion", "containerd://1.7.24", "n1"),
    ),
    "CDI devices that are unknown": (
        "cdi", "fail", "unresolvable CDI devices",
        add(event("Pod", "p", "Failed", "unresolvable CDI devices nvidia.com/gpu=0")),
    ),
    "a driver that does not answer": (
        "driver", "fail", "has no cards, though Pod",
        put("Node", "metadata.annotations", {}, "n2"),
    ),
    "a daemon that restarts": (
        "driver", "warn", "restartCount 9, last end: OOMKilled",
        lambda objects: one(objects, "Pod", "daemon-n1")["status"]["containerStatuses"][0].update(
            restartCount=9, lastState={"terminated": {"reason": "OOMKilled"}}
        ),
    ),
    "an old driver": (
        "old-driver", "warn", "driver 580.65.06",
        lambda objects: (
            objects.remove(one(objects, "Node", "n2")),
            objects.append(native_node("n2", card(0, uuid="GPU-c"), driver="580.65.06")),
        ),
    ),
    "amounts that differ": (
        "offered-amounts", "fail", "core-milli=500, inventory 2000",
        put("Node", f"status.allocatable.{keys.CORE_MILLI.replace('.', '//')}", "500", "n1"),
    ),
    "a sick card": (
        "sick-cards", "warn", "card GPU-d is not healthy: XID 79",
        add(native_node("n3")),
    ),
    "Pod Security": (
        "pod-security", "fail", "enforce=baseline",
        put("Namespace", "metadata.labels", {ENFORCE: "baseline"}, SYSTEM),
    ),
    "Pod Security by the cluster's default": (
        "pod-security", "fail", "violates PodSecurity",
        add(event("DaemonSet", "d", "FailedCreate", 'violates PodSecurity "baseline:latest"')),
    ),
    "no quota for our priority class": (
        "priority-quota", "fail", "insufficient quota",
        add(event("ReplicaSet", "r", "FailedCreate", "insufficient quota to match these scopes")),
    ),
    "a budget that lets nobody go": (
        "disruption-budget", "warn", "disruptionsAllowed is 0 with 2 of 2",
        put("PodDisruptionBudget", "status.disruptionsAllowed", 0),
    ),
    "the scheduler of another release": (
        "scheduler-version", "warn", "kube-scheduler 1.36, API server 1.37",
        lambda objects: one(objects, "Deployment", "scheduler")["spec"]["template"]["spec"][
            "containers"
        ][0].update(image="registry.k8s.io/kube-scheduler:v1.36.2"),
    ),
    "a pod that nobody schedules": (
        "scheduler-silent", "fail", "1 pods, such as team-a/alone",
        add(claimed("alone")),
    ),
    "no scheduler": (
        "scheduler-silent", "fail", "no pod of the scheduler is ready",
        put("Pod", READY, "False", "scheduler-a"),
    ),
    "no extender": (
        "extender", "fail", "127.0.0.1:9444",
        add(
            claimed(
                "far",
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": 'Post "https://127.0.0.1:9444/filter": connection refused',
                    }
                ],
            )
        ),
    ),
    "a lease that nobody renews": (
        "leases", "fail", "spec.renewTime is 900 s old",
        put("Lease", "spec.renewTime", moment(900), "controller"),
    ),
    "a card that is given away twice": (
        "overdrawn", "fail", "given 1500 milli",
        add(
            gpu_pod("x", CardShare("GPU-a", 1000, 4096), node="n1"),
        ),
    ),
    "a quota that is not ready": (
        "quotas", "fail", "condition Ready is False: bad",
        add(
            quota(
                "broken", {"cores": "1"}, {},
                status={"conditions": [{"type": "Ready", "status": "False", "message": "bad"}]},
            )
        ),
    ),
    "a quota that is exceeded": (
        "quotas", "warn", "condition Exceeded is True",
        add(
            quota(
                "full", {"cores": "1"}, {"cores": "2"},
                status={"conditions": [{"type": "Exceeded", "status": "True"}]},
            )
        ),
    ),
    "a reservation without a pod": (
        "reservations", "warn", "status.reserved of pod ghost expired",
        add(
            quota(
                "held", {"cores": "1"}, {},
                status={
                    "reserved": [{"podUID": "u", "podName": "ghost", "expires": moment(3600)}]
                },
            )
        ),
    ),
    "a namespace that does not go": (
        "leftovers", "warn", "held by finalizers kubernetes",
        lambda objects: one(objects, "Namespace", SYSTEM)["metadata"].update(
            deletionTimestamp=moment(7200), finalizers=["kubernetes"]
        ),
    ),
    "a pod that was never rewritten": (
        "never-rewritten", "warn", "such as team-a/late", add(never_seen()),
    ),
    "a pod that the kubelet refused": (
        "unexpected-admission-error", "warn", "such as team-a/stale", add(refused()),
    ),
    "a pod that sees all cards": ("past-us", "warn", "such as team-a/peep", add(peeping())),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_check_alone(name: str) -> None:
    """With what was seen; every other check stays green."""
    check, level, seen, plant = FAULTS[name]
    objects = healthy()
    if name == "a sick card":
        sick = card(0, uuid="GPU-d", healthy=False, health_reason="XID 79")
        objects += [native_node("n3", card(1, uuid="GPU-e"), sick), daemon_of("n3")]
        offered = one(objects, "Node", "n3")["status"]["allocatable"]
        offered |= {keys.CORE_MILLI: "1000", keys.MEMORY_MIB: "16384"}
    else:
        plant(objects)
    results = examine(evidence(objects))
    assert found(results) == {check: level}
    (result,) = (r for r in results if r.findings)
    assert any(seen in f.seen for f in result.findings), result.findings
    assert all(f.fix for f in result.findings)


def daemon_of(node: str) -> Raw:
    """A pod of the daemon on another node."""
    made = one(healthy(), "Pod", "daemon-n2")
    made["metadata"]["name"] = f"gpu-fraction-node-daemon-{node}"
    made["spec"]["nodeName"] = node
    return made


def named(**expected: str) -> dict[str, str]:
    """Levels by check, with dashes."""
    return {key.replace("_", "-"): level for key, level in expected.items()}


@pytest.mark.parametrize(
    ("fields", "levels"),
    [
        ({"git_version": "v1.33.1"}, named(server_version="fail", scheduler_version="warn")),
        ({"git_version": "v1.99.0"}, named(server_version="warn", scheduler_version="warn")),
        ({"git_version": "v1.37.2+k3s1"}, {}),
        ({"skew_s": 90.0}, named(clocks="warn")),
        ({"skew_s": -4000.0}, named(clocks="fail")),
        ({"streams": 0.0}, named(kubelet_root="fail")),
        ({"denied": [("webhook", "namespaces")]}, named(rights="fail")),
        ({"trial": Trial("default", "unchanged")}, named(webhook_call="fail")),
        (
            {"trial": Trial("default", "refused", "exceeded quota: cpu")},
            named(webhook_call="warn"),
        ),
        (
            {
                "trial": Trial(
                    "default", "refused", '"validate.gpu-fraction.dev" denied the request'
                )
            },
            {},
        ),
    ],
    ids=str,
)
def test_what_is_no_object(fields: dict[str, Any], levels: dict[str, str]) -> None:
    """The server's version and clock, metrics, rights, and the trial pod."""
    assert found(examine(evidence(healthy(), **fields))) == levels


CALL = 'failed calling webhook "mutate.gpu-fraction.dev": failed to call webhook: Post "x": '


@pytest.mark.parametrize(
    ("said", "version", "also", "heading"),
    [
        ("x509: certificate signed by unknown authority", "v1.37.2", None, "x509-certificate"),
        ('no endpoints available for service "w"', "v1.37.2", None, "no-endpoints"),
        ('service "w" not found', "v1.37.2", None, "service-not-found"),
        ("dial tcp 10.0.0.1:9443: connect: connection refused", "v1.37.2", None, "refused"),
        ("context deadline exceeded", "v1.37.2", None, "deadline-exceeded"),
        ("context deadline exceeded", "v1.37.2-gke.100", "control-plane-network", "deadline"),
        ("Address is not allowed", "v1.37.2-eks-1", "control-plane-network", "address-is-not"),
        ("EOF", "v1.37.2", "proxy", "eof"),
        ("something new", "v1.37.2", None, "failed-calling-webhook"),
    ],
)
def test_a_failed_call_is_told_by_its_error(
    said: str, version: str, also: str | None, heading: str
) -> None:
    """Each error text leads to its own section; known causes of a cloud are found besides."""
    trial = Trial("default", "failed", CALL + said)
    results = examine(evidence(healthy(), git_version=version, trial=trial))
    assert found(results) == {"webhook-call": "fail", **({also: "fail"} if also else {})}
    (result,) = (r for r in results if r.check.name == "webhook-call")
    assert heading in link(result.check, result.findings[0])


@pytest.mark.parametrize(("days", "level"), [(3, "warn"), (0.5, "fail"), (-1, "fail")])
def test_a_certificate_that_ends(days: float, level: str) -> None:
    """The CA in the caBundles, and the leaf that a replica reports."""
    objects = healthy()
    begin = NOW + dt.timedelta(days=days) - dt.timedelta(days=30)
    text = base64.b64encode(authority(begin, 30)).decode()
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for hook in one(objects, kind)["webhooks"]:
            hook["clientConfig"]["caBundle"] = text
    assert found(examine(evidence(objects))) == {"certificate-expiry": level}
    objects = healthy()
    lease = one(objects, "Lease", "replica")
    lease["metadata"]["annotations"][keys.SERVING_NOT_AFTER] = moment(-days * 86400)
    assert found(examine(evidence(objects))) == {"certificate-expiry": level}
    lease["spec"]["renewTime"] = moment(90000)  # that replica is gone
    assert found(examine(evidence(objects))) == {}


def test_openshift_needs_its_own_right() -> None:
    """Only where the server has that group."""
    lacking = Part((Right("gpu-fraction-system/d", "use", "x", allowed=False),))
    group = Part((o.Group(name="security.openshift.io"),))
    assert found(examine(evidence(healthy(), groups=group, rights=lacking))) == {
        "openshift": "fail"
    }
    assert found(examine(evidence(healthy(), rights=lacking))) == {}


def test_another_device_plugin_is_seen_before_an_installation() -> None:
    """Its DaemonSet alone; beside our resources the nodes show it."""
    results = examine(evidence([device_plugin()]), before=True)
    assert found(results) == {"second-device-plugin": "warn"}


def test_configurations_that_a_removal_left_are_seen_before_an_installation() -> None:
    """With the one command that removes them."""
    objects = [x for x in healthy() if "webhooks" in x]
    results = examine(evidence(objects), before=True)
    assert found(results) == {"webhook-installed": "fail"}
    (result,) = (r for r in results if r.findings)
    assert result.findings[0].fix.startswith("kubectl delete mutatingwebhookconfiguration")


PARTS = sorted({name for check in CHECKS for name in check.needs})


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_may_not_be_read_skips_its_checks_alone(part: str) -> None:
    """With the right that is missing; the others are made."""
    whole = evidence(healthy())
    lacking: Part[Any] = Part(gap=Gap(part, "forbidden", f"not permitted: list {part}"))
    given = {part: lacking}
    if not hasattr(whole, part):
        given = {"snapshot": dataclasses.replace(whole.snapshot, **given)}
    results = examine(evidence(healthy(), **given))
    skipped = {r.check.name for r in results if r.skipped}
    assert skipped == {c.name for c in CHECKS if part in c.needs}
    assert all(part in r.skipped for r in results if r.skipped)


def test_evidence_of_nothing_readable_is_no_finding() -> None:
    """Somebody without any right learns what is missing, and no false alarm."""
    gap: Part[Any] = Part(gap=Gap("x", "forbidden", "not permitted: list x"))
    names = {name for check in CHECKS for name in check.needs}
    of_snapshot = {n for n in names if not hasattr(Evidence(at=NOW), n)}
    whole = Evidence(
        at=NOW,
        snapshot=Snapshot(NOW, **dict.fromkeys(of_snapshot, gap)),
        **dict.fromkeys(names - of_snapshot, gap),
    )
    results = examine(whole)
    assert {r.level for r in results if r.check.needs} == {"skipped"}


def test_what_tenants_write_stays_on_one_line() -> None:
    """An Event's message could otherwise end the comment before a command."""
    said = "unresolvable CDI devices\nrm -rf /\x1b[2J"
    results = examine(evidence([*healthy(), event("Pod", "p", "Failed", said)]))
    (result,) = (r for r in results if r.findings)
    assert "\n" not in result.findings[0].seen
    assert "\x1b" not in result.findings[0].seen
    objects = healthy()
    lease = one(objects, "Lease", "controller")
    lease["spec"] |= {"renewTime": moment(900), "holderIdentity": "x;reboot"}
    (result,) = (r for r in examine(evidence(objects)) if r.findings)
    assert "logs 'x;reboot' --tail" in result.findings[0].fix


@pytest.mark.parametrize("component", ["scheduler", "node-daemon"])
def test_a_pod_of_a_tenant_with_our_labels_is_not_ours(component: str) -> None:
    """It hides no fault, and its account is not asked about."""
    objects = healthy()
    for pod in (x for x in objects if x["kind"] == "Pod"):
        if pod["metadata"].get("labels", {}).get("app.kubernetes.io/component") == component:
            pod["metadata"]["namespace"] = "team-a"
    levels = found(examine(evidence(objects)))
    assert "fail" in levels.values(), levels
    assert all(pod.metadata.namespace == SYSTEM for pod in evidence(objects).own_pods)


def test_another_stacks_nodes_are_not_ours() -> None:
    """With the backend hami, HAMi's parts are as they should be."""
    objects = [x for x in healthy() if "node-daemon" not in x["metadata"]["name"]]
    objects = [x for x in objects if x["kind"] != "Node"]
    webhook = one(objects, "Deployment", "webhook")["spec"]["template"]["spec"]["containers"][0]
    webhook["env"] = [{"name": "GPU_FRACTION_BACKEND", "value": "hami"}]
    objects += [device_plugin(), foreign_webhook("vgpu.hami.io", failurePolicy="Ignore")]
    objects += [labelled("n9", {"cloud.google.com/gke-accelerator": "t4"})]
    assert found(examine(evidence(objects))) == {}


def test_a_namespace_that_is_left_out_says_nothing_about_the_webhook() -> None:
    """It is no failure that kube-system is not rewritten."""
    trial = Trial("kube-system", "unchanged")
    assert found(examine(evidence(healthy(), trial=trial))) == {"webhook-call": "warn"}


def test_a_replica_that_serves_from_another_ca() -> None:
    """Its Lease names the CA; one of the bundles' own is right."""
    objects = healthy()
    notes = one(objects, "Lease", "replica")["metadata"]["annotations"]
    notes[keys.SERVING_ISSUER] = "0" * 64
    assert found(examine(evidence(objects))) == {"ca-bundle": "fail"}
    text = one(objects, "MutatingWebhookConfiguration")["webhooks"][0]["clientConfig"]["caBundle"]
    pem = base64.b64decode(text).decode()
    notes[keys.SERVING_ISSUER] = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert found(examine(evidence(objects))) == {}
