"""The release's name and namespace are free: parts know each other by the names they have."""

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli import controller, webhook
from gpu_fraction.domain import keys
from tests.support.chart import Helm, Rendered
from tests.support.settings import configured

NAMESPACE = "ml-infra"
RELEASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpu-fraction": ("gpu-fraction", {}),
    "sharing-gpu-fraction": ("sharing", {}),
    "a-very-long-name-of-a-release-that-somebody": (
        "a-very-long-name-of-a-release-that-somebody-typed",
        {},
    ),
    "shares-gpu": ("shares", {"nameOverride": "gpu"}),
    "gpus": ("anything", {"fullnameOverride": "gpus"}),
    "on": ("1e3", {"fullnameOverride": "on", "nameOverride": "on"}),
    "team-a-gpu-fraction": ("team.a", {}),
    "a-name-with-a-dot-where-the-name-is-cut-off": (
        "a-name-with-a-dot-where-the-name-is-cut-off.there",
        {},
    ),
}
"""What names of objects begin with, by the release's name and values."""
DRA = {"backend": "dra", "dra": {"enabled": True}}


@pytest.fixture(params=RELEASES)
def prefix(request: pytest.FixtureRequest) -> str:
    """What names of objects begin with."""
    return str(request.param)


@pytest.fixture
def release(helm: Helm, prefix: str) -> Rendered:
    """A release with that prefix in a namespace of its own choice."""
    name, values = RELEASES[prefix]
    return helm.template(
        {**values, "networkPolicy": {"enabled": True}}, name=name, namespace=NAMESPACE
    )


def rules(role: dict[str, Any], resource: str) -> set[str]:
    """The names that a role gives rights on."""
    found = (r for r in role["rules"] if resource in r["resources"])
    return {name for rule in found for name in rule.get("resourceNames", ())}


def account(prefix: str, component: str) -> str:
    """The user name of a component's account."""
    return f"system:serviceaccount:{NAMESPACE}:{prefix}-{component}"


def test_names_begin_with_the_release(release: Rendered, prefix: str) -> None:
    """But for the definition of GPUQuotas; and all are in its namespace."""
    for one in release.objects:
        name, namespace = one["metadata"]["name"], one["metadata"].get("namespace", NAMESPACE)
        assert name == prefix or name.startswith(f"{prefix}-") or one["kind"].startswith("Custom")
        assert namespace == ("kube-system" if name.endswith("-reader") else NAMESPACE)
        assert len(name) <= 63 or one["apiVersion"].startswith("rbac.")
    assert keys.SYSTEM_NAMESPACE not in release.text


def test_certificates(release: Rendered, prefix: str) -> None:
    """Both programs look after the Service and the configurations of this release."""
    seen = configured(webhook.Settings, release.environment("-webhook")).certificate.shared
    kept = configured(controller.Settings, release.environment("-controller")).certificates
    assert kept.shared == seen
    names = seen.installation
    (service,) = release.kind("Service")
    assert names.server_names[0] == f"{service['metadata']['name']}.{NAMESPACE}.svc"
    for kind, known in (("Mutating", names.mutating), ("Validating", names.validating)):
        (config,) = release.kind(f"{kind}WebhookConfiguration")
        assert known == (config["metadata"]["name"],)
        for one in config["webhooks"]:
            called = one["clientConfig"]["service"]
            assert (called["name"], called["namespace"]) == (names.service, NAMESPACE)
            (term,) = one["namespaceSelector"]["matchExpressions"]
            assert term["values"] == ["kube-system", NAMESPACE]
    for role in ("certificates-lead", "certificates-serve"):
        assert rules(release.named("Role", role), "secrets") == {names.secret}
        configurations = rules(release.named("ClusterRole", role), "mutatingwebhookconfigurations")
        assert configurations == {prefix}
    assert rules(release.named("ClusterRole", "-webhook"), "validatingwebhookconfigurations") == {
        prefix
    }
    assert rules(release.named("Role", "-lead"), "leases") == {names.election}


def test_leases(release: Rendered) -> None:
    """Each elects by a Lease that its role allows, in the release's namespace."""
    counting = configured(controller.Settings, release.environment("-controller")).counting
    assert rules(release.named("Role", "-controller"), "leases") == {counting.lease_name}
    assert counting.lease_namespace == NAMESPACE
    (config,) = release.kind("ConfigMap")
    election = YAML(typ="safe").load(config["data"]["config.yaml"])["leaderElection"]
    assert rules(release.named("Role", "-scheduler-lease"), "leases") == {election["resourceName"]}
    assert election["resourceNamespace"] == NAMESPACE
    (volume,) = (v for v in release.pod("-scheduler")["volumes"] if "configMap" in v)
    assert volume["configMap"]["name"] == config["metadata"]["name"]


