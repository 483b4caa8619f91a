"""Builds Kubernetes from the distribution's source package, with tools unpacked beside it."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.assets.apt import PrivateApt
from tests.cluster.assets.steps import AssetError, run, step

TARGETS = (
    "cmd/kube-apiserver",
    "cmd/kube-controller-manager",
    "cmd/kube-scheduler",
    "cmd/kubelet",
    "test/images/agnhost",
)

_TOOLS = {
    "make": "make",
    "jq": "jq",
    "rsync": "rsync",
    "dpkg-source": "dpkg-dev",
    "xz": "xz-utils",
}
"""Commands that the build needs, and the package to unpack where this machine lacks one."""

_REFLECT2 = "golang-github-modern-go-reflect2-dev"
_REFLECT2_IN_PACKAGE = "usr/share/gocode/src/github.com/modern-go/reflect2"
_REFLECT2_IN_TREE = "vendor/github.com/modern-go/reflect2"
"""The tree carries reflect2 1.0.1, which crashes the API server under Go 1.18 and newer as soon
as a webhook's patch with an object in it is recorded. Source: reflect2's release 1.0.2."""

_BUILD_TIMEOUT_S = 3600
"""Six minutes on two idle cores; chosen: ten times that, for a busy machine."""


def build_kubernetes(apt: PrivateApt, folder: Path, to: Path, version: str) -> None:
    """Builds ``TARGETS`` and puts the programs into ``to``.

    The distribution's own Go compiler is unpacked, never one found on the machine: a later one
    refuses this source. Plain ``go build`` would not do: make generates code first.

    Args:
        apt: prepared.
        folder: for tools and source tree, about 4 GB.
        to: where the programs go.
        version: must be what the source package holds.

    Raises:
        AssetError: the source package is of another version, or a command failed.
    """
    with step("unpack Go and build tools"):
        missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
        apt.download_closure(["golang-go", *missing], folder / "tools")
    env = _tool_environment(folder / "tools")
    with step("fetch and unpack the source"):
        description = apt.download_source("kubernetes", folder / "source")
        if version not in description.name:
            raise AssetError(f"wanted Kubernetes {version}, the archive has {description.name}")
        tree = folder / "tree"
        run(["dpkg-source", "-x", description, tree], log=apt.log, env=env)
        apt.download([_REFLECT2], folder / "reflect2")
        shutil.rmtree(tree / _REFLECT2_IN_TREE)
        shutil.copytree(
            folder / "reflect2" / _REFLECT2_IN_PACKAGE,
            tree / _REFLECT2_IN_TREE,
            ignore=shutil.ignore_patterns("*_test.go"),
        )
    with step(f"build {', '.join(Path(target).name for target in TARGETS)}"):
        _make(tree, env, apt.log)
    for target in TARGETS:
        shutil.copy2(tree / "_output" / "bin" / Path(target).name, to)
    shutil.rmtree(folder)


def _make(tree: Path, env: Mapping[str, str], log: Path) -> None:
    # The tree must lie under GOPATH by its import path; a link from inside it does.
    inside = tree / ".go" / "src" / "k8s.io" / "kubernetes"
    inside.parent.mkdir(parents=True)
    inside.symlink_to("../../..")
    go_env = {
        "GOPATH": str(tree / ".go"),
        "GOFLAGS": "-mod=vendor",
        "GOCACHE": str(tree / "_output" / "go-cache"),
        "CGO_ENABLED": "0",
        "HOME": str(tree),
        "PWD": str(inside),  # the shell keeps the linked path only if told
    }
    run(
        ["nice", "-n", "10", "make", f"WHAT={' '.join(TARGETS)}"],
        log=log,
        cwd=inside,
        env={**env, **go_env},
        timeout_s=_BUILD_TIMEOUT_S,
    )


def _tool_environment(tools: Path) -> dict[str, str]:
    """Lets unpacked programs find their libraries and data."""
    go_root = next((tools / "usr" / "lib").glob("go-[0-9]*"))
    programs = [go_root / "bin", tools / "usr" / "bin", tools / "bin"]
    env = {
        "GOROOT": str(go_root),
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
    }
    libraries = [*tools.glob("usr/lib/*-linux-gnu*"), *tools.glob("lib/*-linux-gnu*")]
    if libraries:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
    if (tools / "usr" / "share" / "dpkg").is_dir():
        env["DPKG_DATADIR"] = str(tools / "usr" / "share" / "dpkg")
        perl = [*tools.glob("usr/share/perl*"), *tools.glob("usr/lib/*/perl*")]
        env["PERL5LIB"] = os.pathsep.join(map(str, perl))
    return env
