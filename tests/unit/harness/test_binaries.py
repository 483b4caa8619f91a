from pathlib import Path

import pytest

from tests.cluster.harness.binaries import (
    CONTROL_PLANE,
    NODE,
    MissingBinariesError,
    find_binaries,
    program_version,
)
from tests.cluster.harness.cache import DEFAULT_VERSION


def _program(folder: Path, name: str, version: str) -> Path:
    """A program that only tells its version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {name} v{version}\n")
    path.chmod(0o755)
    return path


def _cache(home: Path, version: str, *names: str) -> Path:
    folder = home / "gpu-fraction" / "kubernetes" / version
    for name in names:
        _program(folder, name, version)
    (folder / "manifest.json").write_text('{"parts": {}}')
    return folder


def test_own_path_comes_before_folder_before_cache_before_search_path(tmp_path: Path) -> None:
    """The order of envtest's variables, the cache and PATH."""
    on_path = _program(tmp_path / "path", "etcd", "1.0.0")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path / "path")}
    assert find_binaries(environ)["etcd"] == on_path
    cached = _cache(tmp_path / "cache", DEFAULT_VERSION, "etcd")
    assert find_binaries(environ)["etcd"] == cached / "etcd"
    in_assets = _program(tmp_path / "assets", "etcd", "1.0.0")
    environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    assert find_binaries(environ)["etcd"] == in_assets
    own = _program(tmp_path / "own", "my-etcd", "1.0.0")
    environ["TEST_ASSET_ETCD"] = str(own)
    assert find_binaries(environ)["etcd"] == own


def test_the_named_version_of_the_cache_is_used(tmp_path: Path) -> None:
    """Without a name it is the default, newer or older ones beside it or not."""
    for version in ("1.34.4", DEFAULT_VERSION, "1.38.0-beta.0"):
        _cache(tmp_path, version, "kube-apiserver")
    environ = {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}
    assert find_binaries(environ).version == tuple(map(int, DEFAULT_VERSION.split(".")))
    for named, found in (("1.34.4", (1, 34, 4)), ("v1.38.0-beta.0", (1, 38, 0))):
        assert find_binaries({**environ, "KUBERNETES_VERSION": named}).version == found


def test_half_a_version_is_not_used(tmp_path: Path) -> None:
    """A folder without a manifest was not finished."""
    cached = _cache(tmp_path, DEFAULT_VERSION, "kube-apiserver")
    (cached / "manifest.json").unlink()
    assert find_binaries({"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}).paths == {}


def test_a_name_that_is_no_version_is_refused(tmp_path: Path) -> None:
    """It becomes a folder's name, so it may not lead out of the cache."""
    environ = {"XDG_CACHE_HOME": str(tmp_path), "KUBERNETES_VERSION": "../1.37.2"}
    with pytest.raises(ValueError, match=r"KUBERNETES_VERSION: '\.\./1\.37\.2'"):
        find_binaries(environ)


def test_components_of_another_minor_version_are_not_mixed(tmp_path: Path) -> None:
    """A newer API server alone does not get the cache's old controllers; the reason is told."""
    _cache(tmp_path / "cache", DEFAULT_VERSION, *CONTROL_PLANE)
    _program(tmp_path / "assets", "kube-apiserver", "1.36.2")
    environ = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "KUBEBUILDER_ASSETS": str(tmp_path / "assets"),
        "PATH": "",
    }
    found = find_binaries(environ)
    assert found.version == (1, 36, 2)
    assert "kube-scheduler" not in found.paths
    with pytest.raises(MissingBinariesError, match=r"kube-scheduler is 1\.37\.2, .* 1\.36\.2"):
        found.require(CONTROL_PLANE)


def test_a_server_that_is_not_supported_is_not_used(tmp_path: Path) -> None:
    """The oldest supported version is named."""
    _program(tmp_path, "kube-apiserver", "1.33.9")
    found = find_binaries({"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path)})
    with pytest.raises(MissingBinariesError, match=r"kube-apiserver is 1\.33\.9, needed 1\.34"):
        found.require(CONTROL_PLANE)


def test_an_old_container_runtime_is_passed_over(tmp_path: Path) -> None:
    """Containerd 1.7 in a folder loses against 2.4 on PATH."""
    _program(tmp_path / "assets", "containerd", "1.7.24")
    newer = _program(tmp_path / "path", "containerd", "2.4.2")
    environ = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "KUBEBUILDER_ASSETS": str(tmp_path / "assets"),
        "PATH": str(tmp_path / "path"),
    }
    assert find_binaries(environ)["containerd"] == newer


def test_kubectl_is_asked_for_its_own_version(tmp_path: Path) -> None:
    """It knows no ``--version``, and would ask a server too."""
    path = tmp_path / "kubectl"
    path.write_text('#!/bin/sh\n[ "$*" = "version --client" ] && echo "Client Version: v1.37.2"\n')
    path.chmod(0o755)
    assert program_version(path) == (1, 37, 2)


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    """An empty machine: the message lists the programs and the command."""
    found = find_binaries({"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})
    with pytest.raises(MissingBinariesError, match=r"etcd, kube-apiserver, .*make cluster-assets"):
        found.require(CONTROL_PLANE)
    with pytest.raises(MissingBinariesError, match="kubelet"):
        found.require(NODE)
