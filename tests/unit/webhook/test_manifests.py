"""The webhook configurations that people apply."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from gpu_fraction.domain.backends import STACKS

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


def test_every_stacks_resources_reach_the_webhook() -> None:
    """Pods written by hand for a stack are charged; its names are in the condition uses-gpus."""
    (pattern,) = re.findall(r"r[.]matches\(\s*'([^']+)'", CONFIGURATIONS.read_text())
    names = [name for stack in STACKS.values() for name in stack.resources]
    assert [name for name in names if not re.search(pattern, name)] == []
    assert not re.search(pattern, "rdma/hca_shared_devices_a")
