from pathlib import Path

import pytest

from tests.cluster.harness.binaries import (
    CONTROL_PLANE,
    NODE,
    MissingBinariesError,
    find_binaries,
)


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


def test_own_path_comes_before_folder_before_search_path_before_cache(tmp_path: Path) -> None:
    """The order of envtest's variables, PATH and the cache."""
    cached = _cache(tmp_path / "cache", "1.20.2", "etcd")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path / "path")}
    assert find_binaries(environ)["etcd"] == cached / "etcd"
    on_path = _program(tmp_path / "path", "etcd", "1.0.0")
    assert find_binaries(environ)["etcd"] == on_path
    in_assets = _program(tmp_path / "assets", "etcd", "1.0.0")
    environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    assert find_binaries(environ)["etcd"] == in_assets
    own = _program(tmp_path / "own", "my-etcd", "1.0.0")
    environ["TEST_ASSET_ETCD"] = str(own)
    assert find_binaries(environ)["etcd"] == own


def test_the_newest_cached_version_is_used(tmp_path: Path) -> None:
    """1.20 is newer than 1.9; a folder without a manifest is half a cache and not used."""
    for version in ("1.9.1", "1.20.2", "1.36.0"):
        _cache(tmp_path, version, "kube-apiserver")
    (tmp_path / "gpu-fraction" / "kubernetes" / "1.36.0" / "manifest.json").unlink()
    found = find_binaries({"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})
    assert found.version == (1, 20, 2)


def test_components_of_another_minor_version_are_not_mixed(tmp_path: Path) -> None:
    """A newer API server alone does not get the cache's old controllers; the reason is told."""
    _cache(tmp_path / "cache", "1.20.2", *CONTROL_PLANE)
    _program(tmp_path / "assets", "kube-apiserver", "1.36.2")
    environ = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "KUBEBUILDER_ASSETS": str(tmp_path / "assets"),
        "PATH": "",
    }
    found = find_binaries(environ)
    assert found.version == (1, 36, 2)
    assert "kube-scheduler" not in found.paths
    with pytest.raises(MissingBinariesError, match=r"kube-scheduler is 1\.20\.2, .* 1\.36\.2"):
        found.require(CONTROL_PLANE)


def test_container_runtime_without_cdi_is_passed_over(tmp_path: Path) -> None:
    """Containerd 1.6 on PATH loses against 1.7 in the cache."""
    cached = _cache(tmp_path / "cache", "1.20.2", "containerd") / "containerd"
    _program(cached.parent, "containerd", "1.7.24")
    _program(tmp_path / "path", "containerd", "1.6.20")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path / "path")}
    assert find_binaries(environ)["containerd"] == cached


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    """An empty machine: the message lists the programs and the command."""
    found = find_binaries({"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})
    with pytest.raises(MissingBinariesError, match=r"etcd, kubectl, .*make cluster-assets"):
        found.require(CONTROL_PLANE)
    with pytest.raises(MissingBinariesError, match="kubelet"):
        found.require(NODE)
