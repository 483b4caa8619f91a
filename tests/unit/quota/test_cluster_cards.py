"""Which GPUs a pod may land on, and what that makes it cost."""

import json

import msgspec
import pytest

from gpu_fraction.domain import assignment, inventory
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.pod import Container, Resources
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.quota.charge import CardType, charge
from gpu_fraction.quota.cluster_cards import ClusterCards, NodeMeta, NodeRecord
from gpu_fraction.quota.pods import facts_of
from tests.builders.pods import quota_pod


def node(name: str, *cards: tuple[str, str, int]) -> NodeRecord:
    """A node that publishes its cards: uuid, model, MiB."""
    listed = tuple(
        inventory.Card(uuid=uuid, index=i, model=model, memory_mib=mib)
        for i, (uuid, model, mib) in enumerate(cards)
    )
    text = inventory.render(inventory.Inventory(cards=listed))
    return NodeRecord(
        metadata=NodeMeta(name=name, annotations={"gpu-fraction.dev/inventory": text})
    )


def labelled(name: str, **labels: str) -> NodeRecord:
    """A node that only has labels."""
    named = {key.replace("__", "/").replace("_", "."): value for key, value in labels.items()}
    return NodeRecord(metadata=NodeMeta(name=name, labels=named))


def memory(cluster: ClusterCards, **fields: object) -> int:
    """The MiB that a pod with one whole GPU is charged."""
    record = quota_pod(gpus=1, **fields)  # type: ignore[arg-type]
    facts = facts_of(record)
    found = charge(facts.on(cluster.cards_for(record, facts)))
    assert not found.unknown
    return found.amounts["memory"]


def test_a_pod_is_charged_for_the_largest_gpu_until_it_has_one() -> None:
    """All nodes while it waits, its own node once bound, its own card once chosen."""
    cluster = ClusterCards()
    small, mixed = ("GPU-s", "NVIDIA T4", 15360), ("GPU-l", "NVIDIA A100-SXM4-80GB", 81920)
    cluster.change(None, node("small", small))
    cluster.change(None, node("mixed", ("GPU-t", "NVIDIA T4", 15360), mixed))
    assert memory(cluster) == 81920
    assert memory(cluster, node="small") == 15360
    assert memory(cluster, node="mixed") == 81920
    chosen = assignment.render({"main": (CardShare("GPU-t", 1000, 15360),)})
    assert (
        memory(cluster, node="mixed", annotations={"gpu-fraction.dev/assigned": chosen}) == 15360
    )
    version = cluster.version
    cluster.change(node("mixed", ("GPU-t", "NVIDIA T4", 15360), mixed), None)
    assert cluster.version > version
    assert memory(cluster) == 15360


def test_labels_stand_in_for_the_inventory() -> None:
    """Ours, and those of NVIDIA's feature discovery."""
    cluster = ClusterCards()
    labels = {"nvidia_com__gpu_product": "Tesla-T4", "nvidia_com__gpu_memory": "15360"}
    cluster.change(None, labelled("n", **labels))
    assert memory(cluster) == 15360
    cluster.change(labelled("n", **labels), labelled("n", nvidia_com__gpu_memory="much"))
    record = quota_pod(gpus=1)
    assert cluster.cards_for(record, facts_of(record)) == ()


def registered(*cards: tuple[str, str, int], **labels: str) -> NodeRecord:
    """A node whose cards HAMi's device plugin has registered: uuid, model, MiB."""
    text = json.dumps(
        [
            {"id": uuid, "index": i, "count": 10, "devmem": mib, "type": model, "health": True}
            for i, (uuid, model, mib) in enumerate(cards)
        ]
    )
    return hami_node(text, **labels)


def hami_node(text: str, **labels: str) -> NodeRecord:
    """A node with this in the annotation that HAMi reads."""
    record = labelled("n", **labels)
    annotations = {"hami.io/node-nvidia-register": text}
    return msgspec.structs.replace(
        record, metadata=msgspec.structs.replace(record.metadata, annotations=annotations)
    )


