"""The daemon's paths on the host."""

from dataclasses import dataclass
from pathlib import Path

from gpu_fraction.domain import dra
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import path, words


@dataclass(frozen=True, slots=True)
class Paths:
    """The daemon's paths on the host."""

    kubelet: Path = setting(
        path, Path("/var/lib/kubelet"), "the kubelet's directory", name="kubelet_dir"
    )
    state: Path = setting(
        path,
        Path("/var/lib/gpu-fraction"),
        "the daemon's own directory; must survive a reboot",
        name="state_dir",
    )
    cdi: Path = setting(
        path, Path("/var/run/cdi"), "where the container runtime reads CDI files", name="cdi_dir"
    )
    host_cdi: tuple[Path, ...] = setting(
        lambda given: tuple(map(Path, words(given))),
        (Path("/etc/cdi"), Path("/var/run/cdi")),
        "where nvidia-ctk writes CDI files, highest priority last",
        name="host_cdi_dirs",
    )

    @property
    def isolation(self) -> Path:
        """What isolation engines must remember."""
        return self.state / "isolation"

    @property
    def plugins(self) -> Path:
        """The directory of device plugin sockets."""
        return self.kubelet / "device-plugins"

    @property
    def pod_resources(self) -> Path:
        """The kubelet's PodResources socket."""
        return self.kubelet / "pod-resources" / "kubelet.sock"

    def dra_socket(self, instance: str) -> Path:
        """Where the DRA driver serves the kubelet; daemons of a node have names of their own.

        Source: the convention of k8s.io/dynamic-resource-allocation, kubeletplugin.
        """
        name = f"dra-{instance}.sock" if instance else "dra.sock"
        return self.kubelet / "plugins" / dra.DRIVER / name

    def registrar_socket(self, instance: str) -> Path:
        """Where the kubelet finds the DRA driver. Source: kubelet, pluginmanager/pluginwatcher."""
        name = f"{dra.DRIVER}-{instance}-reg.sock" if instance else f"{dra.DRIVER}-reg.sock"
        return self.kubelet / "plugins_registry" / name
