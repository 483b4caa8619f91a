"""The manifests give each program the rights that its certificate needs."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gpu_fraction.certs.settings import Installation

DEPLOY = Path(__file__).parents[3] / "deploy"


def documents(path: str) -> list[dict[str, Any]]:
    """All documents of a file."""
    return list(YAML(typ="safe").load_all(DEPLOY / path))


def test_the_webhook_may_see_its_configurations_whoever_provides_its_certificate() -> None:
    """It is ready when they trust what it serves, also without the rights of our own CA."""
    (role,) = (
        d
        for d in documents("rbac/webhook.yaml")
        if (d["kind"], d["metadata"]["name"]) == ("ClusterRole", "gpu-fraction-webhook")
    )
    (rule,) = (r for r in role["rules"] if r["apiGroups"] == ["admissionregistration.k8s.io"])
    for config in documents("webhook/configurations.yaml"):
        assert f"{config['kind'].lower()}s" in rule["resources"]
        assert config["metadata"]["name"] in rule["resourceNames"]
    assert {*Installation().mutating, *Installation().validating} == set(rule["resourceNames"])
    assert rule["verbs"] == ["get", "list", "watch"]
