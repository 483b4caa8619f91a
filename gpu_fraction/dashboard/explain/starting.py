"""Why a pod that has a node does not run: steps 6 to 8."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from gpu_fraction.dashboard.explain.causes import Finding, found
from gpu_fraction.dashboard.explain.facts import Evidence, Facts
from gpu_fraction.dashboard.objects import ContainerStatus

DAEMON: Final = "gpu-fraction-node-daemon"
"""Who the daemon's Events are of."""

RUNTIME: Final = "ContainerRuntimeMayIgnoreCDI"
"""Reason of the daemon's Event on its Node."""

IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
"""Source: kubernetes pkg/kubelet/images/types.go."""

_OLD_CONTAINERD: Final = re.compile(r"containerd://v?(0|1)\.", re.ASCII)
_UNRESOLVABLE: Final = re.compile(r"CDI device", re.IGNORECASE)
"""Source: tags.cncf.io/container-device-interface, "unresolvable CDI devices"."""

CREATION: Final = frozenset({"CreateContainerError", "RunContainerError", "StartError"})


def kubelet_refused(facts: Facts) -> Iterator[Finding]:
    """The kubelet did not admit the pod to its node."""
    status = facts.pod.pod.status
    if facts.exists and status.phase == "Failed" and status.reason == "UnexpectedAdmissionError":
        told = status.message or "the kubelet could not allocate the pod's devices"
        yield found("kubelet-refused", told, facts.seen("status.reason", status.reason))


def not_prepared(facts: Facts) -> Iterator[Finding]:
    """The node daemon, or the driver of the pod's claims, does not hand the slice out."""
    if facts.pod.state != "starting":
        return
    for event in facts.events[::-1]:
        if event.reason == "FailedPrepareDynamicResources":
            seen = _event(facts, event.reason, event.message, event.at)
            yield found("claim-not-prepared", event.message, seen)
            return
        if event.writer == DAEMON and event.type == "Warning":
            seen = _event(facts, event.reason, event.message, event.at)
            yield found("slice-refused", f"{event.reason}: {event.message}", seen)
            return


def sandbox(facts: Facts) -> Iterator[Finding]:
    """The runtime makes no sandbox for the pod."""
    if facts.pod.state == "starting":
        for event in facts.told("FailedCreatePodSandBox"):
            seen = _event(facts, event.reason, event.message, event.at)
            yield found("sandbox-fails", event.message, seen)
            return


def containers(facts: Facts) -> Iterator[Finding]:
    """Containers that wait for something, or end again and again."""
    if facts.pod.state not in ("starting", "running"):
        return
    for status, path in _statuses(facts):
        waiting: dict[str, Any] = (status.state or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        told = f"container {status.name}: {reason}: {message or status.image}".strip(": ")
        seen = facts.seen(f"{path}[{status.name}].state.waiting", f"{reason} {message}".strip())
        if reason in IMAGE:
            yield found("image-missing", told, seen)
        elif reason in CREATION and _UNRESOLVABLE.search(message):
            yield found("cdi-unresolvable", told, seen)
        elif reason in CREATION or reason == "CrashLoopBackOff":
            yield found("container-fails", told, seen)


def cdi_off(facts: Facts) -> Iterator[Finding]:
    """The node's runtime may have ignored the slice, and nobody tells the pod."""
    pod = facts.pod
    ours = facts.backend in ("native", "dra")
    if not ours or pod.state not in ("starting", "running"):
        return
    node = next((n for n in facts.snapshot.nodes.items if n.metadata.name == pod.node), None)
    version = node.status.node_info.container_runtime_version if node else ""
    event = next((one for one in facts.node_events[::-1] if one.reason == RUNTIME), None)
    if event is None and not _OLD_CONTAINERD.match(version):
        return
    seen = []
    if version:
        where = "status.nodeInfo.containerRuntimeVersion"
        seen.append(Evidence(f"Node {pod.node}", where, version))
    if event is not None:
        seen.append(Evidence(f"Node {pod.node}", f"Event {RUNTIME}", event.message, event.at))
    told = "the container may run without its slice: its runtime reads CDI files only if told to"
    yield found("cdi-off", told, *seen)


def ended(facts: Facts) -> Iterator[Finding]:
    """The pod has failed."""
    status = facts.pod.pod.status
    if not facts.exists or status.phase != "Failed" or status.reason == "UnexpectedAdmissionError":
        return
    seen = [facts.seen("status.phase", f"Failed {status.reason} {status.message}".strip())]
    told = status.message or status.reason
    for one, path in _statuses(facts):
        end: dict[str, Any] = (one.state or {}).get("terminated") or {}
        if end.get("exitCode"):
            text = f"exit code {end['exitCode']} {end.get('reason') or ''}".strip()
            told = told or f"container {one.name}: {text}"
            where = f"{path}[{one.name}].state.terminated"
            seen.append(facts.seen(where, text, str(end.get("finishedAt") or "")))
    yield found("ended-badly", told or "the pod has failed", *seen)


def _statuses(facts: Facts) -> Iterator[tuple[ContainerStatus, str]]:
    status = facts.pod.pod.status
    for one in status.init_container_statuses or ():
        yield one, "status.initContainerStatuses"
    for one in status.container_statuses or ():
        yield one, "status.containerStatuses"


def _event(facts: Facts, reason: str, message: str, at: str) -> Evidence:
    return Evidence(facts.subject, f"Event {reason}", message, at)


RULES: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    kubelet_refused,
    not_prepared,
    sandbox,
    containers,
    cdi_off,
    ended,
)
