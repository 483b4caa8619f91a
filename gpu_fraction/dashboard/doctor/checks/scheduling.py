"""Whether pods with shares are scheduled: the scheduler, its extender, leases, books."""

import shlex
from collections.abc import Iterator
from typing import Final

from gpu_fraction.dashboard.doctor.evidence import Evidence, ready
from gpu_fraction.dashboard.doctor.finding import Finding, fail
from gpu_fraction.domain import keys

SILENT_S: Final = 60.0
"""Chosen: kube-scheduler answers within milliseconds, and after a restart within seconds."""

EXTENDER: Final = ("127.0.0.1:9444", "extender")
"""How messages of kube-scheduler name the extender (deploy/scheduler/config.yaml)."""

LATE_FACTOR: Final = 4
"""Durations without a renewal. Chosen: leaders renew five times in one."""


def silent(found: Evidence) -> Iterator[Finding]:
    """26: pods wait and no scheduler has said a word."""
    waiting = [
        view
        for view in found.cluster.waiting
        if view.pod.spec.scheduler_name == keys.SCHEDULER
        and view.scheduled is None
        and not view.pod.spec.scheduling_gates
        and (found.age_s(view.pod.metadata.creation_timestamp) or 0) > SILENT_S
    ]
    able = [pod for pod in found.component("scheduler") if ready(pod)]
    fix = (
        f"kubectl -n {found.system} get pods -l app.kubernetes.io/component=scheduler\n"
        f"kubectl -n {found.system} logs -l app.kubernetes.io/component=scheduler -c "
        "kube-scheduler"
    )
    if waiting:
        one = waiting[0]
        yield fail(
            f"{len(waiting)} pods, such as {one.namespace}/{one.name}, have spec.schedulerName "
            f"{keys.SCHEDULER} and no condition PodScheduled; {len(able)} scheduler pods are "
            "ready",
            fix,
        )
    elif found.workload("scheduler") is not None and not able:
        yield fail(
            f"no pod of the scheduler is ready in namespace {found.system}",
            fix,
        )


def extender(found: Evidence) -> Iterator[Finding]:
    """27: kube-scheduler cannot reach the extender."""
    texts = [
        (f"Pod {view.namespace}/{view.name}: condition PodScheduled", view.scheduled.message)
        for view in found.cluster.waiting
        if view.scheduled is not None
    ]
    texts += [
        (str(event.involved_object), event.message) for event in found.about("FailedScheduling")
    ]
    for at, text in texts:
        if EXTENDER[0] in text or (EXTENDER[1] in text.lower() and "refused" in text.lower()):
            yield fail(
                f"{at}: {text[:200]}",
                f"kubectl -n {found.system} logs -l app.kubernetes.io/component=scheduler -c "
                "extender",
            )
            return


def leases(found: Evidence) -> Iterator[Finding]:
    """28: a Lease of ours is not renewed."""
    for lease in found.leases.items:
        spec, name = lease.spec, lease.metadata.name
        if not name.startswith("gpu-fraction") and "gpu-fraction" not in name:
            continue
        age_s = found.age_s(spec.renew_time)
        if age_s is None or "-replica-" in name or not spec.holder_identity:
            continue
        limit_s = LATE_FACTOR * (spec.lease_duration_seconds or 15)
        if age_s > limit_s:
            yield fail(
                f"Lease {found.system}/{name}: spec.renewTime is {age_s:.0f} s old, duration "
                f"{spec.lease_duration_seconds} s, holder {spec.holder_identity}",
                f"kubectl -n {found.system} get pods\nkubectl -n {found.system} logs "
                f"{shlex.quote(spec.holder_identity.split('_')[0])} --tail=50",
            )


def overdrawn(found: Evidence) -> Iterator[Finding]:
    """34: more of a card is given away than it has."""
    for view in found.cluster.cards:
        if view.overdrawn:
            kind = view.state.kind
            pods = sorted({f"{one.namespace}/{one.pod}" for one in view.slices})
            yield fail(
                f"Node {view.node}: card {view.card.uuid} has {kind.core_milli} milli and "
                f"{kind.memory_mib} MiB; given {view.given_core_milli} milli and "
                f"{view.given_memory_mib} MiB to {', '.join(pods[:5])}",
                "delete one of these pods; find who bound it past the extender:\nkubectl get "
                "pod -n "
                f"{view.slices[-1].namespace} {view.slices[-1].pod} -o yaml --show-managed-fields"
                if view.slices
                else "kubectl describe node " + view.node,
            )
