"""The API server, its clock, and the versions of what is installed."""

import re
from collections.abc import Iterator
from typing import Final

from gpu_fraction.dashboard.doctor.evidence import Evidence
from gpu_fraction.dashboard.doctor.finding import Finding, fail, warn
from gpu_fraction.dashboard.doctor.reading import CRD
from gpu_fraction.domain import dra, keys
from gpu_fraction.kube.access import VERSION
from gpu_fraction.kube.resources import GPU_QUOTAS
from gpu_fraction.kube.server_version import NEWEST, OLDEST

OLDEST_DRA: Final = (1, 36)
"""Source: docs/dra.md."""

SKEW_WARN_S: Final = 60.0
"""Chosen: above the second that the header lacks and any time of an answer."""

SKEW_FAIL_S: Final = 1800.0
"""Chosen: half of the hour by which certificates are backdated (docs/certificates.md)."""

_RELEASE: Final = re.compile(r"^v?(\d+)\.(\d+)")
_TAG: Final = re.compile(r":v?(\d+)\.(\d+)[^:/@]*(?:@.*)?$")


def version(found: Evidence) -> Iterator[Finding]:
    """1: the server is old enough for nothing, or newer than what was tested."""
    server = release(found)
    if server is None:
        return
    text = ".".join(map(str, server))
    supported = f"supported: {'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    if server < OLDEST:
        yield fail(f"GET /version: Kubernetes {text}; {supported}", "upgrade the cluster")
    elif server > NEWEST:
        yield warn(f"GET /version: Kubernetes {text}, which was not tested; {supported}", "none")
    daemon = found.workload("node-daemon")
    if daemon is not None and daemon.setting("mode") == "dra" and server < OLDEST_DRA:
        yield fail(
            f"GET /version: Kubernetes {text}, and the node daemon runs with --mode=dra; "
            f"{dra.DRIVER} needs {'.'.join(map(str, OLDEST_DRA))}",
            "upgrade the cluster, or use the backend native (docs/installation.md)",
        )


def clock(found: Evidence) -> Iterator[Finding]:
    """40: this machine's clock and the server's differ."""
    skew_s = found.skew_s
    if skew_s is None or abs(skew_s) < SKEW_WARN_S:
        return
    side = "ahead of" if skew_s > 0 else "behind"
    seen = f"this machine's clock is {abs(skew_s):.0f} s {side} the API server's (header Date)"
    fix = "timedatectl set-ntp true     # on the machine whose clock is wrong"
    yield (fail if abs(skew_s) >= SKEW_FAIL_S else warn)(seen, fix)


def scheduler_minor(found: Evidence) -> Iterator[Finding]:
    """25: kube-scheduler is of another minor version than the server."""
    server, scheduler = release(found), found.workload("scheduler")
    if server is None or scheduler is None:
        return
    for container in scheduler.containers:
        if container.name != "kube-scheduler":
            continue
        match = _TAG.search(container.image)
        if match is None:
            text = (
                f"Deployment {scheduler.metadata.name}: image {container.image} names no version"
            )
        elif (tag := (int(match[1]), int(match[2]))) == server:
            return
        else:
            text = (
                f"Deployment {scheduler.metadata.name}: kube-scheduler {tag[0]}.{tag[1]}, "
                f"API server {server[0]}.{server[1]}"
            )
        yield warn(
            text,
            f"kubectl -n {found.system} set image deployment/{scheduler.metadata.name} "
            f"kube-scheduler=registry.k8s.io/kube-scheduler:{plain_release(found)}",
        )


def equal_versions(found: Evidence) -> Iterator[Finding]:
    """21: our pods run different images."""
    images: dict[str, list[str]] = {}
    for one in found.own_pods:
        for status in one.status.container_statuses or ():
            if status.name != "kube-scheduler" and not one.finished:
                images.setdefault(status.image_id or status.image, []).append(one.metadata.name)
    if len(images) < 2:
        return
    listed = "; ".join(
        f"{image}: {len(pods)} pods, such as {pods[0]}" for image, pods in images.items()
    )
    yield warn(
        f"status.containerStatuses[].imageID differs in namespace {found.system}: {listed}",
        f"kubectl -n {found.system} rollout status deployment,daemonset",
    )


def crd(found: Evidence) -> Iterator[Finding]:
    """30: GPUQuota is missing, not served, or of another version."""
    if not found.crds.items:
        yield fail(
            f"CustomResourceDefinition {CRD} does not exist",
            "kubectl apply --server-side -f deploy/crd/gpuquotas.yaml",
        )
        return
    (one,) = found.crds.items[:1]
    served = [v.name for v in one.spec.versions or () if v.served]
    if GPU_QUOTAS.version not in served:
        yield fail(
            f"CustomResourceDefinition {CRD}: served versions {served}, this program reads "
            f"{GPU_QUOTAS.version}",
            "kubectl apply --server-side --force-conflicts -f deploy/crd/gpuquotas.yaml",
        )
    for condition in one.status.conditions or ():
        if condition.type in {"Established", "NamesAccepted"} and condition.status != "True":
            yield fail(
                f"CustomResourceDefinition {CRD}: condition {condition.type} is "
                f"{condition.status}: {condition.message}",
                f"kubectl describe crd {CRD}",
            )
    written = (one.metadata.annotations or {}).get(SCHEMA_VERSION)
    if written is not None and written != VERSION:
        yield warn(
            f"CustomResourceDefinition {CRD}: annotation {SCHEMA_VERSION} is {written}, this "
            f"program is {VERSION}",
            "kubectl apply --server-side --force-conflicts -f deploy/crd/gpuquotas.yaml",
        )


SCHEMA_VERSION: Final = keys.PREFIX + "schema-version"
"""Annotation of the CustomResourceDefinition, where the installation sets it."""


def release(found: Evidence) -> tuple[int, int] | None:
    """Major and minor of the server; managed clusters write "36+"."""
    for one in found.version.items:
        match = _RELEASE.match(one.git_version) or _RELEASE.match(f"{one.major}.{one.minor}")
        if match is not None:
            return int(match[1]), int(match[2])
    return None


def plain_release(found: Evidence) -> str:
    """The server's release without a suffix: the tag of kube-scheduler's image."""
    text = found.version.items[0].git_version if found.version.items else ""
    match = re.match(r"v\d+\.\d+\.\d+", text)
    return match[0] if match else "vX.Y.Z"


def git_version(found: Evidence) -> str:
    """The server's version with its suffix, such as ``v1.36.2+k3s1``."""
    return found.version.items[0].git_version if found.version.items else ""
