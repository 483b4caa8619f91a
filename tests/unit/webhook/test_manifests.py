"""The webhook configurations that people apply."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

CONFIGURATIONS = Path(__file__).parents[3] / "deploy" / "webhook" / "configurations.yaml"
CONDITIONS = {
    condition["name"]: condition["expression"]
    for document in YAML(typ="safe").load_all(CONFIGURATIONS)
    for webhook in document["webhooks"]
    for condition in webhook["matchConditions"]
}

OPTIONAL = (".?", "[?", "optional.", "orValue(")
"""Of CEL's optional types: known to Kubernetes 1.28, taken in new expressions from 1.29 on.

Source: apiserver/pkg/cel/environment/base.go, ``DefaultCompatibilityVersion``.
"""


@pytest.mark.parametrize("name", ["annotated", "uses-gpus", "changes-our-keys"])
def test_the_oldest_server_compiles_every_condition(name: str) -> None:
    """A condition that 1.28 does not take keeps the whole webhook from being installed there."""
    assert not [word for word in OPTIONAL if word in CONDITIONS[name]]


def test_every_webhook_has_a_condition() -> None:
    """Only pods that use GPUs wait for it."""
    assert set(CONDITIONS) == {"annotated", "uses-gpus", "changes-our-keys"}
