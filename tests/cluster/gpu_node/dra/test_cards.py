"""Sick cards, cards that an administrator takes out of use, and MIG instances."""

import pytest

from gpu_fraction.domain import dra
from gpu_fraction.sandbox.nvml.hardware import FakeInstance
from tests.cluster.daemon import Daemon, wait_started
from tests.cluster.gpu_node.dra.rig import (
    HALF,
    ON_A_NODE,
    QUARTER,
    health,
    on_card,
    pod,
    printed,
    refused,
    slices,
    template,
)
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.waiting import wait_for

pytestmark = [*ON_A_NODE, pytest.mark.matrix]


def test_a_sick_card_takes_no_new_pods(daemon: Daemon, kubectl: Kubectl) -> None:
    """Unless they tolerate it; its pods show it and go on; once it is well it is used again."""
    tolerations = [{"key": dra.UNHEALTHY, "operator": "Exists", "effect": "NoSchedule"}]
    brave = {"tolerations": tolerations, **on_card(daemon.uuids[0])}
    kubectl.apply(template("half", HALF), template("brave", QUARTER, **brave))
    kubectl.apply(pod("on", "half"))
    wait_started(kubectl, "on")
    uuid = printed(daemon, kubectl, "on")[0]

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

    wait_for(lambda: health(kubectl, "on") == ["Healthy"])
    card = daemon.hardware.card(uuid)
    card.recovery_action = 1
    daemon.hardware.apply()
    try:
        wait_for(lambda: tainted() == {uuid})
        wait_for(lambda: health(kubectl, "on") == ["Unhealthy"])
        kubectl.apply(pod("other", "half"))
        wait_started(kubectl, "other")
        assert printed(daemon, kubectl, "other")[0] != uuid
        kubectl.apply(pod("brave", "brave"))
        wait_started(kubectl, "brave")
        assert printed(daemon, kubectl, "brave")[0] == uuid
        kubectl("delete", "pod", "brave", "--wait=true")
        assert kubectl.json("get", "pod", "on")["status"]["phase"] == "Running"
    finally:
        card.recovery_action = 0
        daemon.hardware.apply()
    wait_for(lambda: not tainted())
    wait_for(lambda: health(kubectl, "on") == ["Healthy"])
    kubectl.apply(pod("back", "half"))
    wait_started(kubectl, "back")
    assert printed(daemon, kubectl, "back")[0] == uuid


@pytest.mark.needs_kubernetes("1.37")
def test_an_administrator_empties_a_card(daemon: Daemon, kubectl: Kubectl) -> None:
    """A taint rule of Kubernetes evicts its pods, and the driver takes their shares back."""
    kubectl.apply(template("half", HALF, **on_card(daemon.uuids[0])), pod("goes", "half"))
    wait_started(kubectl, "goes")
    rule = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceTaintRule",
        "metadata": {"name": "repair"},
        "spec": {
            "deviceSelector": {
                "driver": dra.DRIVER,
                "pool": daemon.node.name,
                "device": daemon.uuids[0].lower(),
            },
            "taint": {"key": "example.com/repair", "effect": "NoExecute"},
        },
    }
    plane = daemon.node.plane
    plane.kubectl.apply(rule)
    try:
        kubectl("wait", "pod/goes", "--for=delete", "--timeout=60s")
        wait_for(lambda: not daemon.slice_files())
        kubectl.apply(pod("waits", "half"))
        wait_for(lambda: refused(kubectl, "waits"))
    finally:
        plane.kubectl("delete", "devicetaintrule", "repair")
    wait_started(kubectl, "waits")


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
        wait_started(kubectl, "one", "share")
        assert printed(daemon, kubectl, "one")[:2] == [uuid, "9984"]
        assert printed(daemon, kubectl, "share")[0] == daemon.uuids[1]
        kubectl.apply(pod("two", "instance"))
        wait_for(lambda: refused(kubectl, "big"))
        wait_for(lambda: refused(kubectl, "two"))
    finally:
        card.mig, card.instances = False, []
        daemon.hardware.apply()
    wait_for(lambda: names() == [u.lower() for u in daemon.uuids])
