"""Nodes, cards, slices, pods and quotas of a snapshot."""

from collections.abc import Sequence

import msgspec
import pytest

from gpu_fraction.dashboard import objects
from gpu_fraction.dashboard.cards import total
from gpu_fraction.dashboard.cluster import Cluster, view
from gpu_fraction.dashboard.quotas import largest_share, quota_view
from gpu_fraction.dashboard.snapshot import Gap, Part, Snapshot
from gpu_fraction.domain import keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.placement import choose
from gpu_fraction.kube.timestamps import utc_now
from tests.builders.cards import card
from tests.builders.views import (
    KINDS,
    Raw,
    claim,
    device_slice,
    gpu_node,
    gpu_pod,
    quota,
    small_cluster,
)

DENIED = Part(gap=Gap("nodes", "forbidden", "no"))


def cluster(found: Sequence[Raw], **parts: Part) -> Cluster:  # type: ignore[type-arg]
    """The view of these objects; ``parts`` replace what was read."""
    read: dict[str, list[object]] = {name: [] for name, _ in KINDS.values()}
    for raw in found:
        name, kind = KINDS[raw["kind"]]
        read[name].append(msgspec.json.decode(msgspec.json.encode(raw), type=kind))
    whole = {name: Part(tuple(items)) for name, items in read.items()}
    return view(Snapshot(utc_now(), **{**whole, **parts}))  # type: ignore[arg-type]


def test_cards_have_what_is_given_of_them() -> None:
    """The sum of the slices, whoever holds them."""
    first, second, *_ = cluster(small_cluster()).cards
    assert (first.given_core_milli, first.given_memory_mib) == (750, 61440)
    assert {(one.namespace, one.pod) for one in first.slices} == {
        ("team-a", "train"),
        ("team-b", "serve"),
    }
    assert first.namespaces == ("team-a", "team-b")
    assert first.free_milli == 250
    assert second.state.untouched
    assert second.free_milli == 1000


def test_the_free_share_is_the_scarcer_of_the_two() -> None:
    """Half of the compute with a tenth of the memory left is a tenth."""
    pod = gpu_pod("p", CardShare("GPU-0", 500, 14746), node="n")
    (one,) = cluster([gpu_node("n", card(0)), pod]).cards
    assert one.free_milli == 99


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (gpu_node("n", card(0, healthy=False, health_reason="XID 79")), "XID 79"),
        (gpu_node("n", card(0, healthy=False)), "no reason given"),
        (gpu_node("n", card(0), unschedulable=True), "cordoned"),
        (gpu_node("n", card(0), ready=False), "node not ready"),
    ],
)
def test_a_card_that_takes_no_pods_has_nothing_free(node: Raw, why: str) -> None:
    """And says why."""
    (one,) = cluster([node]).cards
    assert one.closed == why
    assert one.free_milli == 0
    assert total([one]).free_milli == total([one]).whole_free == total([one]).open_cards == 0
    assert total([one]).cards == 1


def test_sums_by_model() -> None:
    """With the largest share that fits on one card, and how broken the free share is."""
    sums = cluster(small_cluster()).by_model()
    assert list(sums) == ["NVIDIA A100-SXM4-80GB", "Tesla T4"]
    a100 = sums["NVIDIA A100-SXM4-80GB"]
    assert (a100.cards, a100.slices, a100.whole_free) == (2, 2, 1)
    assert (a100.free_milli, a100.largest_milli, a100.given_milli) == (1250, 1000, 375)
    assert a100.fragmented_milli == 200
    assert sums["Tesla T4"].open_cards == 1


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_holds_nothing(phase: str) -> None:
    """Its annotation stays."""
    pod = gpu_pod("p", CardShare("GPU-0", 500, 8192), node="n", phase=phase)
    found = cluster([gpu_node("n", card(0)), pod])
    assert found.cards[0].state.untouched
    assert not found.pods[0].slices
    assert found.pods[0].state == "finished"


@pytest.mark.parametrize("text", ["", "{", '{"v":9,"containers":{}}', "[]"])
def test_annotations_that_cannot_be_read_hurt_nobody_else(text: str) -> None:
    """The node has no cards, the pod no slices, and both say so."""
    pod = gpu_pod("p", node="n")
    pod["metadata"]["annotations"][keys.ASSIGNED] = text
    bad = gpu_node("bad", text=text)
    found = cluster([gpu_node("n", card(0)), bad, pod])
    assert "unreadable" in found.nodes[0].problem
    assert not found.nodes[0].cards
    assert found.cards[0].free_milli == 1000
    assert keys.ASSIGNED in found.pods[0].assignment_problem


