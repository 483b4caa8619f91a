"""Which pods are evicted so that a card is free."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_fraction.domain.placement import Ask, choose
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.preemption import Proposal, victims, victims_by_node
from gpu_fraction.scheduler.state import ClusterState
from tests.builders import pods
from tests.builders.clusters import WHOLE, holder, node_cards, state_of


def node_with(cards: int, *held: Pod) -> ClusterState:
    """Node ``a`` with these pods."""
    state = state_of({"a": node_cards("a", cards)})
    for pod in held:
        state.pod_changed(pod)
    return state


def evicted(state: ClusterState, preemptor: Pod, *proposed: str) -> list[str] | None:
    """Names of the victims; None where the node is given up."""
    uids = tuple(f"uid-{name}" for name in proposed)
    found = victims(state, state.info(preemptor), "a", Proposal(uids))
    return None if found is None else sorted(uid.removeprefix("uid-") for uid in found.uids)


def test_victims_that_free_no_card_are_exchanged_for_those_that_do() -> None:
    """The node's sum would do with one half from each card; a whole card needs both of one."""
    state = node_with(
        2,
        holder("p", "a", {0: (500, 8192)}),
        holder("q", "a", {1: (500, 8192)}),
        holder("r", "a", {1: (500, 8192)}, priority=5),
        holder("s", "a", {0: (500, 8192)}, priority=7),
    )
    preemptor = pods.scheduler_pod("x", WHOLE, priority=10)
    assert evicted(state, preemptor, "p", "q") == ["q", "r"]


def test_victims_are_answered_with_the_highest_priority_first() -> None:
    """The scheduler takes the first for the highest when it compares nodes by their victims."""
    state = node_with(
        1,
        holder("aaa", "a", {0: (300, 4096)}, priority=1),
        holder("mmm", "a", {0: (300, 4096)}, priority=500),
        holder("zzz", "a", {0: (300, 4096)}, priority=900),
    )
    preemptor = state.info(pods.scheduler_pod("x", WHOLE, priority=1000))
    found = victims(state, preemptor, "a", Proposal(("uid-zzz",)))
    assert found is not None
    assert found.uids == ("uid-zzz", "uid-mmm", "uid-aaa")


def test_victims_of_unknown_priority_keep_their_place_in_the_proposal() -> None:
    """Pods without GPU work: the proposal is sorted already, so its order tells."""
    state = node_with(
        1,
        holder("aaa", "a", {0: (300, 4096)}, priority=1),
        holder("mmm", "a", {0: (300, 4096)}, priority=500),
        holder("zzz", "a", {0: (300, 4096)}, priority=900),
    )
    preemptor = state.info(pods.scheduler_pod("x", WHOLE, priority=1000))
    proposed = ("uid-first", "uid-zzz", "uid-second", "uid-aaa", "uid-last")
    found = victims(state, preemptor, "a", Proposal(proposed))
    assert found is not None
    assert found.uids == (*proposed[:3], "uid-mmm", *proposed[3:])


def test_only_violations_that_the_scheduler_counted_are_answered() -> None:
    """They come before priorities: a guess would cost a more important pod on another node."""
    state = node_with(
        2,
        holder("p", "a", {0: (500, 8192)}),
        holder("s", "a", {0: (500, 8192)}, priority=10),
        holder("q", "a", {1: (1000, 16384)}),
    )
    preemptor = state.info(pods.scheduler_pod("x", WHOLE, priority=10))
    for proposed, violations, expected in (
        (("uid-p",), 0, Proposal(("uid-q",), 0)),
        (("uid-p",), 1, Proposal(("uid-q",), 0)),
        (("uid-plain", "uid-p"), 0, Proposal(("uid-plain", "uid-q"), 0)),
        (("uid-plain", "uid-p"), 2, Proposal(("uid-plain", "uid-q"), 1)),
        (("uid-q",), 1, Proposal(("uid-q",), 1)),
    ):
        found = victims(state, preemptor, "a", Proposal(proposed, violations))
        assert found == expected


def test_among_equals_the_schedulers_own_victims_are_kept() -> None:
    """It knows which of them a disruption budget protects."""
    state = node_with(
        3, *(holder(name, "a", {at: (1000, 16384)}) for at, name in enumerate("pqr"))
    )
    assert evicted(state, pods.scheduler_pod("x", WHOLE, priority=10), "q") == ["q"]


def test_fewer_victims_come_before_lower_priorities_and_those_before_names() -> None:
    """One pod of a higher priority goes rather than two of a lower."""
    half = Ask("main", memory_milli=500, core_milli=500)
    state = node_with(
        3,
        holder("low1", "a", {0: (400, 6000)}),
        holder("low2", "a", {0: (400, 6000)}),
        holder("high", "a", {1: (900, 16000)}, priority=8),
        holder("mid", "a", {2: (900, 16000)}, priority=6),
    )
    assert evicted(state, pods.scheduler_pod("x", half, priority=10), "high") == ["low1"]
    assert evicted(state, pods.scheduler_pod("y", WHOLE, priority=10), "high") == ["mid"]
    assert evicted(state, pods.scheduler_pod("z", WHOLE, priority=7), "low1") == ["mid"]


