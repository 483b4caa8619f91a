"""Pods that a backup brings back: a quota never counts less for the cards of an earlier life."""

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.pod import Container, Resources
from gpu_fraction.quota.charge import charge
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.pods import facts_of
from tests.builders.pods import quota_pod
from tests.unit.quota.test_cluster_cards import node

STALE = {keys.ASSIGNED: assignment.render({"main": (CardShare("GPU-gone", 500, 1),)})}
HALF = Container(name="main", resources=Resources(limits={keys.SLOT: "1", keys.CORE_MILLI: "500"}))


def cost(cluster: ClusterCards, **fields: object) -> tuple[int, int]:
    """Thousandths and MiB that half a card is charged."""
    record = quota_pod(containers=[HALF], **fields)  # type: ignore[arg-type]
    facts = facts_of(record)
    found = charge(facts.on(cluster.cards_for(record, facts)))
    assert not found.unknown
    return found.amounts["cores"], found.amounts["memory"]


def test_without_a_node_it_is_charged_for_the_largest_card() -> None:
    """The extender gives it cards anew, so its stale ones do not count."""
    cluster = ClusterCards()
    cluster.change(None, node("a", ("GPU-a", "NVIDIA H100", 80000)))
    assert cost(cluster, annotations=STALE) == cost(cluster) == (500, 40000)


def test_on_a_node_it_is_charged_until_it_is_gone() -> None:
    """The node daemon starts it on no card, but its place is taken."""
    cluster = ClusterCards()
    cluster.change(None, node("a", ("GPU-a", "NVIDIA H100", 80000)))
    assert cost(cluster, annotations=STALE, node="a")[0] == 500
