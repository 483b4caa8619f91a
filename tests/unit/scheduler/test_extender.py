"""Filter, prioritize and the choice at bind, on small clusters."""

import gc
import weakref

import msgspec
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.placement import Ask, empty
from gpu_fraction.domain.placement.vectorised import fragmentation
from gpu_fraction.scheduler.claims import Stage
from gpu_fraction.scheduler.extender import BindRefusedError, Extender
from gpu_fraction.scheduler.objects import Pod, read_cards
from gpu_fraction.scheduler.state import EVALUATIONS_KEPT, ClusterState
from tests.builders import pods
from tests.builders.clusters import HALF, WHOLE, holder, node_cards, state_of


def test_filter_keeps_every_node_that_fits_in_the_given_order() -> None:
    """Not just the best one: Kubernetes' own scoring goes on choosing."""
    state = state_of({name: node_cards(name, 1) for name in "abc"})
    state.pod_changed(holder("p", "b", {0: (600, 1)}))
    result = Extender(state).filter(state.info(pods.scheduler_pod("x", HALF)), ["c", "b", "a"])
    assert result.node_names == ["c", "a"]
    assert result.failed_nodes == {"b": "b: card 0: 400 milli-cores free, 500 needed"}
    assert result.failed_and_unresolvable_nodes == {}


def test_refusals_that_no_preemption_lifts_are_marked_so() -> None:
    """Another model, no inventory, an unreadable one: the scheduler need not try victims."""
    state = state_of({"t4": node_cards("t4", 1)})
    state.node_changed("broken", *read_cards("{"))
    state.node_changed("bare", *read_cards(None))
    ask = Ask("main", core_milli=500, memory_milli=500, models_in=("A100",))
    result = Extender(state).filter(
        state.info(pods.scheduler_pod("x", ask)), ["t4", "broken", "bare"]
    )
    assert result.node_names == []
    assert result.failed_nodes == {}
    reasons = result.failed_and_unresolvable_nodes
    assert reasons["t4"] == "t4: card 0: is Tesla T4, asked for A100"
    assert reasons["bare"] == "no GPU inventory (is the node daemon running?)"
    assert reasons["broken"].startswith(f"{keys.INVENTORY} is unreadable: ")


def test_many_refusals_share_a_reason_and_the_nearest_are_spelled_out() -> None:
    """An event holds 1024 bytes; the scheduler counts equal reasons together."""
    names = [f"n{at:02}" for at in range(20)]
    state = state_of({name: node_cards(name, 8) for name in names})
    for name in names:
        state.pod_changed(holder(f"p-{name}", name, dict.fromkeys(range(8), (600, 1))))
    failed = Extender(state).filter(state.info(pods.scheduler_pod("x", HALF)), names).failed_nodes
    assert set(failed) == set(names)
    detailed = [name for name in names if failed[name].startswith(f"{name}: ")]
    assert detailed == names[:3]
    assert failed["n00"] == "n00: cards 0-7: 400 milli-cores free, 500 needed"
    shared = {failed[name] for name in names if name not in detailed}
    assert shared == {"no GPU has 500/1000 of its memory and 500 milli-cores free"}


def test_a_request_that_cannot_be_read_is_refused_on_every_node() -> None:
    """With the field and what is wrong with it."""
    state = state_of({"a": node_cards("a", 1)})
    amounts = {keys.SLOT: "1", keys.CORE_MILLI: "1500", keys.MEMORY_MIB: "1001"}
    container = {"name": "main", "resources": {"limits": amounts}}
    pod = msgspec.convert({"metadata": {}, "spec": {"containers": [container]}}, Pod)
    result = Extender(state).filter(state.info(pod), ["a"])
    assert result.failed_and_unresolvable_nodes == {
        "a": (
            "container main: gpu-fraction.dev/memory-mib is 1001 over 2 cards, "
            "allowed: the same whole amount on each"
        )
    }


def test_scores_follow_the_policy() -> None:
    """Binpack goes to the fullest node, spread to the emptiest."""
    state = state_of({name: node_cards(name, 1) for name in "abc"})
    state.pod_changed(holder("p", "b", {0: (500, 8000)}))
    state.pod_changed(holder("q", "c", {0: (100, 1000)}))
    extender = Extender(state)

    def scores(policy: str) -> dict[str, int]:
        ask = Ask("main", memory_milli=250, core_milli=250, placement=policy)  # type: ignore[arg-type]
        found = extender.prioritize(state.info(pods.scheduler_pod("x", ask)), ["a", "b", "c"])
        return {score.host: score.score for score in found}

    assert scores("binpack") == {"a": 0, "b": 10, "c": 8}
    assert scores("spread") == {"a": 10, "b": 0, "c": 8}


