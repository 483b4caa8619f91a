"""Values that would install and not work are refused, by name and with what to set."""

from typing import Any

import pytest

from tests.support.chart import PROVIDED, Helm


def refusal(helm: Helm, values: dict[str, Any], **release: str) -> str:
    """What Helm says."""
    with pytest.raises(ValueError, match="Error:") as raised:
        helm.template(values, **release)
    return str(raised.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"webhok": {}}, "additional properties 'webhok' not allowed"),
        ({"dashboard": {"enabled": True}}, "additional properties 'dashboard' not allowed"),
        ({"webhook": {"replica": 3}}, "at '/webhook': additional properties 'replica'"),
        ({"webhook": {"replicas": 0}}, "at '/webhook/replicas': minimum: got 0, want 1"),
        ({"webhook": {"port": 443}}, "at '/webhook/port': minimum: got 443, want 1,024"),
        ({"webhook": {"resources": {"request": {}}}}, "additional properties 'request'"),
        ({"webhook": {"failurePolicy": "Open"}}, "one of 'Fail', 'Ignore'"),
        ({"backend": "hammy"}, "at '/backend': value must be one of 'native'"),
        ({"settings": {"max_card": 8}}, "at '/settings': additional properties 'max_card'"),
        ({"settings": {"cert_service": "x"}}, "additional properties 'cert_service'"),
        ({"scheduler": {"enabled": "yes"}}, "one of 'auto', true, false"),
        ({"scheduler": {"image": {"tag": "v1.37.2+k3s1"}}}, "at '/scheduler/image/tag'"),
        ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'"),
        ({"image": {"repository": "gpu-fraction:1.0"}}, "at '/image/repository'"),
        ({"imageRegistry": "https://mirror.example"}, "at '/imageRegistry'"),
        (
            {"commonLabels": {"app.kubernetes.io/name": "x"}},
            "at '/commonLabels/app.kubernetes.io~1name'",
        ),
        ({"nodeDaemon": {"isolation": ["mig"]}}, "at '/nodeDaemon/isolation/0'"),
        ({"nodeDaemon": {"kubeletRoot": "var/lib"}}, "at '/nodeDaemon/kubeletRoot'"),
        ({"nodeDaemon": {"kubeletRoot": "/x, readOnly: true"}}, "at '/nodeDaemon/kubeletRoot'"),
        ({"nodeDaemon": {"runtimeClassName": "a\nhostNetwork: true"}}, "/runtimeClassName'"),
        ({"priorityClass": {"controlPlane": "a]}"}}, "at '/priorityClass/controlPlane'"),
        ({"certificates": {"provided": {"secretName": "x}"}}}, "/provided/secretName'"),
        ({"webhook": None}, "missing property 'webhook'"),
        ({"scheduler": {"image": None}}, "missing property 'image'"),
        ({"backend": None}, "missing property 'backend'"),
        ({"simulatedCards": {"memory": "2000Gi"}}, "at '/simulatedCards/memory'"),
        ({"simulatedCards": {"model": "x" * 97}}, "at '/simulatedCards/model'"),
        ({"simulatedCards": {"memory": "80GB"}}, "at '/simulatedCards/memory'"),
        ({"certificates": {"mode": "vault"}}, "one of 'self', 'cert-manager', 'provided'"),
        ({"openshift": "true"}, "at '/openshift': got string, want boolean"),
    ],
    ids=str,
)
def test_the_schema_is_closed(helm: Helm, values: dict[str, Any], said: str) -> None:
    """An unknown or misspelt value is an error, and not silently nothing."""
    assert said in refusal(helm, values)


