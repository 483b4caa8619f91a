"""What single values change."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.cli import controller, webhook
from tests.support.chart import CHART, PROVIDED, Helm, Object, Rendered
from tests.support.settings import configured

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
ONE = {part: {"replicas": 1} for part in ("webhook", "controller", "scheduler")}


def images(release: Rendered) -> set[str]:
    """The images of all containers."""
    return {container["image"] for container in release.containers}


def daemon(helm: Helm, **values: Any) -> Object:
    """The pod of the node daemon."""
    return helm.template(values).pod("-node-daemon")


@pytest.mark.parametrize(
    ("kubernetes", "tag"),
    [
        ("v1.37.2", "v1.37.2"),
        ("v1.34.1+k3s1", "v1.34.1"),
        ("v1.35.4-eks-3abbec1", "v1.35.4"),
        ("v1.36.0-gke.1002", "v1.36.0"),
        ("v1.36.12+rke2r1", "v1.36.12"),
    ],
)
def test_the_scheduler_is_of_the_servers_version(helm: Helm, kubernetes: str, tag: str) -> None:
    """Suffixes of distributions are no tags, and pass the chart's condition too."""
    assert f"registry.k8s.io/kube-scheduler:{tag}" in images(helm.template(kubernetes=kubernetes))


def test_a_tag_of_ones_own_wins(helm: Helm) -> None:
    """As for a server without a published image."""
    values = {"scheduler": {"image": {"tag": "v1.36.1-mine"}}, "image": {"tag": "0.9.0"}}
    assert images(helm.template(values)) == {
        "gpu-fraction:0.9.0",
        "registry.k8s.io/kube-scheduler:v1.36.1-mine",
    }


def test_one_registry_holds_all_images(helm: Helm) -> None:
    """Also with a path; a digest takes precedence over the tag."""
    image = {"tag": "0.9.0", "digest": DIGEST, "repository": "infra/gpu-fraction"}
    values = {"imageRegistry": "mirror.example:5000/k8s", "image": image}
    assert images(helm.template(values)) == {
        f"mirror.example:5000/k8s/infra/gpu-fraction@{DIGEST}",
        "mirror.example:5000/k8s/kube-scheduler:v1.37.2",
    }


def test_a_budget_never_blocks_a_drain(helm: Helm) -> None:
    """One replica has none; several may lose one."""
    assert not helm.template(ONE).kind("PodDisruptionBudget")
    budgets = helm.template().kind("PodDisruptionBudget")
    assert [one["spec"]["maxUnavailable"] for one in budgets] == [1, 1, 1]
    off = {"podDisruptionBudget": {"enabled": False}}
    assert not helm.template(off).kind("PodDisruptionBudget")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ["controller", "node-daemon", "scheduler", "webhook"]),
        ({"backend": "hami"}, ["controller", "webhook"]),
        (
            {"backend": "hami", "settings": {"namespace_backends": ["native"]}},
            ["controller", "node-daemon", "scheduler", "webhook"],
        ),
        ({"backend": "dra", "dra": {"enabled": True}}, ["controller", "node-daemon", "webhook"]),
        ({"nodeDaemon": {"enabled": False}}, ["controller", "scheduler", "webhook"]),
    ],
    ids=str,
)
def test_parts_run_where_a_backend_needs_them(
    helm: Helm, values: dict[str, Any], parts: list[str]
) -> None:
    """With their accounts, and no others."""
    made = helm.template(values)
    for kind in (made.workloads, made.kind("ServiceAccount")):
        found = [m["metadata"]["labels"]["app.kubernetes.io/component"] for m in kind]
        assert sorted(found) == parts


def test_settings_reach_the_programs_that_know_them(helm: Helm) -> None:
    """Numbers without an exponent, lists and mappings as flags have them."""
    values = {
        "settings": {
            "max_memory": 2097152,
            "gpu_memory_by_model": {"A100": 81920, "T4": "15Gi"},
            "require_quota": ["cores", "memory"],
            "allow_pod_backend": True,
            "log_level": "debug",
            "slots_per_card": 16,
            "left_to_schedulers": [1000000],
        }
    }
    made = helm.template(values)
    admitting = configured(webhook.Settings, made.environment("-webhook"))
    assert admitting.rewriting.max_memory_mib == 2097152
    assert admitting.quotas.require_quota == {"cores", "memory"}
    assert admitting.rewriting.allow_pod_backend
    assert made.environment("-webhook")["GPU_FRACTION_LEFT_TO_SCHEDULERS"] == "1000000"
    counting = configured(controller.Settings, made.environment("-controller"))
    assert counting.costs == admitting.rewriting.stacks.costs
    knows = {
        part: {name for name in values["settings"] if f"GPU_FRACTION_{name.upper()}" in told}
        for part in ("webhook", "controller", "scheduler", "node-daemon")
        if (told := made.environment(f"-{part}"))
    }
    assert knows["node-daemon"] == {"log_level", "slots_per_card"}
    assert knows["scheduler"] == {"log_level"}
    assert knows["controller"] == {"gpu_memory_by_model", "log_level"}


