"""The scheduler's configuration agrees with the program and with itself."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gpu_fraction.certs.pod_tls import CLIENT_NAME
from gpu_fraction.domain import keys
from gpu_fraction.domain.placement import SCORE_MAX
from gpu_fraction.scheduler.binding import CALL_S
from gpu_fraction.scheduler.preemption import WORK_S

DEPLOY = Path(__file__).parents[3] / "deploy"
CONFIG: dict[str, Any] = YAML(typ="safe").load(
    YAML(typ="safe").load(DEPLOY / "scheduler" / "config.yaml")["data"]["config.yaml"]
)


def test_the_extender_sees_pods_of_our_resources_and_no_others() -> None:
    """The scheduler counts the resources too, so that quotas and autoscalers see them."""
    (extender,) = CONFIG["extenders"]
    assert extender["managedResources"] == [
        {"name": name, "ignoredByScheduler": False} for name in keys.NATIVE_RESOURCES
    ]
    assert extender["nodeCacheCapable"]
    assert not extender["ignorable"]
    assert CONFIG["profiles"] == [{"schedulerName": keys.SCHEDULER}]


def test_the_scheduler_waits_longer_than_the_extender_works() -> None:
    """A bind makes up to three calls, and its own reason is to reach the event.

    Preempt ends with the node at which its time is up.
    """
    (extender,) = CONFIG["extenders"]
    timeout_s = int(extender["httpTimeout"].removesuffix("s"))
    assert timeout_s > 3 * CALL_S
    assert timeout_s >= 2 * WORK_S


def test_one_step_of_score_outweighs_one_plugin_of_the_schedulers_own() -> None:
    """Source: MaxNodeScore 100 over MaxExtenderPriority 10, k8s.io/kube-scheduler."""
    (extender,) = CONFIG["extenders"]
    assert extender["weight"] * 100 // SCORE_MAX >= 100


def test_the_extender_lets_in_the_name_that_its_pod_signs() -> None:
    """Deployment, configuration and certificates agree on names and paths."""
    manifests = YAML(typ="safe").load_all(DEPLOY / "scheduler" / "deployment.yaml")
    (pod,) = (m for m in manifests if m["kind"] == "Deployment")
    containers = {c["name"]: c for c in pod["spec"]["template"]["spec"]["containers"]}
    arguments = containers["extender"]["args"]
    assert f"--client-names={CLIENT_NAME}" in arguments
    (extender,) = CONFIG["extenders"]
    port = containers["extender"]["ports"][0]["containerPort"]
    assert extender["urlPrefix"] == f"https://127.0.0.1:{port}"
    assert extender["tlsConfig"] == {
        "caFile": "/tls/ca.crt",
        "certFile": "/tls/client.crt",
        "keyFile": "/tls/client.key",
    }
