"""The DRA driver on a real kubelet, with the stock scheduler."""

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpu_fraction.domain import dra
from gpu_fraction.sandbox.nvml.hardware import FakeInstance
from tests.cluster.conftest import _require_own
from tests.cluster.daemon import ACCOUNT, DRA, NAMESPACE, ROOT, Daemon, create_all, running_daemon
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.control_plane import running_control_plane
from tests.cluster.harness.kubectl import Kubectl, KubectlError
from tests.cluster.harness.node import running_node
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.waiting import wait_for

if TYPE_CHECKING:
    from tests.cluster.harness.process import Process

pytestmark = [
    pytest.mark.long,
    pytest.mark.needs_kubernetes("1.36"),
    pytest.mark.usefixtures("no_share_stays"),
]

CARDS = 3
NOT_PREPARED = "FailedPrepareDynamicResources"
MIB = 81_559 - 600
PRINT = 'echo "$GPU_FRACTION_DEVICES $GPU_MEMORY_LIMIT_MIB $GPU_FRACTION"'
SLEEP = f"{PRINT}; sleep 10000"
QUARTER = {dra.CORES: "250", dra.MEMORY_PPM: "250000"}
Amounts = Mapping[str, str]


@pytest.fixture(scope="module")
def daemon(existing: Cluster | None, binaries: Binaries) -> Iterator[Daemon]:
    """A driver with three cards on a cluster of its own."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    if os.geteuid() != 0:
        pytest.skip("a node needs root: mounts, control groups, network interfaces")
    flags = ("--mode=dra", "--poll-interval=0.2", "--read-interval=1")
    with (
        running_control_plane(binaries) as plane,
        running_node(plane) as node,
        running_daemon(node, *flags, cards=CARDS, manifests=DRA) as made,
    ):
        yield made


def template(
    name: str,
    amounts: Amounts | None = QUARTER,
    *,
    device_class: str = dra.FRACTION_CLASS,
    **fields: Any,
) -> dict[str, Any]:
    """A ResourceClaimTemplate with one request."""
    exactly: dict[str, Any] = {"deviceClassName": device_class, **fields}
    if amounts is not None:
        exactly["capacity"] = {"requests": dict(amounts)}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}},
    }


def pod(name: str, *templates: str, script: str = SLEEP, grace_s: int = 0) -> dict[str, Any]:
    """A pod with a container and a claim for each template."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": grace_s,
            "resourceClaims": [
                {"name": f"gpu-{i}", "resourceClaimTemplateName": one}
                for i, one in enumerate(templates)
            ],
            "containers": [
                {
                    "name": f"c{i}",
                    "image": "busybox:1",
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", script],
                    "resources": {"claims": [{"name": f"gpu-{i}"}]},
                }
                for i in range(len(templates))
            ],
        },
    }


def wait_ready(kubectl: Kubectl, *names: str) -> None:
    """Wait for pods."""
    pods = [f"pod/{name}" for name in names]
    kubectl("wait", *pods, "--for=condition=Ready", "--timeout=150s", timeout_s=180)


def printed(daemon: Daemon, kubectl: Kubectl, name: str, container: str = "c0") -> list[str]:
    """Card, MiB and share, as a container got them."""
    return daemon.printed(kubectl.namespace, name, container).split()


def slices(daemon: Daemon) -> list[dict[str, Any]]:
    """The ResourceSlices of the driver."""
    found = daemon.node.plane.kubectl.json("get", "resourceslices")["items"]
    return [one for one in found if one["spec"]["driver"] == dra.DRIVER]


def messages(kubectl: Kubectl, name: str, reason: str) -> list[str]:
    """The Events of a pod."""
    events = kubectl.json("get", "events", f"--field-selector=involvedObject.name={name}")
    return [e["message"] for e in events["items"] if e["reason"] == reason]


def unschedulable(kubectl: Kubectl, name: str) -> str:
    """The scheduler's reason; empty while it has not looked."""
    conditions = kubectl.json("get", "pod", name)["status"].get("conditions", ())
    return "".join(c["message"] for c in conditions if c.get("reason") == "Unschedulable")