def test_a_share_on_hami_is_charged_by_the_cards_that_hami_knows() -> None:
    """They may be larger than the configured size, and HAMi takes percentages of them."""
    cluster = ClusterCards(BackendConfig(CardSizes(40960)))
    quarter = {"nvidia.com/gpu": "1", "nvidia.com/gpumem-percentage": "25"}
    record = quota_pod(containers=[Container("main", resources=Resources(quarter))])
    h100, t4 = ("GPU-0", "NVIDIA H100 80GB HBM3", 81559), ("GPU-1", "NVIDIA-Tesla T4", 15360)
    for node_, charged_mib in (
        (None, 10240),
        (registered(h100, t4), 20389),
        (registered(t4, nvidia_com__gpu_memory="81559"), 3840),
    ):
        cluster.change(None, node_)
        facts = facts_of(record)
        found = charge(facts.on(cluster.cards_for(record, facts)), ("H100",)).amounts
        assert found["memory"] == charged_mib
        assert found["H100.gpus"] == (charged_mib != 3840)
        cluster.change(node_, None)


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "{}", "[1]", "[" * 100_000, '[{"id": "GPU-0", "devmem": "much"}]', "[]"),
        '[{"id": "GPU-0", "devmem": 0}]',
        "GPU-0,10,81559,100,NVIDIA-H100,0,true:",
    ],
)
def test_what_is_no_registration_of_hami_says_nothing(text: str) -> None:
    """Labels then tell the size: older versions of HAMi wrote another form."""
    cluster = ClusterCards()
    cluster.change(None, hami_node(text, nvidia_com__gpu_memory="15360"))
    assert memory(cluster) == 15360


def test_a_pod_on_a_node_without_the_wanted_model_is_charged_for_its_cards() -> None:
    """HAMi gives a card whose name only contains the wanted one."""
    cluster = ClusterCards(BackendConfig(CardSizes(15360)))
    cluster.change(None, registered(("GPU-0", "NVIDIA XH20", 98304)))
    wanted = {"gpu-fraction": "1", "gpu-fraction.dev/gpu-model": "H20"}
    assert memory(cluster, annotations=wanted) == 15360
    assert memory(cluster, annotations=wanted, node="n") == 98304


def test_a_share_is_charged_by_the_physical_card_of_a_mig_instance() -> None:
    """That is what a share is a share of, on an instance too."""
    cluster = ClusterCards()
    part = inventory.Card(uuid="MIG-0", index=0, model="H200", memory_mib=16384, parent="GPU-p")
    for parent_mib, charged_mib in ((143771, 143771), (0, 16384)):
        card = msgspec.structs.replace(part, parent_memory_mib=parent_mib)
        text = inventory.render(inventory.Inventory(cards=(card,)))
        annotations = {"gpu-fraction.dev/inventory": text}
        record = NodeRecord(metadata=NodeMeta(name="n", annotations=annotations))
        cluster.change(None, record)
        assert memory(cluster) == charged_mib
        cluster.change(record, None)


def test_the_configuration_stands_in_for_nodes() -> None:
    """Where no node says anything."""
    cluster = ClusterCards(BackendConfig(CardSizes(40960, {"A100-80GB": 81920})))
    assert memory(cluster) == 81920
    only = {"gpu-fraction": "1", "gpu-fraction.dev/gpu-model": "!A100"}
    assert memory(cluster, annotations=only) == 40960


def test_a_card_of_unknown_model_counts_for_every_model() -> None:
    """Unless the pod's author has ruled the model out."""
    facts = facts_of(quota_pod(gpus=1)).on((CardType("", 40960),))
    assert charge(facts, ("A100",)).amounts["A100.gpus"] == 1
    avoiding = {"gpu-fraction": "1", "gpu-fraction.dev/gpu-model": "!A100"}
    facts = facts_of(quota_pod(gpus=1, annotations=avoiding)).on((CardType("", 40960),))
    assert charge(facts, ("A100",)).amounts["A100.gpus"] == 0
