"""What holds while driver and kubelet come and go, and when pods are deleted by force."""

import os
import signal
import threading

import pytest

from gpu_fraction.domain import dra
from tests.cluster.daemon import Daemon, beside, wait_started
from tests.cluster.gpu_node.dra.rig import (
    CARDS,
    HALF,
    NOT_PREPARED,
    ON_A_NODE,
    PRINT,
    health,
    messages,
    pod,
    printed,
    refused,
    restarts,
    slices,
    template,
)
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.waiting import wait_for

pytestmark = [*ON_A_NODE, pytest.mark.matrix]

RACE = "no relationship found between node"
"""What the API server may tell the kubelet about a claim that it has just made."""


def test_a_share_is_not_given_away_while_its_container_runs(
    daemon: Daemon, kubectl: Kubectl
) -> None:
    """After a forced deletion the scheduler counts the card as free; the driver does not."""
    kubectl.apply(template("whole", None, device_class=dra.WHOLE_CLASS))
    stubborn = f"trap '' TERM; {PRINT}; while true; do sleep 1; done"
    names = [f"old-{i}" for i in range(CARDS)]
    kubectl.apply(*(pod(name, "whole", script=stubborn, grace_s=20) for name in names))
    wait_started(kubectl, *names)
    uuid = printed(daemon, kubectl, names[0])[0]
    kubectl("delete", "pod", names[0], "--grace-period=20", "--wait=false")
    kubectl("delete", "pod", names[0], "--grace-period=0", "--force", "--wait=true")
    kubectl.apply(pod("next", "whole"))
    wait_for(
        lambda: any("has no room" in text for text in messages(kubectl, "next", NOT_PREPARED))
    )
    wait_started(kubectl, "next")
    assert printed(daemon, kubectl, "next")[0] == uuid


def test_a_driver_that_comes_back_knows_its_shares(daemon: Daemon, kubectl: Kubectl) -> None:
    """Running containers go on, a pod that was bound meanwhile starts, and sums still hold."""
    kubectl.apply(template("half", HALF))
    kubectl.apply(pod("before", "half"))
    wait_started(kubectl, "before")
    (published,) = slices(daemon)
    daemon.process.kill()
    kubectl.apply(pod("meanwhile", "half"))
    wait_for(lambda: messages(kubectl, "meanwhile", NOT_PREPARED))
    daemon.process.start()
    wait_started(kubectl, "meanwhile")
    daemon.wait_ready()
    uuid = printed(daemon, kubectl, "before")[0]
    assert printed(daemon, kubectl, "meanwhile")[0] == uuid
    assert daemon.metric(f'gpu_fraction_card_allocated_core_milli{{uuid="{uuid}"}}') == 1000
    assert restarts(kubectl, "before") == 0
    (again,) = slices(daemon)
    assert again["metadata"]["uid"] == published["metadata"]["uid"]


def test_a_driver_that_dies_in_a_call_is_asked_again(daemon: Daemon, kubectl: Kubectl) -> None:
    """The kubelet's call is open when the driver is killed; the pod starts with one share."""
    kubectl.apply(template("half", HALF))
    os.kill(daemon.process.pid, signal.SIGSTOP)
    kubectl.apply(pod("asked", "half"))

    def bound() -> bool:
        return bool(kubectl.json("get", "pod", "asked")["spec"].get("nodeName"))

    wait_for(bound)
    daemon.process.kill()
    wait_for(lambda: messages(kubectl, "asked", NOT_PREPARED))
    daemon.process.start()
    daemon.wait_ready()
    wait_started(kubectl, "asked")
    uuid = printed(daemon, kubectl, "asked")[0]
    assert daemon.metric(f'gpu_fraction_card_allocated_core_milli{{uuid="{uuid}"}}') == 500


def test_a_driver_that_stays_away_offers_nothing(daemon: Daemon, kubectl: Kubectl) -> None:
    """The kubelet shows the health as unknown and deletes the slices; pods wait, none fails."""
    kubectl.apply(template("half", HALF), pod("on", "half"))
    wait_started(kubectl, "on")
    wait_for(lambda: health(kubectl, "on") == ["Healthy"])
    daemon.process.kill()
    wait_for(lambda: health(kubectl, "on") == ["Unknown"])
    wait_for(lambda: not slices(daemon))
    kubectl.apply(pod("waits", "half"))
    wait_for(lambda: refused(kubectl, "waits"))
    daemon.process.start()
    daemon.wait_ready()
    wait_started(kubectl, "waits")
    wait_for(lambda: health(kubectl, "on") == ["Healthy"])
    assert restarts(kubectl, "on") == 0


def test_a_kubelet_that_starts_gets_the_cards_again(daemon: Daemon, kubectl: Kubectl) -> None:
    """It deletes all slices of its node; the driver publishes them at once."""
    kubectl.apply(template("quarter"), pod("stays", "quarter"))
    wait_started(kubectl, "stays")
    (published,) = slices(daemon)
    daemon.node.kubelet.kill()
    daemon.node.kubelet.start()

    def republished() -> bool:
        return {published["metadata"]["uid"]}.isdisjoint(
            one["metadata"]["uid"] for one in slices(daemon)
        ) and bool(slices(daemon))

    wait_for(republished)
    kubectl.apply(pod("new", "quarter"))
    wait_started(kubectl, "new")
    assert restarts(kubectl, "stays") == 0


def test_an_update_leaves_no_gap(daemon: Daemon, kubectl: Kubectl) -> None:
    """Pods that start during two updates in a row never find the node without a driver."""
    kubectl.apply(template("small", {dra.CORES: "20", dra.MEMORY_PPM: "20000"}))
    kubectl.apply(pod("before", "small"))
    wait_started(kubectl, "before")
    (published,) = slices(daemon)
    names, enough = ["before"], threading.Event()

    def create() -> None:
        while not enough.is_set() and len(names) < 80:
            names.append(f"life-{len(names)}")
            kubectl.apply(pod(names[-1], "small"))

    creator = threading.Thread(target=create)
    creator.start()
    second = beside(daemon, "second", "--pod-uid=second")
    try:
        for new, old in ((second, daemon), (daemon, second)):
            new.process.start()
            new.wait_ready()
            old.process.stop()
            new.wait_ready()
            started = len(names)
            wait_for(lambda started=started: len(names) > started)  # type: ignore[misc]
    finally:
        enough.set()
        creator.join()
        daemon.process.start()
        daemon.wait_ready()
        second.process.stop()
    wait_started(kubectl, *names)
    failed = [text for name in names for text in messages(kubectl, name, NOT_PREPARED)]
    assert [text for text in failed if RACE not in text] == []
    counted = sum(
        daemon.metric(f'gpu_fraction_card_allocated_core_milli{{uuid="{uuid}"}}')
        for uuid in daemon.uuids
    )
    assert counted == 20 * len(names)
    (after,) = slices(daemon)
    assert after["metadata"]["uid"] == published["metadata"]["uid"]
    assert after["spec"] == published["spec"]
    wait_for(lambda: health(kubectl, "before") == ["Healthy"])
    kubectl("delete", "pod", "before", "--wait=true")
