"""What ``make manifests`` writes is what the chart and the settings say today."""

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """But kustomizations and their patches, classes for NVIDIA's driver, and krew's manifest."""
    head = "# Written by make manifests from deploy/chart.\n"
    files = set(generate_manifests.DEPLOY.glob("*/*.yaml")) - set(CHART.iterdir())
    others = {
        file.relative_to(generate_manifests.DEPLOY).as_posix()
        for file in files
        if file.name != "kustomization.yaml" and not file.read_text().startswith(head)
    }
    assert others == {
        *("claims-charge/policy.yaml", "claims-charge/webhook.yaml"),
        *("dra/nvidia-mig-classes.yaml", "krew/gpu-fraction.yaml"),
    }


def test_the_component_that_charges_claims_is_the_charts_value(
    helm: Helm, rendered: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Both change the same policy, webhook and variables in the same way, and nothing else."""
    shutil.copytree(generate_manifests.DEPLOY, tmp_path / "deploy")

    def built(components: str) -> list[dict[str, Any]]:
        folder = tmp_path / f"mine{len(components)}"
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(
            f"{{resources: [../deploy/default, ../deploy/claims], components: [{components}]}}",
            encoding="utf-8",
        )
        return rendered(folder)

    def chart(mode: str) -> list[dict[str, Any]]:
        values = {"dra": {"enabled": True, "handWrittenClaims": mode}, "backend": "dra"}
        return list(helm.template(values).objects)

    of_component = _changes(built(""), built("../deploy/claims-charge"))
    assert of_component == _changes(chart("refuse"), chart("charge"))
    assert set(of_component) == {
        ("ValidatingAdmissionPolicy", "gpu-fraction-claims"),
        ("ValidatingWebhookConfiguration", "gpu-fraction"),
        ("Deployment", "gpu-fraction-webhook"),
        ("Deployment", "gpu-fraction-controller"),
    }


def _changes(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> dict[tuple[str, str], object]:
    """What is new of the objects that differ: specification, webhooks or variables."""

    def of_interest(one: dict[str, Any]) -> list[Any]:
        if one["kind"] == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            return list(container["env"])
        return list(one.get("webhooks") or one.get("rules") or one.get("spec", {}).items())

    old, new = (
        {(one["kind"], one["metadata"]["name"]): of_interest(one) for one in objects}
        for objects in (before, after)
    )
    assert old.keys() == new.keys()
    return {
        key: [part for part in parts if part not in old[key]]
        for key, parts in new.items()
        if parts != old[key]
    }


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
