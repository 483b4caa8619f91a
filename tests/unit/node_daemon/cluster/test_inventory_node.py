"""What stands on the Node object for an inventory, and how it is repaired."""

import pytest

from gpu_fraction.domain import inventory as wire
from gpu_fraction.domain import keys
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.node_daemon.cluster import inventory_node

H100 = Card(
    uuid="GPU-1", index=0, model="NVIDIA H100 80GB HBM3", memory_mib=80959, isolation="cgroup"
)
L4 = Card(uuid="GPU-2", index=1, model="NVIDIA L4", memory_mib=22731, isolation="none", slots=8)
SICK = Card(uuid="GPU-3", index=2, model="NVIDIA L4", memory_mib=22731, healthy=False)


def node(*cards: Card) -> inventory_node.NodeFields:
    """What the Node should carry for these cards."""
    return inventory_node.desired(Inventory(driver_version="615", cards=cards))


def test_labels_describe_the_machine() -> None:
    """Model as a label can hold it, count, memory of a card, isolation."""
    assert node(H100).labels == {
        keys.LABEL_MODEL: "NVIDIA-H100-80GB-HBM3",
        keys.LABEL_COUNT: "1",
        keys.LABEL_MEMORY_MIB: "80959",
        keys.LABEL_ISOLATION: "cgroup",
    }


def test_different_cards_are_said_to_be_mixed_and_memory_is_the_smallest() -> None:
    """A selector on the label then never promises more than each card has."""
    labels = node(H100, L4).labels
    assert (labels[keys.LABEL_MODEL], labels[keys.LABEL_ISOLATION]) == ("mixed", "mixed")
    assert labels[keys.LABEL_MEMORY_MIB] == "22731"


def test_capacity_counts_healthy_cards_alone() -> None:
    """A sick card lowers cores and memory; the labels still count it."""
    wanted = node(H100, L4, SICK)
    assert wanted.capacity == {keys.CORE_MILLI: "2000", keys.MEMORY_MIB: str((80 + 24) * 1024)}
    assert wanted.labels[keys.LABEL_COUNT] == "3"


@pytest.mark.parametrize(
    ("reported_mib", "sold_gib"),
    [(15360, 16), (23034, 24), (23028, 24), (46068, 48), (81559, 80), (143771, 141), (4864, 5)],
)
def test_capacity_holds_the_size_that_a_card_is_sold_under(
    reported_mib: int, sold_gib: int
) -> None:
    """Shares counted by a configured size of 24 GiB pass the scheduler and kubelet on an L4."""
    capacity = node(Card(uuid="GPU-9", index=0, model="x", memory_mib=reported_mib)).capacity
    assert int(capacity[keys.MEMORY_MIB]) >= sold_gib * 1024


def test_the_annotation_is_the_inventory() -> None:
    """The scheduler reads back what was published."""
    parsed = wire.parse(node(H100, SICK).annotations[keys.INVENTORY])
    assert parsed.cards == (H100, SICK)


def test_a_fresh_node_gets_everything_and_a_second_look_nothing() -> None:
    """Applying the patches makes the difference empty."""
    wanted = node(H100, L4)
    patches = inventory_node.diff(inventory_node.NodeFields({}, {}, {}), wanted)
    assert patches.node == {
        "metadata": {"labels": dict(wanted.labels), "annotations": dict(wanted.annotations)}
    }
    assert patches.status == {"status": {"capacity": dict(wanted.capacity)}}
    assert inventory_node.diff(wanted, wanted) == inventory_node.NodePatches(None, None)


def test_amounts_are_compared_as_the_api_server_writes_them() -> None:
    """The server turns 2000 into 2k; that is no difference, and 3k is one."""
    wanted = node(H100, Card(uuid="GPU-4", index=1, model="x", memory_mib=4096))
    same = {keys.CORE_MILLI: "2k", keys.MEMORY_MIB: "86016000m"}
    seen = inventory_node.NodeFields(wanted.labels, wanted.annotations, same)
    assert inventory_node.diff(seen, wanted).status is None
    reset = {keys.CORE_MILLI: "3k", keys.MEMORY_MIB: "0"}
    seen = inventory_node.NodeFields(wanted.labels, wanted.annotations, reset)
    assert inventory_node.diff(seen, wanted).status == {
        "status": {"capacity": {keys.CORE_MILLI: "2000", keys.MEMORY_MIB: "86016"}}
    }


def test_labels_of_cards_that_are_gone_are_removed_and_others_left_alone() -> None:
    """A node without cards loses its model label; other people's labels are not named."""
    seen = inventory_node.NodeFields(
        {keys.LABEL_MODEL: "NVIDIA-L4", keys.LABEL_COUNT: "1", "example.com/zone": "a"}, {}, {}
    )
    patch = inventory_node.diff(seen, node()).node
    assert patch is not None
    metadata = patch["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["labels"] == {keys.LABEL_MODEL: None, keys.LABEL_COUNT: "0"}


def test_a_strange_model_name_is_a_valid_label() -> None:
    """Label values have 63 characters of a small alphabet, letters or digits at the ends."""
    strange = Card(
        uuid="GPU-1", index=0, model="(Grafik/Karte) " + "ü" * 5 + "x" * 90, memory_mib=1
    )
    label = node(strange).labels[keys.LABEL_MODEL]
    assert label.isascii()
    assert len(label) <= 63
    assert label[0].isalnum()
    assert label[-1].isalnum()
