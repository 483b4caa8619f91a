"""The folders of ``deploy/`` that people begin from, as ``kubectl apply -k`` would send them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli.main import COMMANDS
from gpu_fraction.domain import keys

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
Manifests = list[dict[str, Any]]
Rendered = Callable[[Path], Manifests]


def containers(manifests: Manifests) -> list[dict[str, Any]]:
    """All containers of the workloads."""
    specs = [m["spec"]["template"]["spec"] for m in manifests if "template" in m.get("spec", {})]
    return [c for s in specs for c in (*s.get("initContainers", ()), *s["containers"])]


def test_the_native_installation_is_whole(tmp_path: Path, rendered: Rendered) -> None:
    """By the overlay of docs/installation.md every part runs, each from an image with a tag."""
    text = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    overlay = text.partition("```yaml\n")[2].partition("```")[0]
    assert "../deploy/native" in overlay
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "my-cluster").mkdir()
    (tmp_path / "my-cluster" / "kustomization.yaml").write_text(overlay)
    found = containers(rendered(tmp_path / "my-cluster"))
    ours = [c for c in found if "/gpu-fraction:" in c["image"]]
    others = [c["image"].rpartition(":") for c in found if c not in ours]
    assert {c["args"][0] for c in ours} <= set(COMMANDS)
    assert {c["args"][0] for c in ours} >= {
        "webhook",
        "controller",
        "node-daemon",
        "scheduler-extender",
    }
    assert [(image, tag[0]) for image, _, tag in others] == [
        ("registry.k8s.io/kube-scheduler", "v")
    ]


def everything() -> Manifests:
    """All objects of ``deploy/`` that are not patches or configuration."""
    return [
        document
        for file in sorted(DEPLOY.glob("*/*.yaml"))
        for document in YAML(typ="safe").load_all(file)
        if document and "metadata" in document
    ]


def test_the_priority_classes_of_our_pods_are_allowed_in_their_namespace() -> None:
    """GKE creates pods of the critical classes only where a ResourceQuota selects the class."""
    pods = [m for m in everything() if "template" in m.get("spec", {})]
    classes = {
        (m["metadata"]["namespace"], m["spec"]["template"]["spec"].get("priorityClassName"))
        for m in pods
    } - {(keys.SYSTEM_NAMESPACE, None)}
    allowed = {
        (quota["metadata"]["namespace"], name)
        for quota in everything()
        if quota["kind"] == "ResourceQuota"
        for term in quota["spec"]["scopeSelector"]["matchExpressions"]
        if (term["scopeName"], term["operator"]) == ("PriorityClass", "In")
        for name in term["values"]
    }
    assert classes
    assert classes <= allowed


@pytest.mark.parametrize("folder", ["default", "native", "cert-manager"])
def test_every_installation_brings_the_namespace_with_its_quota(
    folder: str, rendered: Rendered
) -> None:
    """In this order, because the quota lives in the namespace."""
    found = [m["kind"] for m in rendered(DEPLOY / folder)]
    assert found.index("Namespace") < found.index("ResourceQuota") < found.index("Deployment")


def test_nothing_starts_unless_its_image_is_named(rendered: Rendered) -> None:
    """A scheduler of another version than the cluster's would start and misbehave."""
    images = {c["image"] for c in containers(rendered(DEPLOY / "native"))}
    assert images == {"gpu-fraction", "registry.k8s.io/kube-scheduler:your-clusters-version"}
