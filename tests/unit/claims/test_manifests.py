"""``deploy/claims`` says what the code does."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gpu_fraction.claims.objects import WORKLOADS
from gpu_fraction.domain import dra, keys
from gpu_fraction.kube.resources import (
    CLAIM_TEMPLATES,
    DEVICE_CLASSES,
    NAMESPACES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Resource,
)
from gpu_fraction.settings.option import ENV_PREFIX

FOLDER = Path(__file__).parents[3] / "deploy" / "claims"
RBAC, POLICIES = (
    list(YAML(typ="safe").load_all(FOLDER / name)) for name in ("rbac.yaml", "policy.yaml")
)


def granted(resource: Resource) -> set[str]:
    """What the controller may do with it."""
    (role,) = (m for m in RBAC if m["kind"] == "ClusterRole")
    return {
        verb
        for rule in role["rules"]
        if resource.group in rule["apiGroups"] and resource.plural in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_controller_may_do_what_it_does_and_nothing_else() -> None:
    """It watches who needs templates, writes them, and touches one class."""
    watch = {"get", "list", "watch"}
    assert granted(CLAIM_TEMPLATES) == {*watch, "create", "delete"}
    read = (RESOURCE_CLAIMS, NAMESPACES, *(kind.resource for kind in WORKLOADS))
    assert all(granted(resource) == watch for resource in read)
    (role,) = (m for m in RBAC if m["kind"] == "ClusterRole")
    named = {name for rule in role["rules"] for name in rule["resources"]}
    assert granted(RESOURCE_SLICES) == {"list"}
    assert granted(DEVICE_CLASSES) == {"patch"}
    (touched,) = (rule for rule in role["rules"] if DEVICE_CLASSES.plural in rule["resources"])
    assert touched["resourceNames"] == [dra.FRACTION_CLASS]
    known = (CLAIM_TEMPLATES, RESOURCE_SLICES, DEVICE_CLASSES, *read)
    assert named == {resource.plural for resource in known}
    assert not any("secrets" in rule["resources"] for rule in role["rules"])


def policies() -> dict[str, dict[str, Any]]:
    """The policies by name."""
    return {
        m["metadata"]["name"]: m["spec"]
        for m in POLICIES
        if m["kind"] == "ValidatingAdmissionPolicy"
    }


def test_every_policy_is_bound_and_fails_closed() -> None:
    """None is there for show."""
    bound = {m["spec"]["policyName"] for m in POLICIES if m["kind"].endswith("Binding")}
    assert bound == policies().keys()
    assert {spec["failurePolicy"] for spec in policies().values()} == {"Fail"}
    actions = [m["spec"]["validationActions"] for m in POLICIES if m["kind"].endswith("Binding")]
    assert actions == [["Deny"]] * len(bound)


def test_the_policies_know_our_classes_and_our_account() -> None:
    """The classes of the driver, present and future, and the one account that makes templates."""
    text = (FOLDER / "policy.yaml").read_text(encoding="utf-8")
    suffixes = set(re.findall(r"endsWith\('([^']+)'\)", text))
    assert suffixes == {f".{dra.DRIVER}"}
    for name in (dra.FRACTION_CLASS, dra.WHOLE_CLASS, dra.MIG_CLASS):
        assert name.endswith(f".{dra.DRIVER}")
    (prefix,) = set(re.findall(r"startsWith\('([^']+)'\)", text))
    assert all(r.startswith(prefix) for r in dra.EXTENDED_RESOURCES)
    accounts = re.findall(r"system:serviceaccount:[a-z-]+:gpu-fraction-[a-z-]+", text)
    assert accounts == [f"system:serviceaccount:{keys.SYSTEM_NAMESPACE}:gpu-fraction-controller"]


def test_what_is_refused_is_the_condition() -> None:
    """The server evaluates a validation, and a message, for what is refused anyway."""
    for spec in policies().values():
        assert len(spec["matchConditions"]) == 1
        assert [validation["expression"] for validation in spec["validations"]] == ["false"]


def test_the_label_of_charged_pods_is_the_one_that_templates_have() -> None:
    """In both modes; no other label or value is asked for."""
    folders = (FOLDER, FOLDER.with_name("claims-charge"))
    texts = [path.read_text(encoding="utf-8") for f in folders for path in f.glob("*.yaml")]
    asked = [name for text in texts for name in re.findall(r"labels\)?\[\?'([^']+)'\]", text)]
    assert len(asked) == 6, asked
    assert set(asked) == {dra.CHARGED}


def test_where_claims_are_charged_both_components_know_it(
    rendered: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """The webhook is asked about claims, and the policy refuses none but those that lie."""
    shutil.copytree(FOLDER.parent, tmp_path / "deploy")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(
        "resources: [../deploy/default, ../deploy/claims]\n"
        "components: [../deploy/claims-charge]\n",
        encoding="utf-8",
    )
    made = {(one["kind"], one["metadata"]["name"]): one for one in rendered(mine)}
    for name in ("webhook", "controller"):
        pod = made["Deployment", f"gpu-fraction-{name}"]["spec"]["template"]["spec"]
        env = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
        assert env[f"{ENV_PREFIX}HAND_WRITTEN_CLAIMS"] == "charge"
    webhooks = made["ValidatingWebhookConfiguration", "gpu-fraction"]["webhooks"]
    [rule] = webhooks[-1]["rules"]
    assert (rule["resources"], rule["operations"]) == (["resourceclaims"], ["CREATE"])
    same = ("failurePolicy", "namespaceSelector", "sideEffects", "timeoutSeconds", "clientConfig")
    assert [webhooks[-1][key] for key in same] == [webhooks[0][key] for key in same]
    policy = made["ValidatingAdmissionPolicy", "gpu-fraction-claims"]["spec"]
    [condition] = policy["matchConditions"]
    assert condition["name"] == "charged-to-a-pod-by-hand"
    assert "the claim is charged" in policy["validations"][0]["message"]
