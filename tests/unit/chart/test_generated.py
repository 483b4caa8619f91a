"""What ``make manifests`` writes is what the chart and the settings say today."""

import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from scripts import generate_manifests
from tests.support.chart import CHART, Helm

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", generate_manifests.generated(), ids=lambda path: path.name)
def test_what_follows_from_the_settings(path: Path) -> None:
    """Schema, template and page know every setting and every value."""
    assert path.read_text(encoding="utf-8") == generate_manifests.generated()[path]


def test_the_manifests_are_the_charts(helm: Helm) -> None:
    """Nobody has changed ``deploy/`` or the chart alone."""
    made = generate_manifests.manifests(helm.program)
    deploy = generate_manifests.DEPLOY
    assert {name: (deploy / name).read_text(encoding="utf-8") for name in made} == made


def test_every_manifest_is_the_charts() -> None:
    """But kustomizations, and the classes for NVIDIA's driver, which are chosen by hand."""
    head = "# Written by make manifests from deploy/chart.\n"
    files = set(generate_manifests.DEPLOY.glob("*/*.yaml")) - set(CHART.iterdir())
    others = {
        file.relative_to(generate_manifests.DEPLOY).as_posix()
        for file in files
        if file.name != "kustomization.yaml" and not file.read_text().startswith(head)
    }
    assert others == {"dra/nvidia-mig-classes.yaml"}


def test_chart_and_programs_have_one_version() -> None:
    """A chart installs the programs that it was released with."""
    chart = YAML(typ="safe").load(CHART / "Chart.yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def test_both_helms_make_the_same(helm: Helm, helm3: Helm) -> None:
    """Helm 3 and Helm 4; they install kinds that they do not know at different moments."""
    values = {"networkPolicy": {"enabled": True}, "monitoring": {"enabled": True}}
    made = (sorted(one.template(values).objects, key=str) for one in (helm, helm3))
    assert next(made) == next(made)


def test_lint(helm: Helm, helm3: Helm) -> None:
    """Strictly, by both."""
    for program in (helm, helm3):
        assert "0 chart(s) failed" in program(
            "lint", "--strict", "--namespace=gpu-fraction-system", str(CHART)
        )