def test_bind_chooses_cards_and_a_repeat_gets_the_same() -> None:
    """The claim of an unanswered Binding is what the repeat binds."""
    state = state_of({"a": node_cards("a", 2)})
    extender = Extender(state)
    info = state.info(pods.scheduler_pod("x", HALF))
    cards = extender.cards_for(info, "a")
    state.send(info, "a", cards, 0.0)
    state.lost("uid-x", "a", 1.0)
    # The other card is the better choice by now, but may not be the one that was bound.
    state.pod_changed(holder("p", "a", {1: (500, 8192)}))
    assert extender.cards_for(info, "a") == cards
    assert extender.filter(info, ["a"]).node_names == ["a"]
    assert len(state.claims.of_pod("uid-x")) == 1


def test_bind_is_refused_card_by_card_when_others_were_faster() -> None:
    """The text ends in the pod's events."""
    state = state_of({"a": node_cards("a", 2)})
    state.pod_changed(holder("p", "a", {0: (1000, 16384), 1: (600, 1)}))
    with pytest.raises(BindRefusedError) as refused:
        Extender(state).cards_for(state.info(pods.scheduler_pod("x", HALF)), "a")
    assert str(refused.value) == (
        "node a: card 0: 0 MiB and 0 milli-cores free, 8192 and 500 needed; "
        "card 1: 400 milli-cores free, 500 needed"
    )


def test_an_unsettled_claim_does_not_stand_in_its_own_pods_way() -> None:
    """The scheduler may try another node; the first claim stays until it is settled."""
    state = state_of({"a": node_cards("a", 1), "b": node_cards("b", 1)})
    extender = Extender(state)
    info = state.info(pods.scheduler_pod("x", WHOLE))
    state.send(info, "a", extender.cards_for(info, "a"), 0.0)
    state.lost("uid-x", "a", 0.0)
    other = state.info(pods.scheduler_pod("y", WHOLE))
    assert extender.filter(info, ["a", "b"]).node_names == ["a", "b"]
    assert extender.filter(other, ["a", "b"]).node_names == ["b"]
    state.pod_changed(holder("x", "b", {0: (1000, 16384)}))
    assert extender.filter(other, ["a", "b"]).node_names == ["a"]


def test_the_watch_may_be_faster_than_the_answer() -> None:
    """What it shows needs no settling."""
    state = state_of({"a": node_cards("a", 1)})
    info = state.info(pods.scheduler_pod("x", WHOLE))
    state.send(info, "a", Extender(state).cards_for(info, "a"), 0.0)
    state.pod_changed(holder("x", "a", {0: (1000, 16384)}))
    state.accepted("uid-x", "a", 1.0)
    state.refused("uid-x", "a")
    assert [claim.stage for claim in state.claims] == [Stage.SEEN]
    assert state.claims.unseen() == []


def test_what_preemption_cleared_is_kept_for_the_pod_that_preempted() -> None:
    """Lower and equal priorities find it taken; higher ones may take it."""
    state = state_of({"a": node_cards("a", 1)})
    extender = Extender(state)
    state.pod_changed(holder("victim", "a", {0: (1000, 16384)}, deleting=True))
    nominee = pods.scheduler_pod("nominee", WHOLE, priority=100, nominated="a")
    state.pod_changed(nominee)
    state.pod_removed("uid-victim")
    fits = {
        priority: extender.filter(
            state.info(pods.scheduler_pod("x", HALF, priority=priority)), ["a"]
        ).node_names
        for priority in (0, 100, 101)
    }
    assert fits == {0: [], 100: [], 101: ["a"]}
    low = extender.filter(state.info(pods.scheduler_pod("x", HALF)), ["a"])
    assert low.failed_nodes["a"].startswith("a: card 0: 0 MiB and 0 milli-cores free")
    assert extender.filter(state.info(nominee), ["a"]).node_names == ["a"]


def test_a_nominated_pod_that_is_being_bound_is_counted_once() -> None:
    """Its claim holds the cards by then, the nomination nothing more."""
    state = state_of({"a": node_cards("a", 1)})
    extender = Extender(state)
    state.pod_changed(pods.scheduler_pod("nominee", HALF, priority=100, nominated="a"))
    info = state.info(pods.scheduler_pod("nominee", HALF, priority=100, nominated="a"))
    other = state.info(pods.scheduler_pod("x", HALF, priority=100, nominated="a"))
    state.send(info, "a", extender.cards_for(info, "a"), 0.0)
    assert extender.filter(other, ["a"]).node_names == ["a"]
    state.lost("uid-nominee", "a", 1.0)
    assert extender.filter(other, ["a"]).node_names == ["a"]
    third = state.info(pods.scheduler_pod("y", HALF, priority=100))
    state.send(other, "a", extender.cards_for(other, "a"), 1.0)
    assert extender.filter(third, ["a"]).node_names == []


