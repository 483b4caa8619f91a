"""What kubelets do with a pod's containers, and with their slices."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.assignment import CardShare
from tests.cluster.daemon import CARDS, Daemon, gpu_pod
from tests.cluster.harness.kubectl import Kubectl, KubectlError
from tests.cluster.harness.waiting import wait_for

pytestmark = pytest.mark.long

DAEMON_FLAGS = ("--poll-interval=0.2", "--isolation=")
"""Of the cards' health, so that a card recovers within a second; no engine, so that containers
see whole cards."""
SCRIPT = 'echo "$GPU_FRACTION_DEVICES $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION"; sleep 10000'


def status(kubectl: Kubectl, pod: str) -> dict[str, Any]:
    """The status of a pod's first container."""
    return dict(kubectl.json("get", "pod", pod)["status"]["containerStatuses"][0])


def health(kubectl: Kubectl, pod: str) -> list[str]:
    """What the pod's status says of its slots."""
    said = status(kubectl, pod).get("allocatedResourcesStatus", [])
    return [
        r["health"] for entry in said if entry["name"] == keys.SLOT for r in entry["resources"]
    ]


def wait_ready(kubectl: Kubectl, *names: str) -> None:
    """Wait for pods."""
    pods = [f"pod/{name}" for name in names]
    kubectl("wait", *pods, "--for=condition=Ready", "--timeout=150s", timeout_s=180)


@contextlib.contextmanager
def sick(daemon: Daemon, uuid: str) -> Iterator[None]:
    """A card whose driver asks for a reset; the node has its slots less, and then again."""
    card = daemon.hardware.card(uuid)
    card.recovery_action = 1
    daemon.hardware.apply()
    try:
        daemon.wait_allocatable(keys.SLOT, (CARDS - 1) * 32)
        yield
    finally:
        card.recovery_action = 0
        daemon.hardware.apply()
    daemon.wait_allocatable(keys.SLOT, CARDS * 32)


def restart_kubelet(daemon: Daemon) -> None:
    """Kill it and wait for the next one to know the daemon."""
    daemon.node.kubelet.kill()
    daemon.process.wait_until(lambda: daemon.get("/readyz")[0] != 200, 60, "alone")
    daemon.node.kubelet.start()
    daemon.wait_ready()


@pytest.mark.needs_kubernetes("1.36")  # ResourceHealthStatus is on by default
def test_sick_card_shows_in_the_status_of_its_pods_alone(daemon: Daemon, kubectl: Kubectl) -> None:
    """Unhealthy while it is, also over a restart of the kubelet; other cards' pods are well."""
    for i in range(2):
        kubectl.apply(gpu_pod(f"card-{i}", (CardShare(daemon.uuids[i], 100, 1_000),)))
    wait_ready(kubectl, "card-0", "card-1")
    wait_for(lambda: [health(kubectl, f"card-{i}") for i in range(2)] == [["Healthy"]] * 2)
    before = status(kubectl, "card-0")
    with sick(daemon, daemon.uuids[0]):
        wait_for(lambda: health(kubectl, "card-0") == ["Unhealthy"])
        assert health(kubectl, "card-1") == ["Healthy"]
        restart_kubelet(daemon)
        daemon.wait_allocatable(keys.SLOT, (CARDS - 1) * 32)
        wait_for(lambda: health(kubectl, "card-0") == ["Unhealthy"])
    wait_for(lambda: health(kubectl, "card-0") == ["Healthy"])
    after = status(kubectl, "card-0")
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_container_down_on_a_sick_card_fails_its_pod_when_the_kubelet_starts(
    daemon: Daemon, kubectl: Kubectl
) -> None:
    """The kubelet takes back no container that does not run without its card."""
    pods = []
    for i in range(2):
        pod = gpu_pod(f"card-{i}", (CardShare(daemon.uuids[i], 100, 1_000),), script="true")
        pod["spec"]["restartPolicy"] = "Never"
        (main,) = pod["spec"]["containers"]
        goes_on = {k: v for k, v in main.items() if k != "resources"}
        goes_on |= {"name": "other", "command": ["sleep", "10000"]}
        pod["spec"]["containers"].append(goes_on)
        pods.append(pod)
    kubectl.apply(*pods)
    for i in range(2):
        ended = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}=0"
        kubectl("wait", f"pod/card-{i}", f"--for={ended}", "--timeout=100s")
    with sick(daemon, daemon.uuids[0]):
        restart_kubelet(daemon)

        def reason() -> str:
            found = kubectl.json("get", "pod", "card-0")["status"]
            return str(found.get("reason", ""))

        wait_for(lambda: reason() == "UnexpectedAdmissionError")
    well = kubectl.json("get", "pod", "card-1")["status"]
    assert well["phase"] == "Running", well


def test_sidecar_and_container_have_slices_of_their_own(
    daemon: Daemon, kubectl: Kubectl, namespace: str
) -> None:
    """An init container that goes on beside the others holds a slot as they do."""
    own = {
        "main": CardShare(daemon.uuids[1], 250, 2_000),
        "proxy": CardShare(daemon.uuids[2], 100, 1_000),
    }
    pod = gpu_pod("both", None)
    pod["metadata"]["annotations"][keys.ASSIGNED] = assignment.render(
        {name: (share,) for name, share in own.items()}
    )
    (main,) = pod["spec"]["containers"]
    main["resources"] = _resources(own["main"])
    proxy = {**main, "name": "proxy", "restartPolicy": "Always"}
    pod["spec"]["initContainers"] = [{**proxy, "resources": _resources(own["proxy"])}]
    kubectl.apply(pod)
    wait_ready(kubectl, "both")
    assert daemon.printed(namespace, "both") == f"{daemon.uuids[1]} 2000 0.25"
    assert daemon.printed(namespace, "both", "proxy") == f"{daemon.uuids[2]} 1000 0.1"


