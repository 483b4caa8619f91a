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


@pytest.mark.parametrize("folder", ["default", "native", "cert-manager"])
def test_every_installation_brings_its_namespace_and_priority_classes(
    folder: str, rendered: Rendered
) -> None:
    """In this order; GKE refuses pods of the system's classes, Pod Security privileged ones."""
    found = rendered(DEPLOY / folder)
    kinds = [m["kind"] for m in found]
    assert kinds.index("Namespace") < kinds.index("PriorityClass") < kinds.index("Deployment")
    made = {m["metadata"]["name"] for m in found if m["kind"] == "PriorityClass"}
    pods = [m["spec"]["template"]["spec"] for m in found if "template" in m.get("spec", {})]
    assert {pod["priorityClassName"] for pod in pods} <= made
    (namespace,) = (m for m in found if m["kind"] == "Namespace")
    assert namespace["metadata"]["name"] == keys.SYSTEM_NAMESPACE
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_no_scheduler_starts_unless_its_image_is_named(rendered: Rendered) -> None:
    """A scheduler of another version than the cluster's would start and misbehave."""
    images = {c["image"] for c in containers(rendered(DEPLOY / "native"))}
    version = YAML(typ="safe").load(DEPLOY / "chart" / "Chart.yaml")["appVersion"]
    assert images == {
        f"gpu-fraction:{version}",
        "registry.k8s.io/kube-scheduler:your-clusters-version",
    }