def test_a_nomination_ends_when_the_pod_is_bound_elsewhere() -> None:
    """Not before that is certain: a Binding that fails leaves the pod its nominated place."""
    state = state_of({"a": node_cards("a", 1), "b": node_cards("b", 1)})
    extender = Extender(state)
    state.pod_changed(pods.scheduler_pod("nominee", WHOLE, priority=100, nominated="a"))
    info = state.info(pods.scheduler_pod("nominee", WHOLE, priority=100, nominated="a"))
    other = state.info(pods.scheduler_pod("x", WHOLE, priority=100))
    state.send(info, "b", extender.cards_for(info, "b"), 0.0)
    assert extender.filter(other, ["a"]).node_names == []
    state.accepted("uid-nominee", "b", 1.0)
    assert extender.filter(other, ["a"]).node_names == ["a"]


def test_pods_of_other_stacks_pass() -> None:
    """No asks of ours: every node fits and none is preferred."""
    state = ClusterState()
    extender = Extender(state)
    info = state.info(pods.scheduler_pod("x"))
    assert extender.filter(info, ["a", "b"]).node_names == ["a", "b"]
    assert {score.score for score in extender.prioritize(info, ["a", "b"])} == {0}
    assert extender.cards_for(info, "a") == {}


def test_pods_that_the_node_daemon_will_serve_are_reckoned_with() -> None:
    """Bound by another scheduler, cards not chosen yet: they will take the first that fits."""
    state = state_of({"a": node_cards("a", 1)})
    extender = Extender(state)
    state.pod_changed(pods.scheduler_pod("guest", HALF, node="a", phase="Running"))
    assert state.cards("a")[0].free_core_milli == 500
    assert extender.filter(state.info(pods.scheduler_pod("x", WHOLE)), ["a"]).node_names == []
    state.pod_changed(holder("guest", "a", {0: (900, 16000)}))
    assert state.cards("a")[0].free_core_milli == 100
    state.pod_removed("uid-guest")
    assert state.cards("a")[0].untouched


def test_a_restart_ends_with_the_same_books() -> None:
    """Nodes and pods are all there is; their order of arrival does not matter."""
    nodes = {name: node_cards(name, 2) for name in "ab"}
    held = [holder("p", "a", {0: (500, 100), 1: (500, 100)}), holder("q", "b", {1: (10, 16000)})]
    before, after = state_of(nodes), ClusterState()
    for pod in held:
        before.pod_changed(pod)
        after.pod_changed(pod)
    for name in sorted(nodes, reverse=True):
        after.node_changed(name, empty(nodes[name]))
    assert [before.cards(name) for name in "ab"] == [after.cards(name) for name in "ab"]
    assert {claim.stage for claim in after.claims} == {Stage.SEEN}


def test_a_node_that_comes_back_finds_its_pods_cards_taken() -> None:
    """Claims outlive the Node object; the pods are still there."""
    state = state_of({"a": node_cards("a", 1)})
    state.pod_changed(holder("p", "a", {0: (500, 8192)}))
    state.node_removed("a")
    assert state.cards("a") == ()
    state.node_changed("a", empty(node_cards("a", 1)))
    assert state.cards("a")[0].free_core_milli == 500


def test_overdrawn_cards_are_counted() -> None:
    """Two pods of another writer on one card; the next choice goes elsewhere."""
    state = state_of({"a": node_cards("a", 2)})
    state.pod_changed(holder("p", "a", {0: (700, 100)}))
    state.pod_changed(holder("q", "a", {0: (700, 100)}))
    assert fragmentation(state.table()).overdrawn == 1
    cards = Extender(state).cards_for(state.info(pods.scheduler_pod("x", HALF)), "a")
    assert cards["main"][0].uuid == "GPU-a-1"


def test_answers_are_remembered_for_a_few_pods_only() -> None:
    """A thousand different requests that fit nowhere do not fill the memory."""
    state = state_of({"a": node_cards("a", 1)})
    made = []
    for mib in range(1, 1001):
        asks = (Ask("main", memory_mib=100_000 + mib),)
        judged = state.evaluate(asks, {})
        # Prioritize asks again about the pod that filter has just asked about.
        assert state.evaluate(asks, {}) is judged
        made.append(weakref.ref(judged.fits))
    del judged
    gc.collect()
    assert sum(answer() is not None for answer in made) <= EVALUATIONS_KEPT