@pytest.mark.parametrize("beside", [False, True])
def test_daemon_refuses_a_slot_of_a_container_that_ends_before_the_others(
    daemon: Daemon, kubectl: Kubectl, *, beside: bool
) -> None:
    """The kubelet lists no such container, and gives its token to the next one of the pod."""
    pod = gpu_pod("first", (CardShare(daemon.uuids[3], 40, 1_000),))
    (main,) = pod["spec"]["containers"]
    pod["spec"]["initContainers"] = [{**main, "name": "first"}]
    if not beside:
        pod["spec"]["containers"] = [{k: v for k, v in main.items() if k != "resources"}]
    kubectl.apply(pod)

    def why() -> str:
        found = kubectl.json("get", "pod", "first")["status"].get("initContainerStatuses", [])
        waiting = [status["state"].get("waiting", {}) for status in found]
        return "".join(state.get("message", "") for state in waiting)

    wait_for(lambda: "init container" in why())
    assert status(kubectl, "first")["state"]["waiting"]["reason"] == "PodInitializing"


@pytest.mark.parametrize("policy", ["NotRequired", "RestartContainer"])
def test_resize_of_the_processor_keeps_the_slice(
    daemon: Daemon, kubectl: Kubectl, namespace: str, policy: str
) -> None:
    """In place or by a restart of the container; nothing is allocated anew."""
    share = CardShare(daemon.uuids[1], 100, 1_000)
    pod = gpu_pod("grows", (share,))
    (main,) = pod["spec"]["containers"]
    for amounts in main["resources"].values():
        amounts["cpu"] = "50m"
    main["resizePolicy"] = [{"resourceName": "cpu", "restartPolicy": policy}]
    kubectl.apply(pod)
    wait_ready(kubectl, "grows")
    before = status(kubectl, "grows")
    allocated = daemon.metric("gpu_fraction_allocate_seconds_count")
    _resize(kubectl, "grows", cpu="80m")
    restarts = int(policy == "RestartContainer")

    def resized() -> bool:
        now = status(kubectl, "grows")
        done = now.get("resources", {}).get("limits", {}).get("cpu") == "80m"
        return done and now["restartCount"] == restarts and "running" in now["state"]

    wait_for(resized)
    lines = [f"{share.uuid} 1000 0.1"] * (1 + restarts)
    wait_for(lambda: daemon.printed(namespace, "grows").splitlines() == lines)
    same = status(kubectl, "grows")["containerID"] == before["containerID"]
    assert same == (not restarts)
    assert daemon.metric("gpu_fraction_allocate_seconds_count") == allocated


@pytest.mark.parametrize("resource", keys.NATIVE_RESOURCES)
def test_resize_of_a_slice_is_refused(daemon: Daemon, kubectl: Kubectl, resource: str) -> None:
    """By the API server itself, whether or not our webhook is there."""
    kubectl.apply(gpu_pod("stays", (CardShare(daemon.uuids[2], 100, 1_000),)))
    with pytest.raises(KubectlError, match="only cpu and memory resources are mutable"):
        _resize(kubectl, "stays", **{resource: "2"})


def _resources(share: CardShare) -> dict[str, dict[str, str]]:
    amounts = {
        keys.SLOT: "1",
        keys.CORE_MILLI: str(share.core_milli),
        keys.MEMORY_MIB: str(share.memory_mib),
    }
    return {"limits": amounts, "requests": amounts}


def _resize(kubectl: Kubectl, pod: str, **amounts: str) -> None:
    resources = {"requests": amounts, "limits": amounts}
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    kubectl("patch", "pod", pod, "--subresource=resize", "--patch-file=/dev/stdin", stdin=patch)


def test_frameworks_are_told_their_part_beside_what_the_pod_sets(
    daemon: Daemon, kubectl: Kubectl, namespace: str
) -> None:
    """The runtime replaces a variable of the pod's by one of the file; so some are not in it."""
    told = 'echo "$GPU_MEMORY_FRACTION $PYTORCH_ALLOC_CONF $CUPY_GPU_MEMORY_LIMIT"; sleep 10000'
    pod = gpu_pod("told", (CardShare(daemon.uuids[3], 250, 20_000),), script=told)
    pod["spec"]["containers"][0]["env"] = [
        {"name": "PYTORCH_ALLOC_CONF", "value": "expandable_segments:True"},
        {"name": "CUPY_GPU_MEMORY_LIMIT", "value": "10%"},
    ]
    off = gpu_pod(
        "off",
        (CardShare(daemon.uuids[3], 250, 20_000),),
        script=f"echo untold; {told}",
        annotations={keys.FRAMEWORK_ENV: "off"},
    )
    kubectl.apply(pod, off)
    wait_ready(kubectl, "told", "off")
    assert daemon.printed(namespace, "told") == (
        "0.24 expandable_segments:True,per_process_memory_fraction:0.24 10%"
    )
    assert daemon.printed(namespace, "off").split() == ["untold"]
