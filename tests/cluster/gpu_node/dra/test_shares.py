"""What containers get of the cards, and what the scheduler keeps from them."""

from typing import Any

import pytest

from gpu_fraction.domain import dra
from tests.cluster.daemon import Daemon, create_all, wait_started
from tests.cluster.gpu_node.dra.rig import (
    CARDS,
    MIB,
    ON_A_NODE,
    PRINT,
    QUARTER,
    on_card,
    pod,
    printed,
    refused,
    template,
    unschedulable,
)
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.waiting import wait_for

pytestmark = [*ON_A_NODE, pytest.mark.matrix]


def test_twelve_quarters_fill_three_cards(daemon: Daemon, kubectl: Kubectl) -> None:
    """Each container has its own share; the thirteenth waits until one goes."""
    kubectl.apply(template("quarter"))
    create_all(kubectl, [pod(f"q-{i}", "quarter") for i in range(12)])
    wait_started(kubectl, *(f"q-{i}" for i in range(12)))
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
    wait_for(lambda: refused(kubectl, "late"))
    kubectl("delete", "pod", "q-5", "--wait=true")
    wait_started(kubectl, "late")


def test_the_claim_tells_what_was_given(daemon: Daemon, kubectl: Kubectl) -> None:
    """The share is in ``status.devices``, written with the daemon's own rights."""
    kubectl.apply(template("quarter"), pod("told", "quarter"))
    wait_started(kubectl, "told")
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
    kubectl.apply(
        template("memory", {dra.CORES: "0", dra.MEMORY_PPM: "100000"}),
        template("third", {dra.CORES: "333", dra.MEMORY_PPM: "333333"}),
        template("two", QUARTER, count=2),
        template("whole", None, device_class=dra.WHOLE_CLASS),
        template("named", QUARTER, **on_card(last)),
    )
    kubectl.apply(pod("named", "named"), pod("third", "third", "memory"), pod("two", "two"))
    wait_started(kubectl, "named", "third", "two")
    assert printed(daemon, kubectl, "named") == [last, str(MIB // 4), "0.25"]
    assert printed(daemon, kubectl, "third", "c0")[1:] == [str(MIB * 333333 // 10**6), "0.333"]
    # Without a limit of compute the share is that of memory.
    assert printed(daemon, kubectl, "third", "c1")[1:] == [str(MIB // 10), "0.099"]
    assert len(printed(daemon, kubectl, "two")[0].split(",")) == 2
    kubectl("delete", "pod", "two", "--wait=true")
    kubectl.apply(pod("whole", "whole"))
    wait_started(kubectl, "whole")
    uuid, memory_mib, share = printed(daemon, kubectl, "whole")
    assert (int(memory_mib), share) == (MIB, "1")
    assert uuid not in {last, printed(daemon, kubectl, "third")[0]}


def test_thirds_fill_a_card(daemon: Daemon, kubectl: Kubectl) -> None:
    """Of compute in thousandths and of memory in millionths; no fourth container is let in."""
    card = on_card(daemon.uuids[1])
    kubectl.apply(
        template("third", {dra.CORES: "333", dra.MEMORY_PPM: "333333"}, **card),
        template("last", {dra.CORES: "334", dra.MEMORY_PPM: "333334"}, **card),
        template("crumb", {dra.CORES: "0", dra.MEMORY_PPM: "1"}, **card),
    )
    kubectl.apply(pod("one", "third"), pod("two", "third"), pod("three", "last"))
    wait_started(kubectl, "one", "two", "three")
    assert printed(daemon, kubectl, "three") == [daemon.uuids[1], str(MIB // 3), "0.334"]
    kubectl.apply(pod("four", "crumb"))
    wait_for(lambda: refused(kubectl, "four"))


def test_requests_of_one_claim(daemon: Daemon, kubectl: Kubectl) -> None:
    """Each container gets its own; a constraint keeps them on different cards."""
    together, apart = template("together"), template("apart")
    for made in (together, apart):
        devices = made["spec"]["spec"]["devices"]
        exactly = devices["requests"][0]["exactly"]
        half = {**exactly, "capacity": {"requests": {dra.CORES: "500", dra.MEMORY_PPM: "500000"}}}
        devices["requests"].append({"name": "more", "exactly": half})
    apart["spec"]["spec"]["devices"]["constraints"] = [
        {"distinctAttribute": f"{dra.DRIVER}/{dra.UUID}"}
    ]
    kubectl.apply(together, apart)
    for name in ("together", "apart"):
        made = pod(name, name, name)
        made["spec"]["resourceClaims"].pop()
        for container, request in zip(made["spec"]["containers"], ("gpu", "more"), strict=True):
            container["resources"]["claims"] = [{"name": "gpu-0", "request": request}]
        kubectl.apply(made)
    wait_started(kubectl, "together", "apart")
    for name, cards in (("together", 1), ("apart", 2)):
        one = printed(daemon, kubectl, name, "c0")
        two = printed(daemon, kubectl, name, "c1")
        assert (one[2], two[2]) == ("0.25", "0.5")
        assert len({one[0], two[0]}) == cards


def test_more_cards_than_there_are(daemon: Daemon, kubectl: Kubectl) -> None:
    """A count means different cards; a pod of higher priority does not make room for itself."""
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
    daemon.node.plane.kubectl.apply({**priority, "metadata": {"name": "urgent"}})
    kubectl.apply(
        template("many", QUARTER, count=CARDS + 1),
        template("all", None, device_class=dra.WHOLE_CLASS, count=CARDS),
        template("quarter"),
    )
    kubectl.apply(pod("many", "many"), pod("all", "all"))
    wait_started(kubectl, "all")
    wait_for(lambda: refused(kubectl, "many"))
    urgent = pod("urgent", "quarter")
    urgent["spec"]["priorityClassName"] = "urgent"
    kubectl.apply(urgent)
    wait_for(lambda: "Preemption is not helpful" in unschedulable(kubectl, "urgent"))
    assert kubectl.json("get", "pod", "all")["status"]["phase"] == "Running"
    kubectl("delete", "pod", "all", "many", "--wait=true")
    wait_started(kubectl, "urgent")


def test_a_pod_that_has_ended_gives_its_share_back(daemon: Daemon, kubectl: Kubectl) -> None:
    """Kubernetes deletes its claim at once, while the pod itself stays."""
    kubectl.apply(template("whole", None, device_class=dra.WHOLE_CLASS, count=CARDS))
    ends = pod("ends", "whole", script=PRINT)
    ends["spec"]["restartPolicy"] = "Never"
    kubectl.apply(ends)
    wait_for(lambda: kubectl.json("get", "pod", "ends")["status"].get("phase") == "Succeeded")
    wait_for(lambda: not daemon.slice_files())
    kubectl.apply(pod("next", "whole"))
    wait_started(kubectl, "next")