def test_arguments_variables_and_labels_of_ones_own(helm: Helm) -> None:
    """They are added to what the chart says."""
    own = {
        "extraArgs": ["--log-level=debug"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "podLabels": {"cost": "infra"},
        "podAnnotations": {"seen": "yes"},
    }
    made = helm.template({"webhook": own, "controller": own, "nodeDaemon": own})
    for part in ("webhook", "controller", "node-daemon"):
        (workload,) = (m for m in made.workloads if m["metadata"]["name"].endswith(f"-{part}"))
        template = workload["spec"]["template"]
        assert template["metadata"]["labels"]["cost"] == "infra"
        assert template["metadata"]["annotations"] == {"seen": "yes"}
        (container,) = template["spec"]["containers"]
        assert container["args"] == [part, "--log-level=debug"]
        assert made.environment(f"-{part}")["HTTPS_PROXY"] == "http://proxy:3128"


def test_the_daemon_tolerates_the_taint_of_gpu_nodes(helm: Helm) -> None:
    """Whatever its value and effect; a list of one's own replaces it."""
    assert daemon(helm)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert daemon(helm)["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    everything = [{"operator": "Exists"}]
    pod = daemon(helm, nodeDaemon={"tolerations": everything, "nodeSelector": {"pool": "gpu"}})
    assert pod["tolerations"] == everything
    assert pod["nodeSelector"] == {"pool": "gpu"}


def test_simulated_cards_need_no_gpu_node(helm: Helm) -> None:
    """No driver, runtime class or label; they are told to the program."""
    cards = {"count": 4, "model": "NVIDIA H100 80GB HBM3", "memory": "81559Mi"}
    pod = daemon(helm, simulatedCards=cards, nodeDaemon={"runtimeClassName": "nvidia"})
    assert not {"nodeSelector", "runtimeClassName"} & pod.keys()
    (container,) = pod["containers"]
    assert "NVIDIA" not in str(container["env"])
    assert container["args"] == [
        "node-daemon",
        "--simulated-cards=4",
        "--simulated-model=NVIDIA H100 80GB HBM3",
        "--simulated-memory=81559Mi",
    ]


def test_a_kubelet_with_another_root(helm: Helm) -> None:
    """The daemon finds it there; sockets of device plugins stay where every kubelet has them."""
    root = "/var/lib/k0s/kubelet"
    pod = daemon(helm, nodeDaemon={"kubeletRoot": root})
    hosts = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"]}
    mounts = {m["mountPath"]: hosts[m["name"]] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts[root] == root
    assert mounts[f"{root}/device-plugins"] == "/var/lib/kubelet/device-plugins"
    assert {"name": "GPU_FRACTION_KUBELET_DIR", "value": root} in pod["containers"][0]["env"]


def test_a_port_of_ones_own(helm: Helm) -> None:
    """Service, probes and policy follow it."""
    made = helm.template({"webhook": {"port": 10250}, "networkPolicy": {"enabled": True}})
    settings = configured(webhook.Settings, made.environment("-webhook"))
    (container,) = made.pod("-webhook")["containers"]
    assert settings.serving.port == 10250
    assert container["ports"] == [{"name": "https", "containerPort": 10250}]
    assert container["readinessProbe"]["httpGet"]["port"] == "https"
    assert made.kind("Service")[0]["spec"]["ports"][0]["targetPort"] == "https"
    policy = made.named("NetworkPolicy", "-webhook")["spec"]["ingress"]
    assert policy == [{"ports": [{"protocol": "TCP", "port": 10250}]}]


def test_the_hosts_network(helm: Helm) -> None:
    """No pod is added before one is gone, because the port of the host would be taken."""
    made = helm.template({"webhook": {"hostNetwork": True}})
    pod = made.pod("-webhook")
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    strategy = made.named("Deployment", "-webhook")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}


def test_openshift_chooses_the_users(helm: Helm) -> None:
    """But the daemon's account alone may use the SCC for privileged pods."""
    made = helm.template({"openshift": True})
    for part in ("webhook", "controller", "scheduler"):
        assert not {"runAsUser", "runAsGroup"} & made.pod(f"-{part}")["securityContext"].keys()
    granted = [m for m in made.kind("RoleBinding") if "scc" in m["roleRef"]["name"]]
    assert [m["subjects"][0]["name"] for m in granted] == ["gpu-fraction-node-daemon"]


def test_webhook_configurations(helm: Helm) -> None:
    """Policy, time, annotations and selectors of both, for clusters that want others."""
    term = {"key": "control-plane", "operator": "NotIn", "values": ["true"]}
    values = {
        "failurePolicy": "Ignore",
        "timeoutSeconds": 10,
        "annotations": {"admissions.enforcer/disabled": "true"},
        "namespaceSelector": [term],
    }
    made = helm.template({"webhook": values, "certificates": {"mode": "cert-manager"}})
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        (config,) = made.kind(kind)
        assert config["metadata"]["annotations"] == {
            **values["annotations"],
            "cert-manager.io/inject-ca-from": "gpu-fraction-system/gpu-fraction-webhook",
        }
        for one in config["webhooks"]:
            assert (one["failurePolicy"], one["timeoutSeconds"]) == ("Ignore", 10)
            assert one["namespaceSelector"]["matchExpressions"][1:] == [term]


@pytest.mark.parametrize("mode", ["cert-manager", "provided"])
def test_nobody_else_writes_ca_bundles(helm: Helm, mode: str) -> None:
    """The controller is told to leave them alone, and has no right to."""
    made = helm.template({"certificates": PROVIDED if mode == "provided" else {"mode": mode}})
    kept = configured(controller.Settings, made.environment("-controller")).certificates
    assert not kept.manage_certificates
    assert not [m for m in made.objects if "certificates-" in m["metadata"]["name"]]
    served = configured(webhook.Settings, made.environment("-webhook")).certificate
    (mount,) = made.pod("-webhook")["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == str(served.directory)


def test_the_definition_of_quotas(helm: Helm) -> None:
    """It is upgraded with the release and outlives it, or is neither."""
    (kept,) = helm.template().kind("CustomResourceDefinition")
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (removed,) = helm.template({"crds": {"keep": False}}).kind("CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in str(removed)
    assert not helm.template({"crds": {"install": False}}).kind("CustomResourceDefinition")


def test_priority_classes_of_the_system(helm: Helm) -> None:
    """They come with the ResourceQuota without which GKE refuses the pods."""
    made = helm.template({"priorityClass": {"create": False}})
    (quota,) = made.kind("ResourceQuota")
    (term,) = quota["spec"]["scopeSelector"]["matchExpressions"]
    used = {m["spec"]["template"]["spec"]["priorityClassName"] for m in made.workloads}
    assert used == set(term["values"]) == {"system-cluster-critical", "system-node-critical"}
    assert not made.kind("PriorityClass")


@pytest.mark.parametrize("name", ["", "true", "123"])
def test_a_priority_class_of_somebody_else(helm: Helm, name: str) -> None:
    """Or none; a ResourceQuota names those of the system alone, and names stay text."""
    made = helm.template({"priorityClass": {"create": False, "controlPlane": name}})
    assert made.pod("-webhook")["priorityClassName"] == name
    (quota,) = made.kind("ResourceQuota")
    (term,) = quota["spec"]["scopeSelector"]["matchExpressions"]
    assert term["values"] == [one for one in (name, "system-node-critical") if one]


def test_a_namespace_of_the_release(helm: Helm) -> None:
    """Where it makes its own, privileged pods are allowed in it."""
    assert not helm.template().kind("Namespace")
    (made,) = helm.template({"namespace": {"create": True}}).kind("Namespace")
    assert made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_locks_may_be_left_out(helm: Helm) -> None:
    """On system annotations."""
    assert not helm.template({"admissionPolicy": {"enabled": False}}).kind(
        "ValidatingAdmissionPolicy"
    )


def test_claims_by_hand_are_charged_as_pods_are(helm: Helm) -> None:
    """By the webhook with its policy, time and namespaces; no lock but on claims that lie goes."""
    term = {"key": "control-plane", "operator": "NotIn", "values": ["true"]}
    one = {"failurePolicy": "Ignore", "timeoutSeconds": 10, "namespaceSelector": [term]}
    refused = {"backend": "dra", "dra": {"enabled": True}, "webhook": one}
    charged = {**refused, "dra": {"enabled": True, "handWrittenClaims": "charge"}}
    kind = "ValidatingAdmissionPolicy"
    before, after = (helm.template(values) for values in (refused, charged))
    assert [m["metadata"] for m in before.kind(kind)] == [m["metadata"] for m in after.kind(kind)]
    pods, _, claims = after.kind("ValidatingWebhookConfiguration")[0]["webhooks"]
    same = ("failurePolicy", "namespaceSelector", "sideEffects", "timeoutSeconds", "clientConfig")
    assert [claims[key] for key in same] == [pods[key] for key in same]
    for suffix in ("-webhook", "-controller"):
        assert after.environment(suffix)["GPU_FRACTION_HAND_WRITTEN_CLAIMS"] == "charge"


def test_drivers_surge_by_the_number_of_nodes_that_may_be_updated(helm: Helm) -> None:
    """The next DRA driver is there first; a second device plugin would end at once."""
    for values, strategy in (
        ({}, {"maxUnavailable": "10%"}),
        ({"backend": "dra", "dra": {"enabled": True}}, {"maxSurge": "10%", "maxUnavailable": 0}),
    ):
        made = helm.template({**values, "nodeDaemon": {"maxUnavailable": "10%"}})
        (daemon,) = made.kind("DaemonSet")
        assert daemon["spec"]["updateStrategy"] == {"rollingUpdate": strategy}


def test_a_driver_may_not_change_pods(helm: Helm) -> None:
    """The device plugin alone writes what the scheduler's extender did not."""
    for values, verbs in (
        ({}, {"list", "watch", "patch"}),
        ({"backend": "dra", "dra": {"enabled": True}}, {"list", "watch"}),
    ):
        rules = helm.template(values).named("ClusterRole", "-node-daemon")["rules"]
        assert {v for r in rules if "pods" in r["resources"] for v in r["verbs"]} == verbs


def test_monitoring_asks_every_part(helm: Helm) -> None:
    """Each has exactly one of the ports."""
    made = helm.template({"monitoring": {"enabled": True, "labels": {"release": "prometheus"}}})
    (monitor,) = made.kind("PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    asked = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    for workload in made.workloads:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        containers = workload["spec"]["template"]["spec"]["containers"]
        ports = [port["name"] for c in containers for port in c.get("ports", ())]
        assert len([port for port in ports if port in asked]) == 1


def test_network_policies_name_every_port_that_is_served(helm: Helm) -> None:
    """And let each part reach DNS and the API server."""
    made = helm.template({"networkPolicy": {"enabled": True, "apiServerPorts": [7443]}})
    for workload in made.workloads:
        name = workload["metadata"]["name"]
        containers = workload["spec"]["template"]["spec"]["containers"]
        ports = {port["containerPort"] for c in containers for port in c.get("ports", ())}
        policy = made.named("NetworkPolicy", name)["spec"]
        assert {p["port"] for rule in policy["ingress"] for p in rule["ports"]} == ports
        assert {p["port"] for rule in policy["egress"] for p in rule["ports"]} == {53, 7443}
    elsewhere = helm.template({"networkPolicy": {"enabled": True}, "openshift": True})
    for policy in elsewhere.kind("NetworkPolicy"):
        ports = {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}
        assert ports == {53, 5353, 443, 6443}, "OpenShift's DNS pods listen on 5353"


def test_the_webhook_can_be_kept_from_tenants(helm: Helm) -> None:
    """Who may reach it is named; the other parts answer to everybody who reaches them."""
    peers = [{"ipBlock": {"cidr": "10.0.0.0/28"}}]
    made = helm.template({"networkPolicy": {"enabled": True, "webhookFrom": peers}})
    found = {
        policy["metadata"]["labels"]["app.kubernetes.io/component"]: policy["spec"]["ingress"]
        for policy in made.kind("NetworkPolicy")
    }
    assert [rule["from"] for rule in found.pop("webhook")] == [peers]
    assert found
    assert not any("from" in rule for rules in found.values() for rule in rules)


def test_it_can_be_a_part_of_another_chart(helm: Helm, tmp_path: Path) -> None:
    """With the parent's globals and condition, and under another name there."""
    (tmp_path / "charts").mkdir()
    shutil.copytree(CHART, tmp_path / "charts" / "gpu-fraction")
    (tmp_path / "Chart.yaml").write_text(
        "{apiVersion: v2, name: platform, version: 1.0.0, dependencies: [{name: gpu-fraction,"
        " version: '>=0.0.0-0', alias: gpus, condition: gpus.enabled, repository: ''}]}"
    )
    words = ("template", "ours", str(tmp_path), "--namespace=ours", "--set=global.region=eu")
    assert 'name: "ours-gpus-webhook"' in helm(*words, "--set=gpus.backend=hami")
    assert not helm(*words, "--set=gpus.enabled=false").strip()
