"""What is installed beside the definition of GPUQuotas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

DEPLOY = Path(__file__).parents[3] / "deploy"
FOLDERS = sorted(path.parent.name for path in DEPLOY.glob("*/kustomization.yaml"))


def installed(folder: Path) -> Iterator[dict[str, Any]]:
    """The objects of a kustomization and of those that it names."""
    kustomization = YAML(typ="safe").load((folder / "kustomization.yaml").read_text())
    for name in kustomization.get("resources", ()):
        path = folder / name
        if path.is_dir():
            yield from installed(path)
        else:
            yield from YAML(typ="safe").load_all(path.read_text())


def grants_reading(obj: dict[str, Any]) -> bool:
    """Whether it lets whoever may view a namespace read its quotas, and nothing else.

    Kubernetes makes ``edit`` of ``view`` and ``admin`` of ``edit`` (plugin/pkg/auth/authorizer/
    rbac/bootstrappolicy/policy.go).
    """
    labels = obj["metadata"].get("labels", {})
    return (
        obj["kind"] == "ClusterRole"
        and labels.get("rbac.authorization.k8s.io/aggregate-to-view") == "true"
        and obj["rules"]
        == [
            {
                "apiGroups": ["gpu-fraction.dev"],
                "resources": ["gpuquotas"],
                "verbs": ["get", "list", "watch"],
            }
        ]
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_tenants_may_read_their_quotas_wherever_there_are_some(folder: str) -> None:
    """As they may read ResourceQuotas."""
    objects = list(installed(DEPLOY / folder))
    defined = any(obj["kind"] == "CustomResourceDefinition" for obj in objects)
    assert any(map(grants_reading, objects)) == defined