def test_twelve_quarters_fill_three_cards(daemon: Daemon, kubectl: Kubectl) -> None:
    """Each container has its own share; the thirteenth waits until one goes."""
    kubectl.apply(template("quarter"))
    create_all(kubectl, [pod(f"q-{i}", "quarter") for i in range(12)])
    kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=150s", timeout_s=180)
    held: dict[str, int] = {}
    for i in range(12):
        uuid, memory_mib, share = printed(daemon, kubectl, f"q-{i}")
        assert (int(memory_mib), share) == (MIB // 4, "0.25")
        held[uuid] = held.get(uuid, 0) + 1
    assert held == dict.fromkeys(daemon.uuids, 4)
    for uuid in daemon.uuids:
        used = f'gpu_fraction_card_allocated_core_milli{{uuid="{uuid}"}}'
        assert daemon.metric(used) == 1000
    kubectl.apply(pod("late", "quarter"))
    wait_for(lambda: "cannot allocate all claims" in unschedulable(kubectl, "late"))
    kubectl("delete", "pod", "q-5", "--wait=true")
    wait_ready(kubectl, "late")


def test_the_claim_tells_what_was_given(daemon: Daemon, kubectl: Kubectl) -> None:
    """The share is in ``status.devices``, written with the daemon's own rights."""
    kubectl.apply(template("quarter"), pod("told", "quarter"))
    wait_ready(kubectl, "told")
    uuid = printed(daemon, kubectl, "told")[0]

    def told() -> dict[str, Any] | None:
        (claim,) = kubectl.json("get", "resourceclaims")["items"]
        found: list[dict[str, Any] | None] = claim["status"].get("devices", [None])
        (device,) = found
        (result,) = claim["status"]["allocation"]["devices"]["results"]
        assert device is None or device["shareID"] == result["shareID"]
        return device

    device = wait_for(told)
    assert device is not None
    assert device["data"] == {
        "apiVersion": dra.CONFIG_VERSION,
        "kind": "Share",
        "uuid": uuid,
        "coreMilli": 250,
        "memoryMib": MIB // 4,
    }


def test_amounts_of_every_form(daemon: Daemon, kubectl: Kubectl) -> None:
    """Memory alone, thirds, two containers, two cards, a whole card, one by name."""
    last = daemon.uuids[2]
    chosen = f"device.attributes['{dra.DRIVER}'].uuid == '{last}'"
    kubectl.apply(
        template("memory", {dra.CORES: "0", dra.MEMORY_PPM: "100000"}),
        template("third", {dra.CORES: "333", dra.MEMORY_PPM: "333333"}),
        template("two", QUARTER, count=2),
        template("whole", None, device_class=dra.WHOLE_CLASS),
        template("named", QUARTER, selectors=[{"cel": {"expression": chosen}}]),
    )
    kubectl.apply(pod("named", "named"), pod("third", "third", "memory"), pod("two", "two"))
    wait_ready(kubectl, "named", "third", "two")
    assert printed(daemon, kubectl, "named") == [last, str(MIB // 4), "0.25"]
    assert printed(daemon, kubectl, "third", "c0")[1:] == [str(MIB * 333333 // 10**6), "0.333"]
    # Without a limit of compute the share is that of memory.
    assert printed(daemon, kubectl, "third", "c1")[1:] == [str(MIB // 10), "0.099"]
    assert len(printed(daemon, kubectl, "two")[0].split(",")) == 2
    kubectl("delete", "pod", "two", "--wait=true")
    kubectl.apply(pod("whole", "whole"))
    wait_ready(kubectl, "whole")
    uuid, memory_mib, share = printed(daemon, kubectl, "whole")
    assert (int(memory_mib), share) == (MIB, "1")
    assert uuid not in {last, printed(daemon, kubectl, "third")[0]}


def test_a_share_is_not_given_away_while_its_container_runs(
    daemon: Daemon, kubectl: Kubectl
) -> None:
    """After a forced deletion the scheduler counts the card as free; the driver does not."""
    kubectl.apply(template("whole", None, device_class=dra.WHOLE_CLASS))
    stubborn = f"trap '' TERM; {PRINT}; while true; do sleep 1; done"
    names = [f"old-{i}" for i in range(CARDS)]
    kubectl.apply(*(pod(name, "whole", script=stubborn, grace_s=20) for name in names))
    wait_ready(kubectl, *names)
    uuid = printed(daemon, kubectl, names[0])[0]
    kubectl("delete", "pod", names[0], "--grace-period=20", "--wait=false")
    kubectl("delete", "pod", names[0], "--grace-period=0", "--force", "--wait=true")
    kubectl.apply(pod("next", "whole"))
    wait_for(
        lambda: any(
            "has no room" in text
            for text in messages(kubectl, "next", "FailedPrepareDynamicResources")
        )
    )
    wait_ready(kubectl, "next")
    assert printed(daemon, kubectl, "next")[0] == uuid


def test_a_driver_that_comes_back_knows_its_shares(daemon: Daemon, kubectl: Kubectl) -> None:
    """Running containers go on, a pod that was bound meanwhile starts, and sums still hold."""
    kubectl.apply(template("half", {dra.CORES: "500", dra.MEMORY_PPM: "500000"}))
    kubectl.apply(pod("before", "half"))
    wait_ready(kubectl, "before")
    (published,) = slices(daemon)
    daemon.process.kill()
    kubectl.apply(pod("meanwhile", "half"))
    wait_for(lambda: messages(kubectl, "meanwhile", NOT_PREPARED))
    daemon.process.start()
    wait_ready(kubectl, "meanwhile")
    daemon.wait_ready()
    uuid = printed(daemon, kubectl, "before")[0]
    assert printed(daemon, kubectl, "meanwhile")[0] == uuid
    assert daemon.metric(f'gpu_fraction_card_allocated_core_milli{{uuid="{uuid}"}}') == 1000
    (state,) = kubectl.json("get", "pod", "before")["status"]["containerStatuses"]
    assert state["restartCount"] == 0
    (again,) = slices(daemon)
    assert again["metadata"]["uid"] == published["metadata"]["uid"]


def test_a_kubelet_that_starts_gets_the_cards_again(daemon: Daemon, kubectl: Kubectl) -> None:
    """It deletes all slices of its node; the driver publishes them at once."""
    kubectl.apply(template("quarter"), pod("stays", "quarter"))
    wait_ready(kubectl, "stays")
    (published,) = slices(daemon)
    daemon.node.kubelet.kill()
    daemon.node.kubelet.start()

    def republished() -> bool:
        return {published["metadata"]["uid"]}.isdisjoint(
            one["metadata"]["uid"] for one in slices(daemon)
        ) and bool(slices(daemon))

    wait_for(republished)
    kubectl.apply(pod("new", "quarter"))
    wait_ready(kubectl, "new")
    (state,) = kubectl.json("get", "pod", "stays")["status"]["containerStatuses"]
    assert state["restartCount"] == 0


def test_a_sick_card_takes_no_new_pods(daemon: Daemon, kubectl: Kubectl) -> None:
    """It is tainted, its pods show it and go on; once it is well it is used again."""
    kubectl.apply(template("half", {dra.CORES: "500", dra.MEMORY_PPM: "500000"}))
    kubectl.apply(pod("on", "half"))
    wait_ready(kubectl, "on")
    uuid = printed(daemon, kubectl, "on")[0]

    def health() -> list[str]:
        (state,) = kubectl.json("get", "pod", "on")["status"]["containerStatuses"]
        said = state.get("allocatedResourcesStatus", ())
        return [r["health"] for one in said for r in one["resources"]]

    def tainted() -> set[str]:
        return {
            device["attributes"]["uuid"]["string"]
            for one in slices(daemon)
            for device in one["spec"]["devices"]
            if any(
                (taint["key"], taint["effect"]) == (dra.UNHEALTHY, "NoSchedule")
                for taint in device.get("taints", ())
            )
        }

    wait_for(lambda: health() == ["Healthy"])
    card = daemon.hardware.card(uuid)
    card.recovery_action = 1
    daemon.hardware.apply()
    try:
        wait_for(lambda: tainted() == {uuid})
        wait_for(lambda: health() == ["Unhealthy"])
        kubectl.apply(pod("other", "half"))
        wait_ready(kubectl, "other")
        assert printed(daemon, kubectl, "other")[0] != uuid
        assert kubectl.json("get", "pod", "on")["status"]["phase"] == "Running"
    finally:
        card.recovery_action = 0
        daemon.hardware.apply()
    wait_for(lambda: not tainted())
    wait_for(lambda: health() == ["Healthy"])
    kubectl.apply(pod("back", "half"))
    wait_ready(kubectl, "back")
    assert printed(daemon, kubectl, "back")[0] == uuid


def test_a_mig_instance_belongs_to_one_claim(daemon: Daemon, kubectl: Kubectl) -> None:
    """Amounts choose one that is large enough; the divided card takes no shares."""
    uuid = "MIG-00000000-aaaa-bbbb-cccc-dddddddddddd"
    card = daemon.hardware.card(daemon.uuids[0])

    def names() -> list[str]:
        return [d["name"] for one in slices(daemon) for d in one["spec"]["devices"]]

    card.mig, card.instances = True, [FakeInstance(uuid=uuid, gi=1, memory_mib=9984)]
    daemon.hardware.apply()
    try:
        wait_for(lambda: names() == [uuid.lower(), *(u.lower() for u in daemon.uuids[1:])])
        small = {dra.CORES: "100", dra.MEMORY_PPM: "100000"}
        kubectl.apply(
            template("instance", small, device_class=dra.MIG_CLASS),
            template("large", QUARTER, device_class=dra.MIG_CLASS),
            template("quarter"),
        )
        kubectl.apply(pod("one", "instance"), pod("share", "quarter"), pod("big", "large"))
        wait_ready(kubectl, "one", "share")
        assert printed(daemon, kubectl, "one")[:2] == [uuid, "9984"]
        assert printed(daemon, kubectl, "share")[0] == daemon.uuids[1]
        kubectl.apply(pod("two", "instance"))
        wait_for(lambda: "cannot allocate all" in unschedulable(kubectl, "big"))
        wait_for(lambda: "cannot allocate all" in unschedulable(kubectl, "two"))
    finally:
        card.mig, card.instances = False, []
        daemon.hardware.apply()
    wait_for(lambda: names() == [u.lower() for u in daemon.uuids])


def test_a_daemon_writes_the_slices_of_its_own_node_alone(daemon: Daemon) -> None:
    """With the same ServiceAccount, and a token that names another node or none."""
    plane, (published,) = daemon.node.plane, slices(daemon)
    other = {"metadata": {"name": "other"}, "spec": {"podCIDR": "10.9.0.0/24"}}
    plane.kubectl.apply({"apiVersion": "v1", "kind": "Node", **other})
    for node, allowed in (("other", '"other"'), ("", "none")):
        written = plane.service_account_kubeconfig(NAMESPACE, ACCOUNT, node=node)
        foreign = plane.kubectl.acting_as(written)
        with pytest.raises(KubectlError, match="is refused; allowed: " + allowed):
            foreign("delete", "resourceslice", published["metadata"]["name"])
    plane.kubectl("delete", "node", "other")


def test_a_server_without_shared_devices_gives_nothing_away(binaries: Binaries) -> None:
    """The classes are refused, no slice stays, and an Event on the Node names the gate."""
    gate = "DRAConsumableCapacity"
    options = ControlPlaneOptions(flags={"kube-apiserver": {"feature-gates": f"{gate}=false"}})
    with (
        running_control_plane(binaries, options) as plane,
        running_node(plane) as node,
        running_daemon(node, "--mode=dra", manifests=DRA[:-1], ready=False) as daemon,
    ):

        def told() -> str:
            events = plane.kubectl.json("get", "events", "--field-selector=reason=CardsNotOffered")
            return "".join(event["message"] for event in events["items"])

        assert f"feature gate {gate} is off" in wait_for(told)
        assert slices(daemon) == []
        wait_for(lambda: gate in daemon.get("/readyz")[1])
        with pytest.raises(KubectlError, match="undefined field 'allowMultipleAllocations'"):
            plane.kubectl("apply", "-f", str(ROOT / "deploy" / DRA[-1]))


SHARES = (100, 250, 333, 500, 1000)
"""Thousandths that the random life asks for."""

STEPS = int(os.environ.get("GPU_FRACTION_DRA_STEPS", "100"))
"""Creates and deletes of the random life."""


class Watch(threading.Thread):
    """Looks all the time at what containers can start with, which is the CDI files alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.most: dict[str, int] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        """Keep the largest sum of each card, thousandths, until stopped."""
        while not self.stopped.wait(0.01):
            for uuid, milli in self._sums().items():
                self.most[uuid] = max(self.most.get(uuid, 0), milli)

    def _sums(self) -> dict[str, int]:
        """The sums of files that were there together; nothing where one went meanwhile."""
        files = list(self.folder.glob("gpu-fraction-slice_*.json"))
        sums: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            for file in files:
                (device,) = json.loads(file.read_text())["devices"]
                env = dict(line.split("=", 1) for line in device["containerEdits"]["env"])
                uuid, share = env["GPU_FRACTION_DEVICES"], float(env["GPU_FRACTION"])
                sums[uuid] = sums.get(uuid, 0) + round(1000 * share)
            return sums if all(file.exists() for file in files) else {}
        return {}


@pytest.mark.timeout(1800)
def test_no_card_is_overdrawn_whatever_ends_when(daemon: Daemon, kubectl: Kubectl) -> None:
    """Pods come and go while kubelet, daemon and API server are killed at random moments."""
    rng = random.Random(7)
    node, plane = daemon.node, daemon.node.plane
    for milli in SHARES:
        amounts = {dra.CORES: str(milli), dra.MEMORY_PPM: str(1000 * milli)}
        kubectl.apply(template(f"m{milli}", amounts))
    watch = Watch(node.cdi_dir)
    watch.start()
    down: list[Process] = []
    names: list[str] = []
    for step in range(STEPS):
        if names and rng.random() < 0.4:
            name = names.pop(rng.randrange(len(names)))
            force = ("--grace-period=0", "--force") if rng.random() < 0.5 else ()
            kubectl.run("delete", "pod", name, "--wait=false", *force)
        else:
            names.append(f"life-{step}")
            made = pod(names[-1], f"m{rng.choice(SHARES)}", grace_s=rng.choice((0, 1)))
            kubectl.run("create", "-f", "-", stdin=made)
        if down and rng.random() < 0.5:
            down.pop().start()
        if not down and rng.random() < 0.15:
            down.append(rng.choice((node.kubelet, daemon.process, plane.api_server)))
            down[0].kill()
    for process in down:
        process.start()
    plane.api_server.wait_healthy()
    node.wait_ready()
    daemon.wait_ready()

    def settled() -> bool:
        pods = kubectl.json("get", "pods")["items"]
        return all(
            one["status"].get("phase") == "Running"
            or unschedulable(kubectl, one["metadata"]["name"])
            for one in pods
            if "deletionTimestamp" not in one["metadata"]
        )

    daemon.process.wait_until(settled, 300, "settled")
    kubectl("delete", "pod", "--all", "--wait=true", "--timeout=300s", timeout_s=320)
    daemon.process.wait_until(lambda: not daemon.slice_files(), 120, "without shares")
    watch.stopped.set()
    watch.join()
    assert watch.most.keys() == {*daemon.uuids}
    assert max(watch.most.values()) <= 1000, watch.most
    for uuid in daemon.uuids:
        assert daemon.metric(f'gpu_fraction_card_allocated_core_milli{{uuid="{uuid}"}}') == 0