@pytest.mark.parametrize(
    ("values", "release", "said"),
    [
        ({}, {"namespace": "default"}, "namespace default: the webhook sees no pods of its own"),
        (
            {"dra": {"enabled": True}, "backend": "dra"},
            {"kubernetes": "v1.35.3-gke.100"},
            "dra.enabled: needs Kubernetes 1.36 or newer, this is v1.35.3-gke.100; set",
        ),
        ({"backend": "dra"}, {}, "dra.enabled: the backend dra (backend, settings"),
        ({"settings": {"namespace_backends": "hami, dra"}}, {}, "set dra.enabled=true"),
        ({"dra": {"enabled": True}}, {}, "dra.enabled: the node daemon serves either"),
        (
            {"dra": {"handWrittenClaims": "charge"}},
            {},
            "dra.handWrittenClaims: charge is for the driver's claims; set dra.enabled=true",
        ),
        ({"scheduler": {"enabled": False}}, {}, "set scheduler.enabled=true or another backend"),
        (
            {"backend": "hami", "simulatedCards": {"count": 2}},
            {},
            "simulatedCards.count: the node daemon simulates cards and does not run",
        ),
        (
            {"webhook": {"hostNetwork": True, "port": 10250}},
            {},
            "webhook.port: 10250 is the kubelet's in the host's network; set another",
        ),
        (
            {"webhook": {"hostNetwork": True}, "openshift": True},
            {},
            "webhook.hostNetwork: OpenShift's SCC restricted-v2 refuses it",
        ),
        ({"certificates": {"mode": "provided"}}, {}, "certificates.provided.secretName and"),
        (
            {"certificates": {**PROVIDED, "provided": {"secretName": "own", "caBundle": "AAAA"}}},
            {},
            "certificates.provided.caBundle: is no PEM certificate in base64",
        ),
        (
            {"certificates": {**PROVIDED, "mode": "self"}},
            {},
            "certificates.provided: is not used by mode self",
        ),
        (
            {"certificates": {"certManager": {"issuerRef": {"name": "ours"}}}},
            {},
            "certificates.certManager: is not used by mode self",
        ),
        (
            {"namespace": {"create": True, "podSecurity": "baseline"}},
            {},
            "namespace.podSecurity: baseline refuses the node daemon's pods",
        ),
        (
            {
                "backend": "hami",
                "namespace": {"create": True, "podSecurity": "baseline"},
                "webhook": {"hostNetwork": True},
            },
            {},
            "namespace.podSecurity: baseline refuses pods in the host's network",
        ),
        (
            {"imageRegistry": "a.example", "image": {"repository": "b.example:5000/x"}},
            {},
            "image.repository: b.example:5000/x has a registry of its own",
        ),
        ({}, {"name": "1e3"}, "fullnameOverride: names would begin with 1e3-gpu-fraction"),
        (
            {"backend": "kai"},
            {"name": "zeta"},
            "fullnameOverride: webhooks are called in the order of their names",
        ),
        (
            {"webhook": {"extraEnv": [{"name": "GPU_FRACTION_MAX_CARDS", "value": "8"}]}},
            {},
            "webhook.extraEnv: GPU_FRACTION_MAX_CARDS is a setting; set settings.max_cards",
        ),
        ({}, {"kubernetes": "v1.33.9"}, "chart requires kubeVersion: >=1.34.0-0"),
    ],
    ids=str,
)
def test_combinations(
    helm: Helm, values: dict[str, Any], release: dict[str, str], said: str
) -> None:
    """Each message begins with the value."""
    assert said in refusal(helm, values, **release)


@pytest.mark.parametrize(
    "values",
    [
        {"global": {"anything": {"of": "a parent chart"}}, "enabled": True},
        {"certificates": PROVIDED},
        {"webhook": {"port": 10250}},
        {"image": {"repository": "registry.example:5000/infra/gpu-fraction"}},
        {"commonLabels": {"a": "1"}, "webhook": {"podLabels": {"a": "2"}}},
        {"backend": "hami", "namespace": {"create": True, "podSecurity": "restricted"}},
        {"backend": "hami", "settings": {"namespace_backends": ["dra"]}, "dra": {"enabled": True}},
    ],
    ids=str,
)
def test_what_is_near_a_refusal_passes(helm: Helm, values: dict[str, Any]) -> None:
    """No message is too strict."""
    assert helm.template(values).workloads
