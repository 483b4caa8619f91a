"""The webhook configurations that people apply."""

from pathlib import Path

from ruamel.yaml import YAML

CONFIGURATIONS = Path(__file__).parents[3] / "deploy" / "webhook" / "configurations.yaml"


def test_every_webhook_has_a_condition() -> None:
    """Only pods that use GPUs wait for it."""
    named = [
        condition["name"]
        for document in YAML(typ="safe").load_all(CONFIGURATIONS)
        for webhook in document["webhooks"]
        for condition in webhook["matchConditions"]
    ]
    assert named == ["annotated", "uses-gpus", "changes-our-keys"]