def test_pods_of_the_same_or_higher_priority_are_never_victims() -> None:
    """And a node where only they could help is given up."""
    state = node_with(1, holder("p", "a", {0: (500, 8192)}, priority=10))
    assert evicted(state, pods.scheduler_pod("x", WHOLE, priority=10), "plain") is None


def test_proposed_victims_without_gpus_stay_victims() -> None:
    """They free what cards do not show."""
    state = node_with(1, holder("p", "a", {0: (500, 8192)}))
    found = evicted(state, pods.scheduler_pod("x", WHOLE, priority=10), "plain", "p")
    assert found == ["p", "plain"]


def test_other_resources_are_not_cut_short() -> None:
    """The victim that frees the card frees less processor than is asked for."""
    state = node_with(
        2,
        holder("p", "a", {0: (1000, 16384)}, cpu="500m", priority=1),
        holder("q", "a", {1: (500, 8192)}, cpu="8", priority=2),
        holder("r", "a", {1: (500, 8192)}, cpu="1", priority=2),
    )
    greedy = pods.scheduler_pod("x", WHOLE, priority=10, cpu="4")
    assert evicted(state, greedy, "q") == ["p", "q"]
    assert evicted(state, pods.scheduler_pod("y", WHOLE, priority=10, cpu="500m"), "q") == ["p"]


def test_what_the_pod_as_a_whole_asks_for_counts_like_kubernetes_counts_it() -> None:
    """Its own requests stand for its containers', and overhead comes on top of either."""
    small = holder("p", "a", {0: (1000, 16384)}, cpu="500m", priority=1)
    large = {"resources": {"requests": {"cpu": "8"}}}
    plain = holder("q", "a", {1: (1000, 16384)}, cpu="8", priority=2)
    whole = holder("q", "a", {1: (1000, 16384)}, cpu="1", priority=2, spec=large)
    level = {"resources": {"requests": {"cpu": "4"}}}
    overhead = {"overhead": {"cpu": "3"}}
    for held in (plain, whole):
        state = node_with(2, small, held)
        for cpu, spec in (("", level), ("1", level), ("1", overhead), ("", level | overhead)):
            preemptor = pods.scheduler_pod("x", WHOLE, priority=10, cpu=cpu, spec=spec)
            assert evicted(state, preemptor, "q") == ["p", "q"]
        modest = {"resources": {"requests": {"cpu": "500m"}}}
        preemptor = pods.scheduler_pod("x", WHOLE, priority=10, cpu="4", spec=modest)
        assert evicted(state, preemptor, "q") == ["p"]


def test_where_more_than_resources_decides_the_proposal_is_only_added_to() -> None:
    """The proposed pod holds a port of the node that the preemptor may need."""
    port = {"containers": [{"name": "main", "ports": [{"hostPort": 80}]}]}
    state = node_with(
        2,
        holder("p", "a", {0: (1000, 16384)}),
        holder("web", "a", {1: (100, 1)}, spec=port),
        holder("q", "a", {1: (900, 16000)}),
    )
    preemptor = pods.scheduler_pod("x", WHOLE, priority=10)
    assert evicted(state, preemptor, "web") in (["p", "web"], ["q", "web"])


def test_pods_on_their_way_out_are_not_replaced_by_others() -> None:
    """Their card will be free; nobody else has to go."""
    state = node_with(
        2,
        holder("leaving", "a", {0: (1000, 16384)}, deleting=True, priority=9),
        holder("p", "a", {1: (1000, 16384)}),
    )
    assert evicted(state, pods.scheduler_pod("x", WHOLE, priority=10), "p") == ["p"]
    assert evicted(state, pods.scheduler_pod("x", WHOLE, priority=10), "leaving") == ["leaving"]


def test_cards_that_are_kept_for_another_pod_are_not_counted_on() -> None:
    """Card 0 is being cleared for a pod of the same priority, and card 1 is held by one."""
    most = Ask("main", memory_milli=600, core_milli=600)
    state = node_with(
        2,
        holder("leaving", "a", {0: (600, 9830)}, deleting=True),
        holder("equal", "a", {1: (500, 8192)}, priority=100),
        pods.scheduler_pod("first", most, priority=100, nominated="a"),
    )
    assert evicted(state, pods.scheduler_pod("x", most, priority=100, cpu="4"), "plain") is None
    assert evicted(state, pods.scheduler_pod("y", most, priority=101, cpu="4"), "plain") == [
        "plain"
    ]


def test_another_card_is_cleared_than_the_one_kept_for_another_pod() -> None:
    """Evicting nobody would do, were the free card not promised."""
    state = node_with(
        3,
        holder("p", "a", {0: (1000, 16384)}, priority=1),
        holder("q", "a", {1: (1000, 16384)}, priority=2),
        pods.scheduler_pod("first", WHOLE, priority=100, nominated="a"),
    )
    assert evicted(state, pods.scheduler_pod("x", WHOLE, priority=100), "q") == ["p"]
    assert evicted(state, pods.scheduler_pod("y", WHOLE, priority=101), "q") == ["q"]