def test_a_slice_of_a_card_that_no_node_has_is_a_stray() -> None:
    """A card was taken out, or another writer invented it."""
    pods = [
        gpu_pod("p", CardShare("GPU-9", 500, 8192), node="n"),
        gpu_pod("q", CardShare("GPU-0", 500, 8192), node="other"),
    ]
    found = cluster([gpu_node("n", card(0)), *pods])
    assert {one.pod for one in found.strays} == {"p", "q"}
    assert found.cards[0].state.untouched


def test_an_overdrawn_card_is_told() -> None:
    """Its free share is 0, not less."""
    shares = [gpu_pod(name, CardShare("GPU-0", 600, 8192), node="n") for name in "pq"]
    (one,) = cluster([gpu_node("n", card(0)), *shares]).cards
    assert one.overdrawn
    assert one.free_milli == 0
    assert total([one]).overdrawn == 1


def test_claims_hold_parts_of_cards() -> None:
    """As the scheduler counted them, with the containers that use the claim."""
    pod = gpu_pod("p", node="n")
    pod["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "t"}]
    pod["spec"]["containers"][0]["resources"] = {"claims": [{"name": "gpu"}]}
    pod["status"]["resourceClaimStatuses"] = [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]
    cards = card(0, uuid="GPU-AbC")
    held = claim("p-gpu-x", pod, "n", "GPU-AbC", 300, 500_000)
    for objects_read in (
        [gpu_node("n", cards), device_slice("n", cards), held, pod],
        [gpu_node("n", cards), held, pod],  # without the right to list ResourceSlices
    ):
        found = cluster(objects_read)
        (one,) = found.slices
        assert (one.uuid, one.core_milli, one.memory_mib) == ("GPU-AbC", 300, 8192)
        assert (one.pod, one.container, one.claim) == ("p", "main", "p-gpu-x")
        assert found.pods[0].slices == (one,)


def test_without_the_right_to_nodes_cards_come_from_resource_slices() -> None:
    """Of the newest generation of the pool, with their slices."""
    sick = card(1, healthy=False)
    pod = gpu_pod("p", node="n")
    found = cluster(
        [
            device_slice("n", card(7), generation=1),
            device_slice("n", card(0), sick, generation=2),
            claim("c", pod, "n", "GPU-0", 500, 500_000),
        ],
        nodes=DENIED,
    )
    assert [(one.card.uuid, one.free_milli) for one in found.cards] == [
        ("GPU-0", 500),
        ("GPU-1", 0),
    ]
    assert found.cards[0].card.model == "Tesla T4"
    assert "unhealthy" in found.cards[1].closed


def test_a_claim_that_no_pod_has_reserved_holds_its_card() -> None:
    """The device is taken all the same."""
    pod = gpu_pod("p", node="n")
    held = claim("c", pod, "n", "GPU-0", 500, 500_000)
    held["status"]["reservedFor"] = []
    (one,) = cluster([gpu_node("n", card(0)), held]).slices
    assert (one.pod, one.claim) == ("", "c")


def test_placement_works_on_the_cards_of_a_view() -> None:
    """Which is how a view answers what would fit."""
    found = cluster(small_cluster())
    waiting = found.pod("team-a", "next")
    assert waiting is not None
    assert found.waiting == (waiting,)
    node = found.node("n1")
    assert node is not None
    placed = choose(node.states, waiting.asks)
    assert placed is not None
    assert placed.assignment["main"][0].uuid == "GPU-b"


def test_pods_that_were_never_rewritten_are_gpu_pods() -> None:
    """A misspelt annotation, too: explaining those is what views are for."""
    pod = gpu_pod("p")
    pod["metadata"]["annotations"] = {"gpu-fractoin": "0.5"}
    pod["spec"]["containers"][0].pop("resources")
    (one,) = cluster([pod]).pods
    assert one.rendered is None
    assert one.backends == ()
    assert one.state == "waiting"


def test_what_our_scheduler_can_never_serve_is_told() -> None:
    """Two slots, for example."""
    pod = gpu_pod("p")
    pod["spec"]["containers"][0]["resources"]["limits"][keys.SLOT] = "2"
    (one,) = cluster([pod]).pods
    assert "allowed is exactly 1" in one.problem
    assert not one.asks


def test_the_one_who_runs_a_pod() -> None:
    """Its controller, else its service account."""
    owner = {"kind": "ReplicaSet", "name": "rs", "controller": True}
    pods = cluster([gpu_pod("a", ownerReferences=[owner]), gpu_pod("b")]).pods
    assert [one.owner for one in pods] == ["ReplicaSet/rs", "ServiceAccount/trainer"]


def test_own_pods_are_kept_for_those_who_look_after_them() -> None:
    """They ask for no GPU."""
    labels = {"app.kubernetes.io/name": "gpu-fraction", objects.COMPONENT: "webhook"}
    pod = gpu_pod("w", labels=labels)
    del pod["metadata"]["annotations"]
    del pod["spec"]["containers"][0]["resources"]
    found = cluster([pod])
    assert [one.metadata.name for one in found.own_pods] == ["w"]
    assert not found.pods


def test_quotas_with_what_is_used_reserved_and_free() -> None:
    """Another pod of the name is in the counted use already."""
    reserved = [
        {"podUID": "1", "podName": "a", "expires": "2026-12-01T12:00:00Z", "cores": "500m"},
        {"podUID": "2", "podName": "b", "cores": "500m", "counted": {"cores": "400m"}},
    ]
    raw = quota(
        "q",
        {"cores": "2", "pods": 3, "models": {"A100": {"cores": "1"}}},
        {"cores": "500m", "memory": "8Gi", "models": {"A100": {"cores": "250m"}}},
        status={"reserved": reserved},
    )
    (one,) = cluster([raw]).quotas
    assert one.keys == ("cores", "memory", "pods", "A100.cores")
    assert (one.used["cores"], one.pending("cores"), one.free("cores")) == (500, 600, 900)
    assert one.free("memory") is None
    assert one.full_milli("cores") == 550
    assert one.counted


def test_amounts_of_a_quota_that_cannot_be_read_are_told() -> None:
    """A status may hold anything."""
    raw = quota("q", {"cores": "a lot", "memory": [1]}, {"gpus": {"x": 1}, "models": 7})
    (one,) = cluster([raw]).quotas
    assert not one.hard
    assert [text.partition(":")[0] for text in one.problems] == [
        "spec.hard.cores",
        "spec.hard.memory",
        "status.used.gpus",
    ]


def test_a_quota_that_was_not_counted_yet_says_so() -> None:
    """Its used amounts are those of older limits."""
    raw = quota("q", {"cores": "1"}, {"cores": "1"})
    raw["metadata"]["generation"] = 2
    assert not cluster([raw]).quotas[0].counted


@pytest.mark.parametrize(
    ("hard", "used", "share", "bound"),
    [
        ({"cores": "1"}, {"cores": "750m"}, 250, "q: cores"),
        ({"memory": "80Gi"}, {"memory": "60Gi"}, 250, "q: memory"),
        ({"cores": "8", "gpus": 1}, {"gpus": 1}, 0, "q: gpus"),
        ({"pods": 2}, {"pods": 1}, 1000, ""),
        ({"models": {"A100": {"cores": "500m"}}}, {}, 500, "q: A100.cores"),
        ({"models": {"H100": {"cores": "500m"}}}, {}, 1000, ""),
    ],
)
def test_the_largest_share_that_quotas_allow(hard: Raw, used: Raw, share: int, bound: str) -> None:
    """On a card of one model, by the key that is scarcest."""
    raw = msgspec.json.decode(msgspec.json.encode(quota("q", hard, used)), type=objects.Quota)
    found = largest_share([quota_view(raw)], "NVIDIA A100-SXM4-80GB", 81920)
    assert found == (share, bound)


def test_the_limit_of_a_single_pod_bounds_its_share() -> None:
    """Whatever is left of the budget."""
    raw = quota("q", {"cores": "8"}, {}, perPod={"max": {"memory": "20Gi"}})
    spec = msgspec.json.decode(msgspec.json.encode(raw), type=objects.Quota)
    assert largest_share([quota_view(spec)], "Tesla T4", 81920) == (250, "q: perPod.max.memory")


def test_without_all_pods_free_amounts_are_not_certain() -> None:
    """Views say so."""
    part: Part[objects.Pod] = Part(gap=Gap("pods", "forbidden", "no", ("team-a",)))
    assert not cluster(small_cluster(), pods=part).pods_known
    assert cluster(small_cluster()).pods_known
