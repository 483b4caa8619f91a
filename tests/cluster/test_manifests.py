"""Everything that people may apply, found by itself, as a real API server takes it.

``--validate=strict`` refuses unknown and duplicate fields, the server's dry run everything
else; CRDs and namespaces are installed first.
"""

import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.kubectl import Kubectl
from tests.support.chart import COMBINATIONS, Helm

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUSTOMIZATIONS = sorted(DEPLOY.glob("**/kustomization.yaml"))
PAGES = sorted(
    path
    for path in ROOT.glob("**/*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
BLOCK = re.compile(r"^```ya?ml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_HERE = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
"""API versions of other projects, whose CRDs a cluster of the tests does not have."""


@cache
def documents(text: str) -> list[Any]:
    """The YAML documents of a text."""
    return [document for document in YAML(typ="safe").load_all(text) if document is not None]


def blocks(page: Path) -> list[str]:
    """The YAML of a page."""
    return [match[1] for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def named_by_kustomizations() -> set[Path]:
    """Files that a kustomization takes in, as a whole or as a patch."""
    found = set()
    for file in KUSTOMIZATIONS:
        (kustomization,) = documents(file.read_text(encoding="utf-8"))
        generators = kustomization.get("configMapGenerator", ())
        names = [
            *kustomization.get("resources", ()),
            *(patch.get("path", ".") for patch in kustomization.get("patches", ())),
            *(name.split("=")[-1] for made in generators for name in made.get("files", ())),
        ]
        found |= {(file.parent / name).resolve() for name in names}
    return found


def files() -> list[Path]:
    """Manifests that no kustomization names."""
    found = [*DEPLOY.glob("**/*.y*ml"), *(ROOT / "examples").glob("**/*.y*ml")]
    chart = DEPLOY.glob("chart/**/*")
    return sorted({*found} - {*chart} - named_by_kustomizations() - {*KUSTOMIZATIONS})


def objects_of_pages() -> Iterator[tuple[str, str]]:
    """Blocks that are whole objects, with the page and the number."""
    for page in PAGES:
        for number, block in enumerate(blocks(page), 1):
            if all({"apiVersion", "kind"} <= set(one) for one in documents(block)):
                yield f"{page.relative_to(ROOT)}-{number}", block


def kustomizations_of_pages() -> Iterator[tuple[str, str]]:
    """Blocks that are kustomizations beside ``deploy/``."""
    for page in PAGES:
        for number, block in enumerate(blocks(page), 1):
            if any("resources" in one and "kind" not in one for one in documents(block)):
                yield f"{page.relative_to(ROOT)}-{number}", block


def cases(found: Iterator[tuple[str, str]]) -> pytest.MarkDecorator:
    """Parametrized by block."""
    return pytest.mark.parametrize("text", [pytest.param(b, id=name) for name, b in found])


@pytest.fixture(scope="module")
def kubectl(control_plane: Cluster) -> Kubectl:
    """Kubectl as administrator; what others refer to is there."""
    admin = control_plane.kubectl
    admin("apply", "--validate=strict", "-f", str(DEPLOY / "crd" / "gpuquotas.yaml"))
    admin("wait", "--for=condition=Established", "crd/gpuquotas.gpu-fraction.dev")
    return admin


def refused(kubectl: Kubectl, text: str) -> str:
    """What kubectl says against objects; empty where the server would take them."""
    whole = [one for one in documents(text) if one["apiVersion"] not in NOT_HERE]
    for name in {one["metadata"].get("namespace", "default") for one in whole}:
        kubectl.run("create", "namespace", name)
    words = ("apply", "--validate=strict", "--dry-run=server", "-f", "-")
    listed = {"apiVersion": "v1", "kind": "List", "items": whole}
    # As it is written, where it can be: what kubectl reads of YAML is part of the test.
    done = kubectl.run(*words, stdin=text if len(whole) == len(documents(text)) else listed)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(
            file,
            id=file.parent.name,
            # Older servers refuse classes of shared devices, as they should.
            marks=[pytest.mark.needs_kubernetes("1.36")] if file.parent.name == "dra" else [],
        )
        for file in KUSTOMIZATIONS
        if "kind: Component" not in file.read_text(encoding="utf-8")
    ],
)
def test_a_kustomization_builds_what_a_server_takes(file: Path, kubectl: Kubectl) -> None:
    """Each folder of ``deploy/``, also those that patch others."""
    assert refused(kubectl, kubectl("kustomize", str(file.parent))) == ""


@pytest.mark.parametrize("file", files(), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_server_takes_the_file(file: Path, kubectl: Kubectl) -> None:
    """Examples, and manifests that are applied by themselves."""
    assert refused(kubectl, file.read_text(encoding="utf-8")) == ""


@cases(objects_of_pages())
def test_a_server_takes_the_object_of_a_page(text: str, kubectl: Kubectl) -> None:
    """What documentation shows as a whole can be applied as it stands."""
    assert refused(kubectl, text) == ""


@cases(kustomizations_of_pages())
def test_a_server_takes_the_kustomization_of_a_page(
    text: str, kubectl: Kubectl, tmp_path: Path
) -> None:
    """In a folder beside ``deploy/``, as the installation's page says."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    own = tmp_path / "my-cluster"
    own.mkdir()
    (own / "kustomization.yaml").write_text(text, encoding="utf-8")
    assert refused(kubectl, kubectl("kustomize", str(own))) == ""


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_a_server_takes_what_the_chart_makes(
    values: dict[str, Any], kubectl: Kubectl, helm: Helm, binaries: Binaries
) -> None:
    """By every combination of values."""
    version = ".".join(map(str, binaries.version))
    if "dra" in values and binaries.version < (1, 36):
        pytest.skip(f"{version} has no shared devices")
    assert refused(kubectl, helm.template(values, kubernetes=f"v{version}").text) == ""


def test_an_unknown_field_is_refused(kubectl: Kubectl) -> None:
    """A misspelt field in any of them would not go unseen."""
    text = (ROOT / "examples" / "notebook.yaml").read_text(encoding="utf-8")
    assert 'unknown field "spec.container"' in refused(
        kubectl, text.replace("containers:", "container:")
    )
