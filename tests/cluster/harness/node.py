"""One real node: containerd and a kubelet, in a mount namespace of their own.

The namespace keeps the node out of the machine's way. Folders that programs have built in, such as
``/var/lib/kubelet`` and ``/var/log``, are the run's own in it, so two nodes do not meet; kernel
settings that the kubelet and the network plugin write are plain files in it; and its mounts are
gone with its last process, however that ends.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.binaries import NODE
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.images import write_busybox_archive
from tests.cluster.harness.kubeconfig import Access
from tests.cluster.harness.leftovers import cgroup_hierarchies
from tests.cluster.harness.node_config import (
    KUBELET_ROOT,
    NodePlace,
    kubelet_argv,
    kubelet_config,
    write_files,
)
from tests.cluster.harness.options import NodeOptions
from tests.cluster.harness.process import Process

_READY_TIMEOUT_S = 60
_IMPORT_TIMEOUT_S = 60

_OWN_FOLDERS = {
    "kubelet": KUBELET_ROOT,
    "log": "/var/log",
    "cni-state": "/var/lib/cni",
    "containerd-run": "/run/containerd",
    "cdi": "/var/run/cdi",
    "etc-cdi": "/etc/cdi",
    "gpu-fraction-state": "/var/lib/gpu-fraction",
    "gpu-fraction-run": "/run/gpu-fraction",
}
"""The node's folders and where its programs see them: also the host paths of the node daemon."""

