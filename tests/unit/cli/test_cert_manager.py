"""``deploy/cert-manager``: who provides what, and that nobody else does."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.certs.settings import Installation
from gpu_fraction.cli import controller, webhook
from tests.support.settings import configured

DEPLOY = Path(__file__).parents[3] / "deploy"
Objects = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def objects(rendered: Callable[[Path], list[dict[str, Any]]]) -> Objects:
    """What ``kubectl apply -k`` would send, by kind."""
    found: Objects = defaultdict(list)
    for document in rendered(DEPLOY / "cert-manager"):
        found[document["kind"]].append(document)
    return found


def pod_of(objects: Objects, name: str) -> dict[str, Any]:
    """The pod that a Deployment makes."""
    (found,) = (d for d in objects["Deployment"] if d["metadata"]["name"] == name)
    return dict(found["spec"]["template"]["spec"])


def environ(pod: dict[str, Any]) -> dict[str, str]:
    """The variables with a value that its only container gets."""
    (container,) = pod["containers"]
    return {e["name"]: e["value"] for e in container["env"] if "value" in e}


def test_the_webhook_serves_the_pair_that_cert_manager_writes(objects: Objects) -> None:
    """Folder, volume, Secret and Certificate belong together, for the Service's name."""
    pod = pod_of(objects, "gpu-fraction-webhook")
    settings = configured(webhook.Settings, environ(pod)).certificate
    assert settings.provided
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == str(settings.directory)
    (volume,) = (v for v in pod["volumes"] if v["name"] == mount["name"])
    certificates = {c["spec"]["secretName"]: c for c in objects["Certificate"]}
    pair = certificates[volume["secret"]["secretName"]]
    assert Installation().server_names[0] in pair["spec"]["dnsNames"]
    where = f"{pair['metadata']['namespace']}/{pair['metadata']['name']}"
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        (config,) = objects[kind]
        assert config["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == where


def test_nobody_else_writes_ca_bundles(objects: Objects) -> None:
    """The controller is told to leave them alone, and no account of ours has the right to."""
    told = environ(pod_of(objects, "gpu-fraction-controller"))
    assert not configured(controller.Settings, told).certificates.manage_certificates
    verbs = {
        verb
        for role in objects["ClusterRole"]
        for rule in role["rules"]
        if "admissionregistration.k8s.io" in rule["apiGroups"]
        for verb in rule["verbs"]
    }
    assert verbs == {"get", "list", "watch"}
    roles = {r["metadata"]["name"] for kind in ("Role", "ClusterRole") for r in objects[kind]}
    bound = {
        b["roleRef"]["name"]
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for b in objects[kind]
    }
    assert bound <= roles
