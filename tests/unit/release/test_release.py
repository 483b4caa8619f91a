"""What is published beside the image: notes, chart, manifests, sums."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from scripts import distributions
from scripts.image.build import Image
from scripts.release import ReleaseError, Source, forget, images, packed, sums
from scripts.version import Version

CHART = "name: gpu-fraction\nversion: 0.1.0\nappVersion: 0.1.0\n"
WORKLOAD = """\
kind: Deployment
metadata:
  labels:
    app.kubernetes.io/version: "{0}"
spec:
  image: gpu-fraction:{0}
  sidecar: {{image: registry.k8s.io/kube-scheduler:v1.37.2}}
"""
CHANGELOG = """\
# Changelog

## Unreleased

- New.

## 0.2.0 - 2026-12-01

### Added
- Old.

## 0.1.0

"""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A repository with a chart, a CRD and a change log, of which 0.2.0 is released."""
    root = tmp_path / "root"
    for name, text in {
        "deploy/chart/Chart.yaml": CHART,
        "deploy/chart/templates/crd.yaml": "kind: CustomResourceDefinition\n",
        "deploy/crd/gpuquotas.yaml": "kind: CustomResourceDefinition\nmetadata: {}\n",
        "deploy/whole/manifests.yaml": "kind: CustomResourceDefinition\n---\nkind: Deployment\n",
        "deploy/webhook/deployment.yaml": WORKLOAD.format("0.1.0"),
        "deploy/default/kustomization.yaml": "resources: [../crd]\n",
        "CHANGELOG.md": CHANGELOG,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return Source(root, Version("0.2.0"), 0)


def files(archive: Path) -> dict[str, str]:
    """What an archive holds."""
    with tarfile.open(archive) as content:
        found = {x.name: content.extractfile(x) for x in content.getmembers()}
    with tarfile.open(archive) as content:
        return {
            name: (content.extractfile(name) or io.BytesIO()).read().decode() for name in found
        }


def test_notes_are_the_versions_section(source: Source) -> None:
    """Of a development version, what is not released yet."""
    assert source.notes() == "### Added\n- Old.\n"
    development = Source(source.root, Version("0.2.0", "gabc"), 0)
    assert development.notes() == "- New.\n"


@pytest.mark.parametrize("release", ["0.1.0", "0.9.0"])
def test_a_version_without_notes_is_not_released(source: Source, release: str) -> None:
    """Neither with an empty section nor without one."""
    with pytest.raises(ReleaseError, match=rf"no section '## {release}'"):
        Source(source.root, Version(release), 0).notes()


def test_the_chart_has_the_version_of_the_release(source: Source, tmp_path: Path) -> None:
    """In one folder, as Helm wants it, under the name that Helm gives."""
    made = source.chart(source.root / "deploy" / "chart", tmp_path)
    assert made.name == "gpu-fraction-0.2.0.tgz"
    assert files(made) == {
        "gpu-fraction/Chart.yaml": 'name: gpu-fraction\nversion: 0.2.0\nappVersion: "0.2.0"\n',
        "gpu-fraction/templates/crd.yaml": "kind: CustomResourceDefinition\n",
    }


def test_a_chart_may_lie_elsewhere(source: Source, tmp_path: Path) -> None:
    """All of its folder is taken then, and the archive is the same."""
    (source.root / "deploy" / "chart").rename(tmp_path / "chart")
    made = source.chart(tmp_path / "chart", tmp_path)
    assert set(files(made)) == {"gpu-fraction/Chart.yaml", "gpu-fraction/templates/crd.yaml"}


def test_without_a_chart_the_message_names_it(source: Source, tmp_path: Path) -> None:
    """So does one whose versions are not found."""
    with pytest.raises(ReleaseError, match=r"absent/Chart\.yaml is missing"):
        source.chart(source.root / "absent", tmp_path)
    (source.root / "deploy/chart/Chart.yaml").write_text("name: x\nversion: 1\n")
    with pytest.raises(ReleaseError, match="one line version and one line appVersion"):
        source.chart(source.root / "deploy" / "chart", tmp_path)


def test_manifests_come_without_the_chart(source: Source, tmp_path: Path) -> None:
    """And the CRD by itself, for those who apply it first."""
    deploy = source.root / "deploy"
    archive, definition = source.manifests(deploy, deploy / "chart", tmp_path)
    assert set(files(archive)) == {
        "deploy/crd/gpuquotas.yaml",
        "deploy/default/kustomization.yaml",
        "deploy/webhook/deployment.yaml",
        "deploy/whole/manifests.yaml",
    }
    assert definition.read_text() == (deploy / "crd/gpuquotas.yaml").read_text()


def test_manifests_name_the_image_of_their_version(source: Source, tmp_path: Path) -> None:
    """Also of a development version, for which nobody has run ``make manifests``."""
    archive, _ = source.manifests(
        source.root / "deploy", source.root / "deploy" / "chart", tmp_path
    )
    assert files(archive)["deploy/webhook/deployment.yaml"] == WORKLOAD.format("0.2.0")


def test_the_manifests_of_this_repository_are_released(tmp_path: Path) -> None:
    """One of its files is the CRD; others hold it among much else."""
    root = Path(__file__).parents[3]
    made = Source(root, Version("9.8.7"), 0).manifests(
        root / "deploy", root / "deploy" / "chart", tmp_path
    )
    told = files(made[0])
    assert made[1].read_text() == told["deploy/crd/gpuquotas.yaml"]
    assert "image: gpu-fraction:9.8.7\n" in told["deploy/webhook/deployment.yaml"]


def test_archives_are_the_same_twice() -> None:
    """Whatever the order and the day."""
    assert packed({"a": b"1", "b": b"2"}) == packed({"b": b"2", "a": b"1"})


def test_sums_are_read_by_sha256sum(tmp_path: Path) -> None:
    """Names without folders: they are checked where the files lie."""
    (tmp_path / "a").write_bytes(b"x")
    assert sums([tmp_path / "a"]) == f"{hashlib.sha256(b'x').hexdigest()}  a\n"


def test_images_have_digests() -> None:
    """One line for each architecture, and kube-scheduler, which follows the cluster."""
    image = Image(Path("a"), Path("b"), "registry.test/gpu-fraction:1", "sha256:ab", {})
    first, second = images({"amd64": image}).splitlines()
    assert first == "registry.test/gpu-fraction:1  amd64  sha256:ab"
    assert second.startswith("registry.k8s.io/kube-scheduler:")


def test_only_a_release_is_replaced(tmp_path: Path) -> None:
    """A folder with anything else stays, with a message."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    with pytest.raises(ReleaseError, match="is no release"):
        forget(tmp_path / "mine")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "SHA256SUMS").touch()
    forget(tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_distributions_carry_the_version(tmp_path: Path) -> None:
    """The package, the demo, and what the demo asks for."""
    version = Version("9.8.7", "gabc")
    distributions.stage(Path(__file__).parents[3], version, tmp_path / "staged")
    made = distributions.build(tmp_path / "staged" / "sandbox", "wheel", tmp_path / "out", 0)
    again = distributions.build(tmp_path / "staged" / "sandbox", "wheel", tmp_path / "again", 0)
    assert made.name == "gpu_fraction_demo-9.8.7.dev0+gabc-py3-none-any.whl"
    assert made.read_bytes() == again.read_bytes()
