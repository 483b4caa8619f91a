"""Configuration files of containerd, the network plugins and the kubelet."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.images import PAUSE_IMAGE
from tests.cluster.harness.leftovers import cgroup_name
from tests.cluster.harness.options import NodeOptions
from tests.cluster.harness.pki import Authority
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.run_directory import RunDirectory

KUBELET_ROOT = "/var/lib/kubelet"
"""Where the kubelet's files lie in the node's mount namespace: the place that is built into device
plugins. Source: kubernetes deviceplugin/v1beta1/constants.go, ``DevicePluginPath``."""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where a node's files lie.

    Attributes:
        run: the run it belongs to.
        index: distinguishes the run's nodes.
    """

    run: RunDirectory
    index: int

    @property
    def folder(self) -> Path:
        """Its own folder."""
        return self.run.folder(f"node{self.index}")

    @property
    def name(self) -> str:
        """The node's name: an address, so that the API server finds the kubelet without DNS."""
        return self.run.node_address(self.index)

    @property
    def cgroup(self) -> str:
        """The control group above its pods."""
        return f"{cgroup_name(self.run.path)}/node{self.index}"

    @property
    def containerd_socket(self) -> Path:
        """The runtime's socket."""
        return self.folder / "containerd.sock"

    @property
    def cdi_dir(self) -> Path:
        """Where containerd looks for CDI specifications."""
        return self.folder / "cdi"


def containerd_toml(place: NodePlace, binaries: Binaries) -> str:
    """Containerd's configuration, in the version that 2.x writes. CDI is on by default."""
    folder = place.folder
    images = "plugins.'io.containerd.cri.v1.images'"
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    return f"""
version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{place.containerd_socket}"
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/containerd/opt"
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "{place.name}"
[{images}]
  snapshotter = "{_snapshotter(folder)}"
  [{images}.pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[{runtime}]
  # Without CAP_SYS_RESOURCE no sandbox starts otherwise.
  restrict_oom_score_adj = true
  cdi_spec_dirs = ["{place.cdi_dir}"]
  netns_mounts_under_state_dir = true
  [{runtime}.cni]
    bin_dirs = ["{binaries.cni_folder}"]
    conf_dir = "{folder}/cni"
  [{runtime}.containerd]
    default_runtime_name = "runc"
    [{runtime}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{runtime}.containerd.runtimes.runc.options]
        BinaryName = "{binaries["runc"]}"
        SystemdCgroup = false
"""


def cni_conflist(place: NodePlace) -> dict[str, Any]:
    """A pod network that reaches the host; the addresses below 32 are left to Services."""
    subnet = place.run.pod_subnet(place.index)
    ipam = {
        "type": "host-local",
        "dataDir": f"{place.folder}/cni-addresses",
        "ranges": [[{"subnet": subnet, "rangeStart": subnet.replace(".0/24", ".32")}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "0.4.0",
        "name": f"gpu-fraction-{place.run.run_id}-{place.index}",
        "plugins": [{"type": "ptp", "ipMasq": False, "mtu": 1400, "ipam": ipam}],
    }


def kubelet_config(place: NodePlace, authority: Authority, options: NodeOptions) -> dict[str, Any]:
    """KubeletConfiguration v1beta1."""
    certificate, key = authority.issue(f"kubelet{place.index}", place.name, hosts=[place.name])
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.name,
        "port": free_port(place.name),
        "healthzBindAddress": place.name,
        "healthzPort": free_port(place.name),
        "readOnlyPort": 0,
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.cgroup}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "volumePluginDir": f"{KUBELET_ROOT}/volume-plugins",
        "resolvConf": str(_resolv_conf(place.folder)),
        "clusterDNS": ["10.96.0.10"],  # nobody is there; without one each pod has a Warning
        # A full disk of the machine is no matter of the tests.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "2s",
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "failCgroupV1": False,  # the machine's hierarchy is no matter of the tests either
        "containerRuntimeEndpoint": f"unix://{place.containerd_socket}",
        **options.kubelet_config,
    }


def kubelet_argv(place: NodePlace, kubeconfig: Path, options: NodeOptions) -> list[str]:
    """The kubelet's flags."""
    flags = {
        "config": f"{place.folder}/kubelet.json",
        "kubeconfig": str(kubeconfig),
        "root-dir": KUBELET_ROOT,
        "cert-dir": f"{KUBELET_ROOT}/pki",
        "hostname-override": place.name,
    }
    if options.labels:
        flags["node-labels"] = ",".join(f"{key}={value}" for key, value in options.labels.items())
    flags |= options.kubelet_flags
    return [f"--{name}={value}" for name, value in flags.items()]


def write_files(place: NodePlace, binaries: Binaries) -> None:
    """Writes what containerd and the network plugins read."""
    place.cdi_dir.mkdir()
    (place.folder / "cni").mkdir()
    conflist = json.dumps(cni_conflist(place), indent=1)
    (place.folder / "cni" / "10-pods.conflist").write_text(conflist)
    (place.folder / "containerd.toml").write_text(containerd_toml(place, binaries))


def _resolv_conf(folder: Path) -> Path:
    """Pods look names up nowhere; the machine's own file may be missing or strange."""
    path = folder / "resolv.conf"
    path.write_text("")
    return path


def _snapshotter(folder: Path) -> str:
    """Overlayfs cannot lie on overlayfs, as it would inside a container."""
    kinds = {0: ""}  # in a changed root not even "/" is listed
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if folder.is_relative_to(point):
            kinds[len(point)] = kind  # the longest mount point holds the folder
    return "native" if kinds[max(kinds)] == "overlay" else "overlayfs"
