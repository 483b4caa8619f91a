"""The DaemonSet gives the daemon what its settings count on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain import dra
from gpu_fraction.node_daemon.isolation.cgroup_paths import ROOT
from gpu_fraction.node_daemon.settings import NodeDaemonSettings
from gpu_fraction.settings.declaration import options_of
from gpu_fraction.settings.option import ENV_PREFIX
from tests.support.settings import configured

DEPLOY = Path(__file__).parents[3] / "deploy"
BASE = DEPLOY / "node-daemon" / "daemonset.yaml"
HAMI = DEPLOY / "node-daemon-hami-core" / "manifests.yaml"
DRA = DEPLOY / "dra" / "node-daemon.yaml"


def pod(path: Path) -> dict[str, Any]:
    """The pod of a manifest."""
    (one,) = (m for m in YAML(typ="safe").load_all(path) if m["kind"] == "DaemonSet")
    return dict(one["spec"]["template"]["spec"])


def container(path: Path) -> dict[str, Any]:
    """Its only container."""
    (one,) = pod(path)["containers"]
    return dict(one)


def environment(path: Path) -> dict[str, str]:
    """What it is told; a reference counts as a word."""
    return {e["name"]: e.get("value", "node-1") for e in container(path)["env"]}


def settings(path: Path) -> NodeDaemonSettings:
    """As the daemon reads its environment."""
    return configured(NodeDaemonSettings, environment(path))


def mounts(path: Path) -> Iterator[tuple[Path, Path, bool]]:
    """Place in the container, place on the host, and whether it may be written."""
    hosts = {v["name"]: v["hostPath"]["path"] for v in pod(path)["volumes"]}
    for one in container(path)["volumeMounts"]:
        yield Path(one["mountPath"]), Path(hosts[one["name"]]), not one.get("readOnly")


@pytest.mark.parametrize(("path", "writable"), [(BASE, True), (HAMI, False)])
def test_every_folder_is_the_hosts_own(path: Path, *, writable: bool) -> None:
    """At the same place, because container runtime, kubelet and MPS go by the same names."""
    given = settings(path)
    shm = given.isolation.mps_shm_dir
    assert shm is not None
    needed = [
        *(given.paths.kubelet, given.paths.state, given.paths.cdi, given.paths.isolation),
        *(given.isolation.mps_dir, shm, ROOT),
    ]
    if not writable:
        needed = [*given.paths.host_cdi, given.isolation.hami_library_dir]
    there = list(mounts(path))
    assert all(inside == outside for inside, outside, _ in there)
    places = [inside for inside, _, rw in there if rw or not writable]
    for folder in needed:
        assert any(folder.is_relative_to(place) for place in places), folder


def test_a_process_that_it_starts_can_outlive_the_pod() -> None:
    """It needs the host's process ids and the right to leave, and is so configured."""
    assert settings(BASE).isolation.mps_start == "host"
    assert pod(BASE)["hostPID"] is True
    assert container(BASE)["securityContext"]["privileged"] is True


def test_nvidias_runtime_brings_the_driver_in() -> None:
    """NVML is of "utility", nvidia-cuda-mps-control of "compute" (NVIDIA container toolkit)."""
    told = environment(BASE)
    assert told["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(told["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}


@pytest.mark.parametrize("path", [BASE, HAMI, DRA])
def test_every_variable_of_ours_is_a_setting(path: Path) -> None:
    """A misspelt one would say nothing."""
    known = {option.variable for option in options_of(NodeDaemonSettings)}
    assert {k for k in environment(path) if k.startswith(ENV_PREFIX)} <= known


def test_hami_core_is_wanted_where_its_library_is_mounted() -> None:
    """And not elsewhere: by default no engine needs a file that a node may lack."""
    assert settings(HAMI).isolation.engines == ("cgroup", "hami-core")
    assert "hami-core" not in settings(BASE).isolation.engines


def test_dra_is_a_choice() -> None:
    """Unless it is chosen the daemon is a device plugin; both reach the kubelet's sockets."""
    assert settings(BASE).mode == "device-plugin"
    given = settings(DRA)
    assert given.mode == "dra"
    places = [inside for inside, _, writable in mounts(DRA) if writable]
    names = (given.paths.dra_socket, given.paths.registrar_socket)
    for socket in (name(given.pod_uid) for name in names):
        assert any(socket.is_relative_to(place) for place in places), socket


def test_a_second_daemon_starts_only_where_it_can_wait() -> None:
    """An update makes the next DRA driver first; a second device plugin would end at once."""
    base, patch = (YAML(typ="safe").load(path)["spec"] for path in (BASE, DRA))
    assert "updateStrategy" not in base
    assert not settings(BASE).pod_uid
    assert patch["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert settings(BASE, DRA).pod_uid


def test_the_classes_are_refused_by_servers_without_shared_devices() -> None:
    """Each names the field that came with them; the policy and the rights name our driver."""
    classes = list(YAML(typ="safe").load_all(DEPLOY / "dra" / "device-classes.yaml"))
    assert {one["metadata"]["name"] for one in classes} == {
        dra.FRACTION_CLASS,
        dra.WHOLE_CLASS,
        dra.MIG_CLASS,
    }
    for one in classes:
        (selector,) = one["spec"]["selectors"]
        expression = selector["cel"]["expression"]
        assert f"device.driver == '{dra.DRIVER}'" in expression
        assert "device.allowMultipleAllocations" in expression