def test_accounts(release: Rendered, prefix: str) -> None:
    """Pods run as accounts that exist; bindings, policy and webhook name the same."""
    made = {m["metadata"]["name"] for m in release.kind("ServiceAccount")}
    assert {m["spec"]["template"]["spec"]["serviceAccountName"] for m in release.workloads} == made
    roles = {(m["kind"], m["metadata"]["name"]) for m in release.objects if "rules" in m}
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in release.kind(kind):
            (subject,) = binding["subjects"]
            assert (subject["name"] in made, subject["namespace"]) == (True, NAMESPACE)
            role = (binding["roleRef"]["kind"], binding["roleRef"]["name"])
            assert role in roles or role[1].startswith(("system:", "extension-apiserver"))
    trusted = configured(webhook.Settings, release.environment("-webhook")).serving.system_users
    assert trusted == {account(prefix, "scheduler"), account(prefix, "node-daemon")}
    (policy,) = release.kind("ValidatingAdmissionPolicy")
    assert policy["spec"]["variables"][0]["expression"] == f"'{account(prefix, '')}'"


def test_policies_of_claims_know_the_accounts(helm: Helm, prefix: str) -> None:
    """Who makes templates, and who writes slices."""
    name, values = RELEASES[prefix]
    made = helm.template({**values, **DRA}, name=name, namespace=NAMESPACE)
    named = re.findall(
        r"system:serviceaccount:[\w:-]+", str(made.kind("ValidatingAdmissionPolicy"))
    )
    ours = {one for one in named if "kube-system" not in one}
    assert ours == {account(prefix, part) for part in ("", "controller", "node-daemon")}
    policies = {m["metadata"]["name"] for m in made.kind("ValidatingAdmissionPolicy")}
    bindings = made.kind("ValidatingAdmissionPolicyBinding")
    assert {m["spec"]["policyName"] for m in bindings} == policies


def test_selectors_choose_one_components_pods(release: Rendered) -> None:
    """Of Service, budgets, network policies and workloads; no version is in them."""
    pods = [m["spec"]["template"]["metadata"]["labels"] for m in release.workloads]
    selectors = [
        *(m["spec"]["selector"]["matchLabels"] for m in release.workloads),
        *(m["spec"]["selector"]["matchLabels"] for m in release.kind("PodDisruptionBudget")),
        *(m["spec"]["podSelector"]["matchLabels"] for m in release.kind("NetworkPolicy")),
        *(m["spec"]["selector"] for m in release.kind("Service")),
    ]
    assert len(selectors) == 4 + 3 + 4 + 1
    for selector in selectors:
        chosen = [labels for labels in pods if selector.items() <= labels.items()]
        assert len(chosen) == 1, selector
        assert {key.rpartition("/")[2] for key in selector} == {"name", "instance", "component"}


def test_priority_classes(release: Rendered) -> None:
    """Pods have the classes that the release makes."""
    made = {m["metadata"]["name"] for m in release.kind("PriorityClass")}
    used = {m["spec"]["template"]["spec"]["priorityClassName"] for m in release.workloads}
    assert used == made
    assert not release.kind("ResourceQuota")


def test_cert_manager(helm: Helm, prefix: str) -> None:
    """Its Certificate is for our Service and into the Secret that is mounted."""
    name, values = RELEASES[prefix]
    made = helm.template(
        {**values, "certificates": {"mode": "cert-manager"}}, name=name, namespace=NAMESPACE
    )
    pair = made.named("Certificate", "-webhook")
    (volume,) = made.pod("-webhook")["volumes"]
    assert volume["secret"]["secretName"] == pair["spec"]["secretName"]
    (service,) = made.kind("Service")
    assert pair["spec"]["dnsNames"] == [f"{service['metadata']['name']}.{NAMESPACE}.svc"]
    authority = made.named("Certificate", "-ca")["spec"]["secretName"]
    assert made.named("Issuer", "-ca")["spec"] == {"ca": {"secretName": authority}}
    (config,) = made.kind("MutatingWebhookConfiguration")
    injected = config["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert injected == f"{NAMESPACE}/{pair['metadata']['name']}"
