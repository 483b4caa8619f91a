"""``deploy/claims`` says what the code does."""

import re
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
    assert all(granted(r) == watch for r in (NAMESPACES, *(kind.resource for kind in WORKLOADS)))
    (role,) = (m for m in RBAC if m["kind"] == "ClusterRole")
    named = {name for rule in role["rules"] for name in rule["resources"]}
    for read in (RESOURCE_CLAIMS, RESOURCE_SLICES):
        assert granted(read) == {"list"}
    assert granted(DEVICE_CLASSES) == {"patch"}
    (touched,) = (rule for rule in role["rules"] if DEVICE_CLASSES.plural in rule["resources"])
    assert touched["resourceNames"] == [dra.FRACTION_CLASS]
    looks = (RESOURCE_CLAIMS, RESOURCE_SLICES, DEVICE_CLASSES)
    known = (CLAIM_TEMPLATES, NAMESPACES, *looks, *(kind.resource for kind in WORKLOADS))
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
