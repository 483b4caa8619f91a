"""What the cache is made of: each part's recipe and the files it yields."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster.assets.debian import unpack
from tests.cluster.assets.go_modules import GoBuild, build, kubernetes
from tests.cluster.assets.steps import step

_ETCD = GoBuild("go.etcd.io/etcd/server/v3", "v3.7.3", {"etcd": ""})
_CONTAINERD = GoBuild(
    "github.com/containerd/containerd/v2",
    "v2.4.2",
    {name: f"/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
    {"github.com/containerd/containerd/v2/version.Version": "2.4.2"},
    tags="no_btrfs,no_devmapper,no_zfs",
)
_CNI = GoBuild(
    "github.com/containernetworking/plugins",
    "v1.10.0",
    {
        "cni/ptp": "/plugins/main/ptp",
        "cni/loopback": "/plugins/main/loopback",
        "cni/host-local": "/plugins/ipam/host-local",
    },
)
# Without seccomp the kubelet's default profile fails every container.
_RUNC = GoBuild(
    "github.com/opencontainers/runc",
    "v1.5.3",
    {"runc": ""},
    tags="seccomp,netgo,osusergo",
    static=True,
)
_KWOK = GoBuild("sigs.k8s.io/kwok", "v0.8.0", {"kwok": "/cmd/kwok"})
_HELM3 = GoBuild("helm.sh/helm/v3", "v3.22.0", {"helm3": "/cmd/helm"})
_HELM4 = GoBuild("helm.sh/helm/v4", "v4.3.2", {"helm4": "/cmd/helm"})


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the cache.

    Attributes:
        name: for people.
        recipe: changes when the result would; a part whose recipe is unchanged is kept.
        files: what it yields, as paths in the cached version's folder.
        make: puts the files into the second folder; may use the first, and logs to the path.
    """

    name: str
    recipe: str
    files: tuple[str, ...]
    make: Callable[[Path, Path, Path], None]


def parts(version: str) -> tuple[Part, ...]:
    """All parts of one version of Kubernetes.

    Raises:
        AssetError: there is no Go, whose release is part of the recipes.
    """
    return (
        _busybox(),
        _go("etcd", _ETCD),
        _go("containerd", _CONTAINERD),
        _go("network plugins", _CNI),
        _runc(),
        _go("kwok", _KWOK),
        _go("helm 3", _HELM3),
        _go("helm 4", _HELM4),
        _go(f"kubernetes {version}", kubernetes(version)),
    )


def _go(name: str, what: GoBuild) -> Part:
    def make(folder: Path, to: Path, log: Path) -> None:
        with step(f"build {', '.join(what.programs)} {what.version}"):
            build(what, folder / "module", to, log)

    return Part(name, what.recipe, tuple(what.programs), make)


def _runc() -> Part:
    """With libseccomp's static library, whatever the machine has of it."""

    def make(folder: Path, to: Path, log: Path) -> None:
        with step("unpack libseccomp"):
            root = unpack(("libseccomp-dev",), folder / "libseccomp", log)
        library = next(root.glob("usr/lib/*/libseccomp.a")).parent
        env = {
            "CGO_ENABLED": "1",
            "PKG_CONFIG": "true",  # it prints nothing; the next two say where the library is
            "CGO_CFLAGS": f"-I{root}/usr/include",
            "CGO_LDFLAGS": f"-L{library} -lseccomp",
        }
        _go("runc", replace(_RUNC, env=env)).make(folder, to, log)

    return Part("runc", _RUNC.recipe, tuple(_RUNC.programs), make)


def _busybox() -> Part:
    def make(folder: Path, to: Path, log: Path) -> None:
        with step("unpack busybox"):
            root = unpack(("busybox-static",), folder / "busybox", log)
        shutil.copy2(root / "bin" / "busybox", to)

    return Part("busybox", "busybox-static 1", ("busybox",), make)
