"""What the chart installs, by its values."""

import re

import pytest

from gpu_fraction.cli import controller, node_daemon, scheduler_extender, webhook
from gpu_fraction.settings.declaration import options_of
from gpu_fraction.settings.option import ENV_PREFIX
from tests.support.chart import COMBINATIONS, PEM, Helm, Rendered


@pytest.fixture(params=COMBINATIONS)
def release(request: pytest.FixtureRequest, helm: Helm) -> Rendered:
    """The objects of one combination of values."""
    return helm.template(COMBINATIONS[request.param])


def test_only_the_node_daemon_has_privileges(release: Rendered) -> None:
    """All others run as no root, write nothing and gain nothing."""
    for workload in release.workloads:
        pod = workload["spec"]["template"]["spec"]
        assert pod.get("hostPID", False) == (workload["kind"] == "DaemonSet")
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            held = container["securityContext"]
            assert held["readOnlyRootFilesystem"]
            if workload["kind"] == "DaemonSet":
                continue
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert held["capabilities"] == {"drop": ["ALL"]}
            assert held["allowPrivilegeEscalation"] is False
            assert not any("hostPath" in volume for volume in pod.get("volumes", ()))


def test_every_container_is_probed_and_asks_for_resources(release: Rendered) -> None:
    """By HTTP, because the image has no shell."""
    for workload in release.workloads:
        pod = workload["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        for container in pod["containers"]:
            assert "httpGet" in container["livenessProbe"]
            assert "httpGet" in container.get("readinessProbe", {"httpGet": {}})
            assert "exec" not in str(container)


def test_nothing_that_a_controller_writes(release: Rendered) -> None:
    """No Secret, caBundle, hook, GPUQuota or finalizer: upgrades and uninstalls stop at them."""
    kinds = {one["kind"] for one in release.objects}
    assert not kinds & {"Secret", "GPUQuota", "Job", "Pod"}
    assert "helm.sh/hook" not in release.text
    assert not any(one["metadata"].get("finalizers") for one in release.objects)
    bundles = re.findall(r"caBundle: (.*)", release.text)
    assert set(bundles) <= {PEM}
    assert bool(bundles) == ("own" in str(release.pod("-webhook").get("volumes", "")))


def test_every_object_says_whose_it_is(release: Rendered) -> None:
    """Helm's recommended labels."""
    for one in release.objects:
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "gpu-fraction"
        assert labels["helm.sh/chart"].startswith("gpu-fraction-")
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_programs_take_what_they_are_told(release: Rendered) -> None:
    """Each variable of ours is a setting of its program."""
    for suffix, program in (
        ("-webhook", webhook),
        ("-controller", controller),
        ("-scheduler", scheduler_extender),
        ("-node-daemon", node_daemon),
    ):
        if not any(m["metadata"]["name"].endswith(suffix) for m in release.workloads):
            continue
        told = release.environment(suffix)
        known = {option.variable for option in options_of(program.Settings)}
        assert {name for name in told if name.startswith(ENV_PREFIX)} <= known
