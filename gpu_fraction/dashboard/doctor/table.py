"""Every check, in the order in which layers depend on each other."""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.dashboard.doctor.checks import (
    calls,
    contents,
    drivers,
    nodes,
    rights,
    scheduling,
    server,
    webhooks,
)
from gpu_fraction.dashboard.doctor.evidence import Evidence
from gpu_fraction.dashboard.doctor.finding import Check, Finding, Result
from gpu_fraction.dashboard.doctor.parts import FORBIDDEN
from gpu_fraction.dashboard.snapshot import Gap

_HOOKS: Final = ("mutating", "validating")
_BACKENDS: Final = (*_HOOKS, "services", "endpoints")


def _orphans_only(found: Evidence) -> Iterable[Finding]:
    return webhooks.orphans(found)


CHECKS: Final = (
    # The server.
    Check(
        1, "server-version", "Kubernetes is older than 1.34",
        "our webhooks and manifests use what older servers do not have",
        server.version, ("version",), before=True,
    ),
    Check(
        40, "clocks", "The clocks differ",
        "certificates and leases are judged by clocks",
        server.clock, before=True,
    ),
    Check(
        30, "crd", "CustomResourceDefinition gpuquotas.gpu-fraction.dev is not served",
        "GPUQuotas cannot be read, and an old schema drops new fields",
        server.crd, ("crds",),
    ),
    Check(
        21, "equal-versions", "Parts of different versions run",
        "parts agree on annotations within one version",
        server.equal_versions, ("pods",),
    ),
    # The webhook.
    Check(
        3, "webhook-installed", "No webhook configuration of gpu-fraction exists",
        "without it no pod gets a share; alone it refuses every GPU pod",
        webhooks.installed, (*_HOOKS, "services"), before=True,
    ),
    Check(
        2, "match-conditions", "matchConditions is empty",
        "a webhook that is down would stop every pod of the cluster",
        webhooks.conditions_stored, _HOOKS,
    ),
    Check(
        4, "webhook-endpoints", "no endpoints available for service",
        "GPU pods are refused while no replica answers",
        webhooks.endpoints, _BACKENDS,
    ),
    Check(
        5, "ca-bundle", "x509: certificate signed by unknown authority",
        "the API server does not trust the webhook, and refuses GPU pods",
        calls.bundles, _HOOKS,
    ),
    Check(
        8, "certificate-expiry", "A certificate ends soon",
        "after its end GPU pods are refused",
        calls.expiry, (*_HOOKS, "leases"),
    ),
    Check(
        6, "webhook-call", calls.UNKNOWN,
        "this is what every GPU pod meets",
        calls.works, ("trials",),
    ),
    Check(
        7, "control-plane-network", "failed calling webhook: context deadline exceeded",
        "the control plane of this cloud does not reach pods on every port",
        calls.network, ("trials", "version"),
    ),
    Check(
        43, "proxy", "failed calling webhook: EOF",
        "a proxy cannot carry the call",
        calls.proxied, ("trials",),
    ),
    Check(
        9, "webhook-as-shipped", "A webhook configuration was changed",
        "what is left out gets past shares and quotas",
        webhooks.shipped, _HOOKS,
    ),
    Check(
        10, "other-webhooks", "Another webhook stops or rewrites pods",
        "pods pass every webhook, and two that rewrite them can undo each other",
        webhooks.others, _BACKENDS, before=True,
    ),
    # What the cluster allows.
    Check(
        22, "pod-security", "The node daemon violates PodSecurity",
        "the node daemon is privileged; without it no slice starts",
        rights.pod_security, ("namespaces", "events"), before=True,
    ),
    Check(
        23, "openshift", "unable to validate against any security context constraint",
        "the node daemon is privileged; without it no slice starts",
        rights.openshift, ("groups", "rights"), before=True,
    ),
    Check(
        24, "priority-quota", "insufficient quota to match these scopes",
        "pods of critical priority classes are created only where a quota names the class",
        rights.priority_quota, ("events",), before=True,
    ),
    Check(
        29, "rights", "An account lacks a right",
        "a program without its rights stops, or works with old data",
        rights.accounts, ("rights",),
    ),
    Check(
        41, "disruption-budget", "A drain would wait for ever",
        "nodes cannot be drained for an upgrade",
        rights.budgets, ("budgets",),
    ),
    # Nodes.
    Check(
        14, "unlabelled-nodes", "A node with GPUs has no label",
        "the node daemon runs on labelled nodes only",
        nodes.unlabelled, ("nodes", "daemon_sets"), before=True,
    ),
    Check(
        13, "taints", "The node daemon does not tolerate a taint",
        "the node's cards are not offered",
        nodes.taints, ("nodes", "daemon_sets"), before=True,
    ),
    Check(
        12, "daemon-pods", "A node with GPUs has no node daemon",
        "the node's cards are not offered",
        nodes.without_daemon, ("nodes", "pods", "daemon_sets"),
    ),
    Check(
        11, "second-device-plugin", "Two device plugins offer the same cards",
        "two pods get the same memory, and both fail",
        nodes.second_plugin, ("nodes", "daemon_sets"), before=True,
    ),
    Check(
        15, "runtime-class", "no runtime for is configured",
        "pods that name it do not start",
        drivers.runtime_class, ("runtime_classes", "events", "daemon_sets"), before=True,
    ),
    Check(
        16, "cdi", "The container runtime does not read CDI files",
        "a runtime without CDI starts containers without their cards",
        drivers.cdi, ("nodes", "events"), before=True,
    ),
    Check(
        17, "driver", "The driver does not answer",
        "without NVML no card is known",
        drivers.driver, ("nodes", "pods"),
    ),
    Check(
        18, "old-driver", "The driver is too old for the engine",
        "shares are books only: a program can take the whole card",
        drivers.old_driver, ("nodes", "daemon_sets"), before=True,
    ),
    Check(
        39, "kubelet-root", "The daemon is not registered with the kubelet",
        "the node offers no slot",
        drivers.kubelet_root, ("nodes", "pods", "daemon_sets"),
    ),
    Check(
        19, "offered-amounts", "A node offers other amounts than it has",
        "pods wait for room that is there, or are placed where there is none",
        nodes.offered, ("nodes", "devices"),
    ),
    Check(
        20, "sick-cards", "A card is not healthy",
        "no new pod is placed on it",
        nodes.sick, ("nodes",),
    ),
    # Scheduling.
    Check(
        25, "scheduler-version", "kube-scheduler has another version than the server",
        "its configuration and its API calls follow its version",
        server.scheduler_minor, ("version", "deployments"), before=True,
    ),
    Check(
        26, "scheduler-silent", "Nobody schedules GPU pods",
        "pods wait without a word",
        scheduling.silent, ("pods",),
    ),
    Check(
        27, "extender", "The extender cannot be reached",
        "GPU pods wait, because only the extender knows cards",
        scheduling.extender, ("pods", "events"),
    ),
    Check(
        28, "leases", "A lease is not renewed",
        "nobody counts quotas, rotates certificates or schedules",
        scheduling.leases, ("leases",),
    ),
    Check(
        34, "overdrawn", "A card is given away twice",
        "programs on it run out of memory",
        scheduling.overdrawn, ("nodes", "pods"),
    ),
    Check(
        38, "isolation", "Nobody offers the isolation that pods require",
        "such pods wait for ever",
        drivers.required, ("nodes", "pods"),
    ),
    # Contents.
    Check(
        32, "quotas", "A GPUQuota is not Ready",
        "pods of its namespace are refused, or not counted",
        contents.quotas, ("quotas",),
    ),
    Check(
        33, "reservations", "A reservation has expired",
        "room that nobody uses stays taken",
        contents.reservations, ("quotas", "pods"),
    ),
    Check(
        31, "leftovers", "Something is Terminating for long",
        "an installation over it fails",
        contents.leftovers, ("namespaces", "crds", "pods"),
    ),
    Check(
        35, "never-rewritten", "A pod was never rewritten",
        "it gets no share, and runs without a GPU or waits",
        contents.never_rewritten, ("pods",),
    ),
    Check(
        36, "unexpected-admission-error", "Pods stay Failed with UnexpectedAdmissionError",
        "the kubelet refused it for good; it holds its name and counts in no quota",
        contents.failed_admission, ("pods",),
    ),
    Check(
        37, "past-us", "Pods see all GPUs without asking",
        "they use memory that slices were promised",
        contents.past_us, ("nodes", "pods"),
    ),
)  # fmt: skip
"""Numbers are stable. There is no 42: it was about servers before 1.28, which 1 refuses."""


def examine(found: Evidence, *, before: bool = False) -> tuple[Result, ...]:
    """The result of every check.

    Args:
        found: What was read.
        before: Only what makes sense before the installation.
    """
    return tuple(
        _result(check, found, before=before) for check in CHECKS if check.before or not before
    )


def _reason(gap: Gap) -> str:
    """Why a part is missing; the server's own words also name verb and resource."""
    forbidden = gap.why == "forbidden" and not gap.text.startswith(FORBIDDEN)
    return f"{FORBIDDEN}{gap.text}" if forbidden else gap.text


def _result(check: Check, found: Evidence, *, before: bool) -> Result:
    for name in check.needs:
        gap = found.gap(name)
        if gap is not None:
            return Result(check, skipped=_reason(gap))
    find = _orphans_only if before and check.number == 3 else check.find
    findings = sorted(find(found), key=lambda one: one.level)  # "fail" sorts before "warn"
    return Result(check, tuple(findings))
