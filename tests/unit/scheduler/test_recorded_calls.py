"""Calls that a real kube-scheduler made, and what the extender answers."""

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.placement import Ask, empty
from gpu_fraction.scheduler.extender import Extender
from gpu_fraction.scheduler.preemption import Proposal, victims
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.wire import (
    BindingArgs,
    FilterArgs,
    FilterResult,
    MetaPod,
    PreemptionArgs,
    PreemptionResult,
    Victims,
)
from tests.builders import cards as build
from tests.builders import pods

RECORDED = Path(__file__).parents[2] / "data" / "extender"


def recorded(name: str) -> dict[str, Any]:
    """One recorded call."""
    call: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return call


def with_resources(body: dict[str, Any], amounts: dict[str, str]) -> dict[str, Any]:
    """The recorded pod asking for today's resources."""
    changed = copy.deepcopy(body)
    for container in changed["Pod"]["spec"]["containers"]:
        container["resources"] = {"limits": amounts, "requests": amounts}
    return changed


@pytest.fixture
def state() -> ClusterState:
    """The recorded node, with two cards; 700 milli-cores of each are given away."""
    state = ClusterState()
    state.node_changed("node-a", empty([build.card(0), build.card(1)]))
    held = Ask("main", core_milli=700, memory_mib=4096)
    for at, uid in enumerate(("b240897a-ddf7-4457-824a-fae0abfff760", "other")):
        cards = (
            '{"v":1,"containers":{"main":[{"uuid":"GPU-%d","coreMilli":700,"memoryMib":4096}]}}'
        )
        state.pod_changed(
            pods.scheduler_pod(uid, held, uid=uid, node="node-a", assigned=cards % at)
        )
    return state


def test_a_pod_that_asks_for_nothing_of_ours_keeps_all_its_nodes(state: ClusterState) -> None:
    """The recorded pod names a resource that is not one of ours: nothing is refused."""
    call = recorded("filter-x1")
    args = msgspec.convert(call["body"], FilterArgs)
    assert args.node_names is not None
    result = Extender(state).filter(state.info(args.pod), args.node_names)
    # "Nodes" is for schedulers that send whole nodes; leaving it out is Go's null.
    assert {**msgspec.to_builtins(result), "Nodes": None} == call["answer"]


def test_filter_of_a_pod_that_fits_no_card_says_which_and_why(state: ClusterState) -> None:
    """600 milli-cores are free on the node, but on no card."""
    amounts = {keys.SLOT: "1", keys.CORE_MILLI: "600", keys.MEMORY_MIB: "4k"}
    body = with_resources(recorded("filter-x1")["body"], amounts)
    args = msgspec.convert(body, FilterArgs)
    assert args.node_names is not None
    result = Extender(state).filter(state.info(args.pod), args.node_names)
    assert result == FilterResult(
        [],
        {"node-a": "node-a: cards 0, 1: 300 milli-cores free, 600 needed"},
    )


def test_filter_of_a_pod_that_fits_keeps_the_node(state: ClusterState) -> None:
    """300 milli-cores and 12288 MiB are free on each card."""
    amounts = {keys.SLOT: "1", keys.CORE_MILLI: "300", keys.MEMORY_MIB: "12Ki"}
    body = with_resources(recorded("filter-x1")["body"], amounts)
    args = msgspec.convert(body, FilterArgs)
    assert args.node_names is not None
    assert Extender(state).filter(state.info(args.pod), args.node_names).node_names == ["node-a"]


def test_the_recorded_bind_names_the_pod_and_the_node() -> None:
    """All that bind is told; the pod itself comes from the watch."""
    args = msgspec.convert(recorded("bind-x1")["body"], BindingArgs)
    assert args == BindingArgs("x1", "team-a", "12e94a12-e78c-43e0-965b-2a3b39d18b12", "node-a")


def test_preempt_keeps_the_victim_that_frees_a_card(state: ClusterState) -> None:
    """The preemptor, of priority 1000, needs 700; the end of the proposed victim frees them."""
    amounts = {keys.SLOT: "1", keys.CORE_MILLI: "700", keys.MEMORY_MIB: "4k"}
    body = with_resources(recorded("preempt-x2")["body"], amounts)
    args = msgspec.convert(body, PreemptionArgs)
    assert args.node_name_to_meta_victims is not None
    proposed = args.node_name_to_meta_victims["node-a"]
    uids = tuple(pod.uid for pod in proposed.pods or ())
    found = victims(state, state.info(args.pod), "node-a", Proposal(uids))
    assert found == Proposal(uids)
    answer = PreemptionResult({"node-a": Victims([MetaPod(uid) for uid in uids])})
    assert msgspec.to_builtins(answer) == {
        "NodeNameToMetaVictims": recorded("preempt-x2")["body"]["NodeNameToMetaVictims"]
    }


def test_preempt_gives_up_a_node_that_no_eviction_helps(state: ClusterState) -> None:
    """No card of the node is as large as the request."""
    amounts = {keys.SLOT: "1", keys.CORE_MILLI: "700", keys.MEMORY_MIB: "40k"}
    body = with_resources(recorded("preempt-x2")["body"], amounts)
    args = msgspec.convert(body, PreemptionArgs)
    proposal = Proposal(("b240897a-ddf7-4457-824a-fae0abfff760",))
    assert victims(state, state.info(args.pod), "node-a", proposal) is None
