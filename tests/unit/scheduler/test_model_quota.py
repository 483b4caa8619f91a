"""What a namespace holds of a GPU model stays within its quotas, where cards are chosen."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain import keys
from gpu_fraction.domain.amounts import parse_amount
from gpu_fraction.domain.placement import Ask, empty
from gpu_fraction.scheduler import preemption
from gpu_fraction.scheduler.extender import BindRefusedError, Extender
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.preemption import Proposal
from gpu_fraction.scheduler.state import ClusterState
from tests.builders import cards as build
from tests.builders import pods
from tests.builders.clusters import HALF, WHOLE, holder, node_cards, state_of
from tests.builders.limits import FixedLimits, limits

A100 = "NVIDIA A100-SXM4-80GB"
T4_ONLY = replace(WHOLE, models_in=("T4",))


def two_models() -> ClusterState:
    """Two T4 in one node, two A100 in another."""
    return state_of(
        {
            "t4": node_cards("t4", 2),
            "a100": node_cards("a100", 2, model=A100, memory_mib=81920),
        }
    )


def fitting(state: ClusterState, limited: FixedLimits, pod: Pod) -> list[str]:
    """The nodes that filter keeps."""
    return Extender(state, limited).filter(state.info(pod), ["t4", "a100"]).node_names or []


def reason(state: ClusterState, limited: FixedLimits, pod: Pod, node: str = "t4") -> str:
    """Why filter and bind refuse a node; they say the same."""
    extender = Extender(state, limited)
    result = extender.filter(state.info(pod), [node])
    with pytest.raises(BindRefusedError) as refused:
        extender.cards_for(state.info(pod), node)
    text = result.failed_and_unresolvable_nodes[node].removeprefix(f"{node}: ")
    assert str(refused.value) == f"node {node}: {text}"
    return text


def bind(state: ClusterState, limited: FixedLimits, pod: Pod, node: str) -> None:
    """What the extender does up to the Binding."""
    info = state.info(pod)
    state.send(info, node, Extender(state, limited).cards_for(info, node), 0.0)


def test_a_full_model_turns_pods_to_other_models_at_filter_and_at_bind() -> None:
    """The claim counts from the moment that a Binding is about to be sent."""
    state, limited = two_models(), limits({"T4": {"gpus": 1}})
    bind(state, limited, pods.scheduler_pod("x", HALF), "t4")
    late = pods.scheduler_pod("y", HALF)
    assert fitting(state, limited, late) == ["a100"]
    scores = Extender(state, limited).prioritize(state.info(late), ["t4", "a100"])
    assert [score.score for score in scores] == [0, 10]
    assert reason(state, limited, late) == (
        "cards 0, 1: exceeded GPU quota: budget, requested: T4.gpus=1, used: T4.gpus=1, "
        "limited: T4.gpus=1"
    )
    state.refused("uid-x", "t4")
    assert fitting(state, limited, late) == ["t4", "a100"]


def test_evicting_others_is_no_way_around_a_quota() -> None:
    """The node is marked so that the scheduler does not look for victims there."""
    state, limited = two_models(), limits({"T4": {"gpus": 0}})
    result = Extender(state, limited).filter(state.info(pods.scheduler_pod("x", HALF)), ["t4"])
    assert set(result.failed_and_unresolvable_nodes or ()) == {"t4"}
    state.pod_changed(holder("low", "t4", {0: (1000, 16384), 1: (1000, 16384)}))
    high = state.info(pods.scheduler_pod("high", WHOLE, priority=10))
    barred = Extender(state, limited).barred(high)
    proposal = Proposal(("uid-low",))
    assert preemption.victims(state, high, "t4", proposal, barred) is None
    assert preemption.victims(state, high, "t4", proposal) is not None


def test_a_pod_that_chose_the_model_is_held_to_the_quota_as_well() -> None:
    """What is in use counts, whoever was admitted first."""
    state, limited = two_models(), limits({"T4": {"gpus": 1}})
    chose = pods.scheduler_pod("chose", T4_ONLY)
    assert fitting(state, limited, chose) == ["t4"]
    bind(state, limited, pods.scheduler_pod("x", HALF), "t4")
    assert "used: T4.gpus=1" in reason(state, limited, chose)


@pytest.mark.parametrize(
    ("hard", "asks", "over"),
    [
        ({"gpus": 3}, (Ask("a", cards=2, memory_mib=1, core_milli=1), HALF), ""),
        ({"gpus": 2}, (Ask("a", cards=2, memory_mib=1, core_milli=1), HALF), "T4.gpus=3"),
        ({"cores": "1"}, (HALF, replace(HALF, container="b")), ""),
        ({"cores": "1"}, (WHOLE, replace(HALF, container="b")), "T4.cores=1500m"),
        ({"memory": "16Gi"}, (WHOLE,), ""),
        ({"memory": "15Gi"}, (WHOLE,), "T4.memory=16Gi"),
        ({"memory": "1Gi", "cores": "1"}, (HALF,), "T4.memory=8Gi"),
        ({"memory": "1Gi", "gpus": 0}, (HALF,), "T4.gpus=1,T4.memory=8Gi"),
        # A share of which compute follows memory takes as much of both.
        ({"cores": "499m"}, (Ask("main", memory_mib=8192),), "T4.cores=500m"),
    ],
)
def test_a_pod_takes_what_its_shares_come_to_on_the_model(
    hard: dict[str, Any], asks: tuple[Ask, ...], over: str
) -> None:
    """Over all its cards and containers; an exact fit fits."""
    state, limited = two_models(), limits({"T4": hard})
    pod = pods.scheduler_pod("x", *asks)
    if over:
        assert f"requested: {over}, used: " in reason(state, limited, pod)
    else:
        bind(state, limited, pod, "t4")


def test_a_quota_holds_for_the_priority_classes_of_its_scope() -> None:
    """It neither counts nor holds back pods of others."""
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": ["batch"]}
    state = two_models()
    limited = limits({"T4": {"gpus": 1}}, scopeSelector={"matchExpressions": [scope]})
    batch = {"schedulerName": keys.SCHEDULER, "priorityClassName": "batch"}
    bind(state, limited, pods.scheduler_pod("plain", HALF), "t4")
    bind(state, limited, pods.scheduler_pod("first", HALF, spec=batch), "t4")
    assert fitting(state, limited, pods.scheduler_pod("second", HALF, spec=batch)) == ["a100"]
    assert "t4" in fitting(state, limited, pods.scheduler_pod("third", HALF))
    for operator in ("Exists", "DoesNotExist"):
        scope = {"scopeName": "PriorityClass", "operator": operator}
        limited = limits({"T4": {"gpus": 1}}, scopeSelector={"matchExpressions": [scope]})
        for spec in ({}, batch):
            pod = pods.scheduler_pod("y", HALF, spec={"schedulerName": keys.SCHEDULER, **spec})
            held = (operator == "Exists") == bool(spec)
            assert ("t4" in fitting(state, limited, pod)) != held


def test_every_quota_that_means_a_card_holds() -> None:
    """A pattern may mean several products and a product several patterns."""
    state = state_of(
        {
            "small": node_cards("small", 2, model="NVIDIA A100-SXM4-40GB"),
            "large": node_cards("large", 2, model=A100),
        }
    )
    limited = limits({"A100": {"gpus": 2}, "A100-SXM4-40GB": {"gpus": 1}})
    extender = Extender(state, limited)

    def open_nodes(name: str) -> list[str] | None:
        info = state.info(pods.scheduler_pod(name, HALF))
        return extender.filter(info, ["small", "large"]).node_names

    assert open_nodes("x") == ["small", "large"]
    bind(state, limited, pods.scheduler_pod("x", HALF), "small")
    assert open_nodes("y") == ["large"]
    bind(state, limited, pods.scheduler_pod("y", HALF), "large")
    assert open_nodes("z") == []
    limited.set("budget", {})
    assert open_nodes("z") == ["small", "large"]
    limited.set("other", {"A100": {"gpus": 0}, "T4": {"gpus": 9}})
    assert open_nodes("z") == []


def test_other_namespaces_are_not_counted() -> None:
    """Quotas are of one namespace."""
    state, limited = two_models(), limits({"T4": {"gpus": 1}})
    info = replace(state.info(pods.scheduler_pod("x", HALF)), namespace="elsewhere")
    state.send(info, "t4", Extender(state, limited).cards_for(info, "t4"), 0.0)
    assert "t4" in fitting(state, limited, pods.scheduler_pod("y", HALF))


def test_room_is_kept_for_pods_that_chose_the_model_and_wait() -> None:
    """They were charged for it when they were admitted; who chose nothing was not."""
    state, limited = two_models(), limits({"T4": {"gpus": 2}})
    late = pods.scheduler_pod("late", HALF)
    for name in ("c1", "c2"):
        state.pod_changed(pods.scheduler_pod(name, T4_ONLY))
    assert reason(state, limited, late) == (
        "cards 0, 1: exceeded GPU quota: budget, requested: T4.gpus=1, used: T4.gpus=0, "
        "kept for waiting pods: T4.gpus=2, limited: T4.gpus=2"
    )
    bind(state, limited, pods.scheduler_pod("c1", T4_ONLY), "t4")
    assert "used: T4.gpus=1, kept for waiting pods: T4.gpus=1" in reason(state, limited, late)
    state.refused("uid-c1", "t4")
    assert "used: T4.gpus=0, kept for waiting pods: T4.gpus=2" in reason(state, limited, late)
    state.pod_removed("uid-c1")
    assert fitting(state, limited, late) == ["t4", "a100"]
    state.pod_changed(pods.scheduler_pod("c1", T4_ONLY))
    state.pod_changed(pods.scheduler_pod("c1", T4_ONLY, deleting=True))
    assert fitting(state, limited, late) == ["t4", "a100"], "a waiting pod that is deleted"
    state.pod_changed(holder("c2", "t4", {0: (1000, 16384)}))
    assert fitting(state, limited, late) == ["t4", "a100"], "counted once it has its card"
    assert fitting(state, limited, pods.scheduler_pod("c3", T4_ONLY)) == ["t4"]


def test_what_is_kept_follows_the_waiting_pods_and_the_quotas() -> None:
    """One extender for all of it: what it remembers never outlives its truth."""
    state, limited = two_models(), limits({"T4": {"gpus": 2}})
    extender = Extender(state, limited)
    late = state.info(pods.scheduler_pod("late", HALF))

    def room() -> bool:
        return extender.filter(late, ["t4"]).node_names == ["t4"]

    assert room()
    state.pod_changed(pods.scheduler_pod("c1", T4_ONLY))
    assert room()
    state.pod_changed(pods.scheduler_pod("c2", T4_ONLY))
    assert not room()
    limited.set("budget", {"T4": {"gpus": 3}})
    assert room()
    state.pod_changed(pods.scheduler_pod("c3", T4_ONLY))
    assert not room()
    for name in ("c1", "c2", "c3"):
        state.pod_removed(f"uid-{name}")
    assert room()
    state.pod_changed(pods.scheduler_pod("c4", replace(T4_ONLY, cards=3)))
    assert not room()
    limited.set("budget", {})
    assert room()


@pytest.mark.parametrize(
    ("pod", "kept"),
    [
        (pods.scheduler_pod("w", HALF), False),
        (pods.scheduler_pod("w", replace(HALF, models_out=("A100",))), False),
        (pods.scheduler_pod("w", replace(HALF, models_in=("A100",))), False),
        (pods.scheduler_pod("w", replace(HALF, models_in=("A100", "T4"))), True),
        (pods.scheduler_pod("w", replace(HALF, uuids=("GPU-t4-0",))), True),
        (pods.scheduler_pod("w", HALF, spec={"schedulerName": "default-scheduler"}), True),
        (pods.scheduler_pod("w", HALF, node="t4"), True),
        (pods.scheduler_pod("w", HALF, node="t4", phase="Succeeded"), False),
    ],
)
def test_room_is_kept_for_whoever_was_charged_at_admission(pod: Pod, kept: bool) -> None:
    """Also for pods that another scheduler places and for those that name cards."""
    state, limited = two_models(), limits({"T4": {"gpus": 1}})
    state.pod_changed(pod)
    assert ("t4" in fitting(state, limited, pods.scheduler_pod("late", HALF))) != kept


def test_a_pod_without_our_annotation_was_charged_at_admission() -> None:
    """It asks by resources alone, so our webhook left nothing open."""
    state, limited = two_models(), limits({"T4": {"gpus": 1}})
    stripped = pods.asking_manifest("bare", Ask("main", core_milli=500, memory_mib=1))
    stripped["metadata"]["annotations"] = {}
    state.pod_changed(msgspec.convert(stripped, Pod))
    assert fitting(state, limited, pods.scheduler_pod("late", HALF)) == ["a100"]
    assert fitting(state, limited, msgspec.convert(stripped, Pod)) == ["t4", "a100"]


def test_a_pods_own_claims_do_not_stand_in_its_way() -> None:
    """Only one of its Bindings can take effect; for others each of them counts."""
    state = state_of({"t4": node_cards("t4", 1), "a100": node_cards("a100", 1)})
    limited = limits({"T4": {"gpus": 1}})
    bind(state, limited, pods.scheduler_pod("x", WHOLE), "t4")
    state.lost("uid-x", "t4", 0.0)
    assert fitting(state, limited, pods.scheduler_pod("x", WHOLE)) == ["t4", "a100"]
    bind(state, limited, pods.scheduler_pod("x", WHOLE), "a100")
    assert fitting(state, limited, pods.scheduler_pod("y", WHOLE)) == []
    limited.set("budget", {"T4": {"gpus": 2}})
    assert "used: T4.gpus=2" in reason(
        state, limits({"T4": {"gpus": 2}}), pods.scheduler_pod("y", HALF)
    )


def test_cards_of_a_node_that_is_gone_are_still_held() -> None:
    """Their models are remembered; where they never were known, they may be any."""
    state, limited = two_models(), limits({"T4": {"gpus": 1}, "A100": {"gpus": 1}})
    late = pods.scheduler_pod("late", HALF)
    state.pod_changed(holder("p", "t4", {0: (500, 1)}))
    state.node_removed("t4")
    state.pod_changed(holder("p", "t4", {0: (500, 1)}))
    assert fitting(state, limited, late) == ["a100"]
    state.pod_changed(holder("q", "never-seen", {0: (500, 1)}))
    assert fitting(state, limited, late) == []
    state.node_changed("never-seen", state.cards("a100"))
    assert fitting(state, limited, late) == [], "that node has no such card"
    state.pod_removed("uid-q")
    assert fitting(state, limited, late) == ["a100"]


def test_pods_may_be_known_before_their_nodes() -> None:
    """A start reads both at once, in any order."""
    before = two_models()
    state, limited = ClusterState(), limits({"T4": {"gpus": 1}})
    state.pod_changed(holder("p", "a100", {0: (500, 1)}))
    state.pod_changed(holder("q", "t4", {0: (500, 1)}))
    for node in ("t4", "a100"):
        state.node_changed(node, before.cards(node))
    assert fitting(state, limited, pods.scheduler_pod("late", HALF)) == ["a100"]
    state.pod_removed("uid-q")
    assert fitting(state, limited, pods.scheduler_pod("late", HALF)) == ["t4", "a100"]


@given(st.data())
@hypothesis.settings(max_examples=200, deadline=None)
def test_a_pod_on_cards_of_several_models_keeps_to_their_common_limit(data: st.DataObject) -> None:
    """Each model is judged as if it got the whole pod; a mixture never comes to more."""
    sizes = st.tuples(st.integers(900, 1100), st.sampled_from([1000, 1000, 142, 7]))
    cards = [
        build.card(
            at,
            uuid=f"GPU-{at}",
            model=f"A100 {mib} {cores}",
            memory_mib=mib,
            core_milli=cores,
            slots=1,
        )
        for at, (mib, cores) in enumerate(data.draw(st.lists(sizes, min_size=2, max_size=4)))
    ]
    shares = st.integers(1, 400)
    kinds = st.one_of(
        st.builds(lambda m: {"memory_milli": m, "core_milli": 1}, shares),
        st.builds(lambda m: {"memory_mib": m}, shares),
    )
    drawn = data.draw(st.lists(kinds, min_size=2, max_size=2))
    asks = [Ask(f"c{at}", placement="spread", **fields) for at, fields in enumerate(drawn)]
    hard = {
        "cores": f"{data.draw(st.integers(1, 1200))}m",
        "memory": f"{data.draw(st.integers(1, 1600))}Mi",
    }
    state, limited = state_of({"n": cards}), limits({"A100": hard})
    with suppress(BindRefusedError):
        given_cards = Extender(state, limited).cards_for(
            state.info(pods.scheduler_pod("x", *asks)), "n"
        )
        taken = [share for shares in given_cards.values() for share in shares]
        assert sum(share.core_milli for share in taken) <= parse_amount("cores", hard["cores"])
        assert sum(share.memory_mib for share in taken) <= parse_amount("memory", hard["memory"])


def test_asks_are_judged_anew_when_a_model_gains_a_size() -> None:
    """A node with larger cards of the same name joins."""
    state, limited = two_models(), limits({"T4": {"memory": "8Gi"}})
    extender = Extender(state, limited)
    info = state.info(pods.scheduler_pod("x", HALF))
    assert extender.filter(info, ["t4"]).node_names == ["t4"]
    assert extender.filter(info, ["t4"]).node_names == ["t4"]
    state.node_changed("new", empty(node_cards("new", 1, memory_mib=32768)))
    assert extender.filter(info, ["t4", "new"]).node_names == []
