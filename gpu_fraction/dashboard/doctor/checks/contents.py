"""What lies in the cluster: budgets, leftovers, and pods that got past us."""

from collections.abc import Iterator
from typing import Final

from gpu_fraction.dashboard.doctor.evidence import Evidence, moment
from gpu_fraction.dashboard.doctor.finding import Finding, fail, warn
from gpu_fraction.dashboard.pods import PodView
from gpu_fraction.domain import keys

STUCK_S: Final = 600.0
"""Chosen: above every grace period of ours (120 s), with room for a slow node."""

LISTED: Final = 3
"""Chosen: examples that show the pattern; the number says the rest."""

LEFT_TO: Final = frozenset({"kai-scheduler"})
"""Schedulers whose pods are not ours by default (settings left_to_schedulers)."""


def leftovers(found: Evidence) -> Iterator[Finding]:
    """31: something of ours is being deleted and does not go."""
    stuck = [
        (f"Namespace {n.metadata.name}", n.metadata, n.metadata.finalizers)
        for n in found.namespaces.items
        if n.metadata.name == found.system
    ]
    stuck += [
        (f"CustomResourceDefinition {c.metadata.name}", c.metadata, c.metadata.finalizers)
        for c in found.crds.items
    ]
    plain = [(f"Pod {p.metadata.namespace}/{p.metadata.name}", p.metadata) for p in found.own_pods]
    plain += [
        (f"GPUQuota {q.metadata.namespace}/{q.metadata.name}", q.metadata)
        for q in found.snapshot.quotas.items
    ]
    for name, metadata, finalizers in (*stuck, *((n, m, None) for n, m in plain)):
        age_s = found.age_s(metadata.deletion_timestamp)
        if age_s is not None and age_s > STUCK_S:
            held = f", held by finalizers {', '.join(finalizers)}" if finalizers else ""
            kind, at = name.split(" ")
            where = f"-n {metadata.namespace} " if metadata.namespace else ""
            yield warn(
                f"{name}: metadata.deletionTimestamp is {age_s / 60:.0f} min old{held}",
                f"kubectl {where}get {kind.lower()} {at.split('/')[-1]} -o "
                f"jsonpath='{{.metadata.finalizers}}"
                "{.status.conditions}'",
            )


def quotas(found: Evidence) -> Iterator[Finding]:
    """32: a GPUQuota is not counted, or exceeded."""
    for quota in found.cluster.quotas:
        name = f"GPUQuota {quota.namespace}/{quota.name}"
        see = f"kubectl -n {quota.namespace} describe gpuquota {quota.name}"
        by = {one.type: one for one in quota.conditions}
        ready, exceeded = by.get("Ready"), by.get("Exceeded")
        if ready is not None and ready.status != "True":
            yield fail(f"{name}: condition Ready is {ready.status}: {ready.message}", see)
        elif not quota.counted:
            yield warn(f"{name}: status.used does not count this version of spec", see)
        if exceeded is not None and exceeded.status == "True":
            yield warn(f"{name}: condition Exceeded is True: {exceeded.message}", see)
        for problem in quota.problems:
            yield warn(f"{name}: {problem}", see)


def reservations(found: Evidence) -> Iterator[Finding]:
    """33: a reservation has expired and is still there."""
    live = {pod.metadata.uid for pod in found.snapshot.pods.items}
    for quota in found.cluster.quotas:
        for one in quota.reserved:
            end = moment(one.expires)
            late_s = (found.at - end).total_seconds() if end else 0.0
            if late_s > STUCK_S and one.uid not in live:
                yield warn(
                    f"GPUQuota {quota.namespace}/{quota.name}: status.reserved of pod "
                    f"{one.name or one.uid} "
                    f"expired {late_s / 60:.0f} min ago and no pod has that UID: nobody counts",
                    f"kubectl -n {found.system} logs -l app.kubernetes.io/component=controller "
                    "--tail=50",
                )
                break


def never_rewritten(found: Evidence) -> Iterator[Finding]:
    """35: pods with an annotation of ours that the webhook never saw."""
    missed = [
        view
        for view in found.cluster.pods
        if _asks(view)
        and keys.REQUEST not in view.pod.annotations
        and not view.pod.finished
        and view.pod.spec.scheduler_name not in LEFT_TO
    ]
    if missed:
        where = sorted({view.namespace for view in missed})
        yield warn(
            f"{len(missed)} pods carry an annotation of gpu-fraction and not {keys.REQUEST}, "
            "such as "
            f"{_some(missed)}: their namespaces ({', '.join(where[:LISTED])}) are excluded, or "
            "they were "
            "created while the webhook was off",
            f"kubectl get namespace {' '.join(where[:LISTED])} --show-labels\nkubectl -n "
            f"{missed[0].namespace} delete pod {missed[0].name}     # its owner makes a new one",
        )


def _asks(view: PodView) -> bool:
    return any(
        key in {keys.FRACTION, keys.MEMORY, keys.CORES} or key.startswith(keys.CONTAINER_PREFIX)
        for key in view.pod.annotations
    )


def failed_admission(found: Evidence) -> Iterator[Finding]:
    """36: pods that the kubelet refused stay as Failed."""
    failed = [
        view
        for view in found.cluster.pods
        if view.pod.status.phase == "Failed"
        and view.pod.status.reason == "UnexpectedAdmissionError"
    ]
    if failed:
        one = failed[0]
        yield warn(
            f"{len(failed)} pods have status.reason UnexpectedAdmissionError, such as "
            f"{_some(failed)}: "
            f"{one.pod.status.message[:160]}",
            f"kubectl -n {one.namespace} delete pod {one.name}     # its owner makes a new one",
        )


def past_us(found: Evidence) -> Iterator[Finding]:
    """37: pods on nodes with our cards see every GPU without asking for one.

    DaemonSets are left out: those on GPU nodes are a vendor's tools.
    """
    nodes = {view.name for view in found.native_nodes}
    system = {found.system, "kube-system"}
    seen = [
        pod
        for pod in found.snapshot.pods.items
        if pod.past_us
        and not pod.finished
        and pod.spec.node_name in nodes
        and pod.metadata.namespace not in system
        and (pod.metadata.owner is None or pod.metadata.owner.kind != "DaemonSet")
    ]
    if seen:
        names = [f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in seen]
        yield warn(
            f"{len(seen)} pods on nodes with our cards are privileged or set "
            "NVIDIA_VISIBLE_DEVICES "
            f"without asking for a GPU, such as {', '.join(names[:LISTED])}",
            "enforce Pod Security baseline in their namespaces, and set "
            "accept-nvidia-visible-devices-envvar-when-unprivileged = false on the nodes "
            "(docs/limits.md)",
        )


def _some(views: list[PodView]) -> str:
    return ", ".join(f"{view.namespace}/{view.name}" for view in views[:LISTED])
