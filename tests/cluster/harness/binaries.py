"""Finds the programs a cluster is made of.

Each is looked for, in this order, where ``TEST_ASSET_<NAME>`` says, in the folder
``KUBEBUILDER_ASSETS``, in the cache that ``make cluster-assets`` fills, and on ``PATH``. The first
two are the convention of controller-runtime's envtest; ``KUBERNETES_VERSION`` chooses the cache's
version.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.cache import cached_folder, version_key

KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
NODE = ("kubelet", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "busybox")
CNI_PLUGINS = ("ptp", "host-local", "loopback")

_MINIMUM = {"kube-apiserver": (1, 34), "containerd": (2, 0)}
"""The oldest Kubernetes that is supported; the oldest containerd that reads the harness's
configuration, and CDI unless it is told not to. Source: containerd 2.0 release notes."""
_CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
_VERSION_TIMEOUT_S = 20
HINT = "`make cluster-assets` builds them, `KUBEBUILDER_ASSETS` names a folder that has them"


class MissingBinariesError(Exception):
    """Programs of the cluster are not on this machine."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Programs by name; ask for one with ``binaries["kubelet"]``.

    Attributes:
        paths: where each is; what is missing is not in it.
        version: of the API server, such as ``(1, 37, 2)``; empty if it is missing.
        cni_folder: holds the network plugins.
        rejected: why a program that was found is not used.
    """

    paths: Mapping[str, Path]
    version: tuple[int, ...]
    cni_folder: Path | None
    rejected: tuple[str, ...]

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """Those of ``names`` that were not found."""
        absent = [name for name in names if name not in self.paths]
        if names is NODE and self.cni_folder is None:
            absent.append("the CNI plugins " + ", ".join(CNI_PLUGINS))
        return absent

    def require(self, names: tuple[str, ...]) -> None:
        """Checks that all are there.

        Raises:
            MissingBinariesError: with the names and how to get them.
        """
        if absent := self.missing(names):
            reasons = "".join(f" ({reason})" for reason in self.rejected)
            raise MissingBinariesError(f"missing: {', '.join(absent)}{reasons}; {HINT}")


def find_binaries(environ: Mapping[str, str] = os.environ) -> Binaries:
    """Looks for all programs. The Kubernetes ones are of one minor version or not used."""
    cached = cached_folder(environ)
    paths: dict[str, Path] = {}
    rejected: list[str] = []
    version: tuple[int, ...] = ()
    for name in dict.fromkeys((*CONTROL_PLANE, *NODE, "agnhost", "kwok", "helm3", "helm4")):
        for path in _candidates(name, environ, cached):
            found = program_version(path) if name in KUBERNETES or name in _MINIMUM else ()
            if found < _MINIMUM.get(name, ()):
                rejected.append(f"{path} is {_shown(found)}, needed {_shown(_MINIMUM[name])}")
                continue
            if name == "kube-apiserver":
                version = found
            if name in KUBERNETES and version and found[:2] != version[:2]:
                rejected.append(f"{path} is {_shown(found)}, kube-apiserver is {_shown(version)}")
                continue
            paths[name] = path
            break
    return Binaries(paths, version, _cni_folder(environ, cached), tuple(rejected))


def program_version(path: Path) -> tuple[int, ...]:
    """The first ``x.y.z`` that the program prints when it is asked."""
    asked = ["version", "--client"] if path.name == "kubectl" else ["--version"]
    done = subprocess.run(
        [path, *asked],
        capture_output=True,
        text=True,
        timeout=_VERSION_TIMEOUT_S,
        check=True,
    )
    match = re.search(r"(\d+\.\d+\.\d+)", done.stdout)
    if match is None:
        raise MissingBinariesError(f"{path} names no version: {done.stdout!r}")
    return version_key(match[1])


def _candidates(name: str, environ: Mapping[str, str], cached: Path | None) -> Iterator[Path]:
    # An own file or folder that lacks the program is a mistake to be told, not passed over; the
    # folder may hold etcd, kube-apiserver and kubectl alone, as envtest's does.
    if explicit := environ.get("TEST_ASSET_" + name.upper().replace("-", "_")):
        yield Path(explicit)
        return
    if assets := environ.get("KUBEBUILDER_ASSETS"):
        candidate = Path(assets) / name
        if candidate.is_file():
            yield candidate
    if cached is not None and (cached / name).is_file():
        yield cached / name
    if on_path := shutil.which(name, path=environ.get("PATH")):
        yield Path(on_path)


def _cni_folder(environ: Mapping[str, str], cached: Path | None) -> Path | None:
    assets = environ.get("KUBEBUILDER_ASSETS")
    for place in (
        *([Path(assets) / "cni"] if assets else []),
        *([cached / "cni"] if cached else []),
        *_CNI_FOLDERS,
    ):
        if all((place / plugin).is_file() for plugin in CNI_PLUGINS):
            return place
    return None


def _shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def main() -> int:
    """Prints what was found; the exit status is 0 if the tests have a cluster to run on."""
    try:
        found = find_binaries()
        if existing := os.environ.get("KUBECONFIG_TEST"):
            found.require(("kubectl",))
            sys.stdout.write(f"cluster of {existing}\n")
            return 0
        found.require(CONTROL_PLANE)
    except (MissingBinariesError, ValueError) as e:
        sys.stdout.write(f"cluster tests skipped: {e}\n")
        return 1
    lacking = ", ".join(found.missing(NODE))
    without = f"; tests with a node are skipped, missing: {lacking}" if lacking else ""
    sys.stdout.write(f"Kubernetes {_shown(found.version)} found{without}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