_KERNEL_SETTINGS = (
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""Written by the ptp plugin (the first) and the kubelet (the others, setupKernelTunables)."""

_ENTER = """
set -e
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
mount --make-rshared /
touch "$READY"
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that the tests own.

    Attributes:
        plane: its control plane.
        place: its files.
        holder: keeps the mount namespace.
        containerd: may be stopped, killed and started again, as the following.
        kubelet: ``wait_ready`` after a start.
    """

    plane: ControlPlane
    place: NodePlace
    holder: Process
    containerd: Process
    kubelet: Process

    @property
    def name(self) -> str:
        """The Node object's name."""
        return self.place.name

    @property
    def kubelet_dir(self) -> Path:
        """The kubelet's root folder, as the tests see it."""
        return self.place.folder / "kubelet"

    @property
    def device_plugin_dir(self) -> Path:
        """Where device plugins put their sockets; the kubelet's is ``kubelet.sock``."""
        return self.kubelet_dir / "device-plugins"

    @property
    def pod_resources_socket(self) -> Path:
        """The kubelet's PodResources socket."""
        return self.kubelet_dir / "pod-resources" / "kubelet.sock"

    @property
    def cdi_dir(self) -> Path:
        """Where containerd looks for CDI specifications."""
        return self.place.cdi_dir

    def inside(self, *words: str | Path) -> list[str | Path]:
        """A command that sees the node's mounts, such as its pods' volumes."""
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--", *words]

    def ctr(self, *words: str | Path) -> str:
        """Runs containerd's ``ctr`` in the kubelet's namespace; returns what it prints."""
        ctr = self.plane.binaries["ctr"]
        options = [f"--address={self.place.containerd_socket}", "--namespace=k8s.io"]
        return subprocess.check_output(
            [str(word) for word in self.inside(ctr, *options, *words)],
            text=True,
            env=self.plane.run.environment(),
            timeout=_IMPORT_TIMEOUT_S,
        )

    def import_image(self, archive: Path) -> None:
        """Gives containerd the images of an archive: Docker's, or an OCI layout in a tar."""
        self.ctr("images", "import", archive)

    def wait_ready(self) -> None:
        """Waits until the Node object is Ready.

        Raises:
            ComponentError: the kubelet ended, or it is not ready in time.
        """
        path = '{.status.conditions[?(@.type=="Ready")].status}'

        def ready() -> bool:
            look = ("get", "node", self.name, "-o", f"jsonpath={path}")
            return self.plane.kubectl.run(*look).stdout == "True"

        self.kubelet.wait_until(ready, _READY_TIMEOUT_S, "Ready")

    def start(self) -> None:
        """Starts containerd, gives it the images, starts the kubelet, waits until it is Ready."""
        ready = self.place.folder / "namespace-ready"
        self.holder.start()
        self.holder.wait_until(ready.exists, _READY_TIMEOUT_S, "set up")
        self.containerd.argv = self.inside(*self.containerd.argv)
        self.kubelet.argv = self.inside(*self.kubelet.argv)
        self.containerd.start()
        socket = self.place.containerd_socket
        self.containerd.wait_until(socket.exists, _READY_TIMEOUT_S, "listening")
        archive = self.place.folder / "images.tar"
        write_busybox_archive(self.plane.binaries["busybox"], archive)
        self.import_image(archive)
        self.kubelet.start()
        self.wait_ready()

    def kill(self) -> None:
        """Ends the components at once; containers end with the run."""
        for process in (self.kubelet, self.containerd, self.holder):
            process.kill()


@contextlib.contextmanager
def running_node(
    plane: ControlPlane, options: NodeOptions | None = None, index: int = 0
) -> Iterator[Node]:
    """A node of a control plane. What it leaves is removed with the control plane's run.

    Args:
        plane: its control plane.
        options: how it differs from the usual one.
        index: another for each node of one control plane, from 0 to 63.

    Raises:
        MissingBinariesError: a program is not on this machine.
        ComponentError: a component did not start.
    """
    plane.binaries.require(NODE)
    node = _prepare(plane, options or NodeOptions(), index)
    try:
        node.start()
        yield node
    finally:
        node.kill()


def _prepare(plane: ControlPlane, options: NodeOptions, index: int) -> Node:
    """Configuration and command lines; nothing runs yet."""
    place, binaries = NodePlace(plane.run, index), plane.binaries
    write_files(place, binaries)
    config = kubelet_config(place, plane.authority, options)
    (place.folder / "kubelet.json").write_text(json.dumps(config, indent=1))
    stem = f"node{index}"
    certificate, key = plane.authority.issue(stem, f"system:node:{place.name}", ["system:nodes"])
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    access = Access(plane.access.server, plane.access.authority, user)
    kubeconfig = access.write(plane.folder / stem)
    _make_cgroups(place)
    programs = {binaries[name].parent for name in ("containerd-shim-runc-v2", "runc")}
    search = os.pathsep.join([*map(str, programs), os.environ.get("PATH", os.defpath)])
    holder_env = {"READY": str(place.folder / "namespace-ready")}
    return Node(
        plane,
        place,
        plane.process(f"{stem}-namespace", _holder_argv(place), **holder_env),
        plane.process(
            f"{stem}-containerd",
            [binaries["containerd"], "--config", place.folder / "containerd.toml"],
            PATH=search,
        ),
        plane.process(
            f"{stem}-kubelet",
            [binaries["kubelet"], *kubelet_argv(place, kubeconfig, options)],
        ),
    )


def _holder_argv(place: NodePlace) -> list[str | Path]:
    """Makes the mount namespace and sleeps in it."""
    pairs: list[str | Path] = []
    for name, seen_as in _OWN_FOLDERS.items():
        (place.folder / name).mkdir(exist_ok=True)
        Path(seen_as).mkdir(parents=True, exist_ok=True)
        pairs += [place.folder / name, seen_as]
    for setting in _KERNEL_SETTINGS:
        kernel = Path("/proc/sys") / setting
        copy = place.folder / "sysctl" / setting
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(kernel.read_text())
        pairs += [copy, kernel]
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", _ENTER, "sh", *pairs]


def _make_cgroups(place: NodePlace) -> None:
    """The kubelet wants its root control group to be there, in every hierarchy."""
    for hierarchy in cgroup_hierarchies():
        group = hierarchy
        for part in Path(place.cgroup).parts:
            parent, group = group, group / part
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # v1: empty, nothing can be put into it
                if (parent / name).is_file() and (group / name).is_file():
                    (group / name).write_text((parent / name).read_text())
