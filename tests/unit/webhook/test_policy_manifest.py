"""The admission policy says what the code says."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gpu_fraction.domain import keys
from gpu_fraction.node_daemon.cluster.inventory_node import LABELS
from gpu_fraction.webhook.settings import SYSTEM_USERS

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
CONTROLLER = f"system:serviceaccount:{keys.SYSTEM_NAMESPACE}:gpu-fraction-controller"
QUEUE = {keys.PREFIX + "released", keys.PREFIX + "quota"}
"""The quota controller's annotation and gate (DESIGN section 2)."""

(POLICY, BINDING) = YAML(typ="safe").load_all(DEPLOY / "admission-policy" / "policy.yaml")
VARIABLES = {v["name"]: v["expression"] for v in POLICY["spec"]["variables"]}


def words(text: str) -> set[str]:
    """Names of ours in single quotes."""
    return set(re.findall(rf"'({re.escape(keys.PREFIX)}[^']+)'", text))


def roads(rules: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Operation and resource of each rule."""
    return {(o, r) for rule in rules for o in rule["operations"] for r in rule["resources"]}


def test_the_condition_and_the_rules_name_every_key_of_the_systems() -> None:
    """A key that is added to the code must be added to both."""
    (condition,) = POLICY["spec"]["matchConditions"]
    system = {*keys.SYSTEM_KEYS, keys.INVENTORY, *LABELS}
    released, gate = sorted(QUEUE, reverse=True)
    assert words(condition["expression"]) == system | {released}
    rules = [v["expression"] for v in POLICY["spec"]["validations"]]
    assert words(" ".join([*VARIABLES.values(), *rules])) == system | {released, gate}


def test_the_accounts_are_those_of_the_webhook_and_the_manifests() -> None:
    """Whoever the webhook trusts, and the controller, by the names of their ServiceAccounts."""
    prefix = VARIABLES["accounts"].strip("'")
    named = re.findall(r"\[('[a-z-]+'(?:, '[a-z-]+')*)\]", VARIABLES["writers"])
    accounts = {prefix + name.strip("'") for group in named for name in group.split(", ")}
    assert accounts == {*SYSTEM_USERS, CONTROLLER}
    made = {
        f"system:serviceaccount:{m['metadata']['namespace']}:{m['metadata']['name']}"
        for folder in ("rbac", "scheduler", "node-daemon")
        for file in (DEPLOY / folder).glob("*.yaml")
        for m in YAML(typ="safe").load_all(file)
        if m and m["kind"] == "ServiceAccount"
    }
    assert accounts <= made


def test_it_stands_on_every_road_that_the_webhook_watches() -> None:
    """And fails closed, in every namespace."""
    webhooks = [
        webhook
        for m in YAML(typ="safe").load_all(DEPLOY / "webhook" / "configurations.yaml")
        for webhook in m["webhooks"]
    ]
    watched = {road for webhook in webhooks for road in roads(webhook["rules"])}
    constraints = POLICY["spec"]["matchConstraints"]
    assert watched < roads(constraints["resourceRules"])
    assert set(constraints) == {"resourceRules"}
    assert POLICY["spec"]["failurePolicy"] == "Fail"
    assert BINDING["spec"] == {
        "policyName": POLICY["metadata"]["name"],
        "validationActions": ["Deny"],
    }


def test_another_namespace_reaches_it_as_the_page_says(
    tmp_path: Path, rendered: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """The patch of docs/threat-model.md changes the one place that names the namespace."""
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    patch = text.partition("```yaml\n")[2].partition("```")[0]
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(
        "resources: [../deploy/admission-policy]\n" + patch
    )
    made = str(rendered(tmp_path / "mine"))
    assert keys.SYSTEM_NAMESPACE not in made
    assert "system:serviceaccount:my-namespace:gpu-fraction-" in made