def test_several_cards_and_containers_are_freed_together() -> None:
    """Two whole cards of three; a pod over two cards counts once."""
    two = Ask("main", cards=2, memory_milli=1000, core_milli=1000)
    state = node_with(
        3,
        holder("wide", "a", {0: (900, 16000), 1: (900, 16000)}, priority=5),
        holder("p", "a", {2: (900, 16000)}),
    )
    assert evicted(state, pods.scheduler_pod("x", two, priority=10), "p") in (
        ["wide"],
        ["p", "wide"],
    )
    both = tuple(Ask(name, core_milli=1000, memory_milli=1000) for name in ("a", "b"))
    found = evicted(state, pods.scheduler_pod("y", *both, priority=10), "p")
    assert found is not None
    assert "wide" in found


def test_pods_that_ask_for_no_cards_keep_the_proposal() -> None:
    """Not ours to judge."""
    state = node_with(1, holder("p", "a", {0: (500, 8192)}))
    assert evicted(state, pods.scheduler_pod("x", priority=10), "p") == ["p"]


def test_a_finely_sliced_card_loses_its_least_important_pods() -> None:
    """Ten slices of 32 are needed, which can be chosen in 64 million ways."""
    slices = [
        holder(f"p{at:02}", "a", {0: (31, 512)}, priority=5 if at < 20 else 0) for at in range(32)
    ]
    third = Ask("main", core_milli=300, memory_mib=5120)
    found = evicted(node_with(1, *slices), pods.scheduler_pod("x", third, priority=10), "p00")
    assert found == [f"p{at}" for at in range(20, 30)]


async def test_every_node_is_judged_while_there_is_time_and_one_in_any_case() -> None:
    """What was found by then is answered: a late answer is none."""
    state = state_of({node: node_cards(node, 1) for node in "abc"})
    for node in "ac":
        state.pod_changed(holder(node, node, {0: (1000, 16384)}))
    state.pod_changed(holder("b", "b", {0: (1000, 16384)}, priority=10))
    preemptor = state.info(pods.scheduler_pod("x", WHOLE, priority=10))
    proposals = {node: Proposal((f"uid-{node}",)) for node in "ac"}
    proposals["b"] = Proposal(("uid-plain",))
    expected = {node: proposals[node] for node in "ac"}
    assert await victims_by_node(state, preemptor, proposals) == expected
    only = await victims_by_node(state, preemptor, proposals, work_s=0)
    assert only == {"a": proposals["a"]}


@st.composite
def crowded(draw: st.DrawFn) -> tuple[ClusterState, list[Pod]]:
    """Two cards with up to seven pods, none overdrawn."""
    left = {at: [1000, 16384] for at in (0, 1)}
    held = []
    for number in range(draw(st.integers(1, 7))):
        at = draw(st.integers(0, 1))
        core_milli = draw(st.integers(0, 8)) * 100
        memory_mib = draw(st.sampled_from([1, 2000, 8000]))
        if left[at][0] >= core_milli and left[at][1] >= memory_mib:
            left[at][0] -= core_milli
            left[at][1] -= memory_mib
            priority = draw(st.integers(0, 3))
            held.append(
                holder(f"p{number}", "a", {at: (core_milli, memory_mib)}, priority=priority)
            )
    return node_with(2, *held), held


@given(crowded(), st.integers(1, 10), st.sampled_from([1, 4000, 16384]))
@settings(max_examples=200, deadline=None)
def test_no_smaller_set_of_pods_and_no_set_of_lower_priorities_would_do(
    crowd: tuple[ClusterState, list[Pod]], tenths: int, memory_mib: int
) -> None:
    """Compared with every set of pods of lower priority."""
    state, held = crowd
    ask = Ask("main", core_milli=tenths * 100, memory_mib=memory_mib)
    preemptor = state.info(pods.scheduler_pod("x", ask, priority=2))
    priorities = {
        pod.metadata.uid: pod.spec.priority or 0
        for pod in held
        if (pod.spec.priority or 0) < preemptor.priority
    }
    useful = [
        (len(chosen), sorted((priorities[uid] for uid in chosen), reverse=True))
        for size in range(len(priorities) + 1)
        for chosen in combinations(sorted(priorities), size)
        if choose(state.without("a", set(chosen)), [ask]) is not None
    ]
    proposal = Proposal(tuple(priorities)[:1])
    found = victims(state, preemptor, "a", proposal)
    if not useful:
        assert found is None
    elif min(useful)[0] == 0:
        # The cards were not what was lacking; the scheduler knows what was.
        assert found == proposal
    else:
        assert found is not None
        chosen = sorted((priorities[uid] for uid in found.uids), reverse=True)
        assert (len(found.uids), chosen) == min(useful)
