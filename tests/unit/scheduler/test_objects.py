"""What is kept of pods and nodes: the watch holds one object for each of the cluster's."""

import msgspec

from gpu_fraction.domain import keys
from gpu_fraction.scheduler.objects import Node, Pod, read_cards
from tests.builders import pods
from tests.builders.clusters import HALF, node_cards


def test_a_pod_without_gpus_sheds_everything_but_its_names() -> None:
    """There may be a hundred thousand of them."""
    whole = pods.asking_manifest("plain", cpu="1")
    whole["metadata"]["annotations"] = {"note": "x" * 1000}
    pod = msgspec.convert(whole, Pod)
    assert not pod.holds_gpu
    assert pod.metadata.name == "plain"
    assert pod.metadata.annotations is None
    assert pod.spec.containers is None


def test_a_pod_with_gpus_keeps_its_resources_and_our_annotations() -> None:
    """Other people's annotations, such as kubectl's copy of the manifest, go."""
    whole = pods.asking_manifest("gpu", HALF)
    whole["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    pod = msgspec.convert(whole, Pod)
    assert pod.holds_gpu
    assert set(pod.annotations()) == {keys.REQUEST}


def test_nulls_are_as_good_as_nothing() -> None:
    """Go writes empty lists and maps as null."""
    pod = msgspec.json.decode(
        b'{"metadata":{"name":"x","annotations":null},"spec":{"containers":'
        b'[{"name":"c","resources":{"limits":null,"requests":null},"ports":null}],'
        b'"initContainers":null,"priority":null,"affinity":null},"status":{"phase":null}}',
        type=Pod,
    )
    assert not pod.holds_gpu


def test_a_node_keeps_its_cards_alone() -> None:
    """Nodes carry many annotations of others, and the inventory's text is not needed twice."""
    text = pods.inventory_of(node_cards("n", 2))
    annotations = {keys.INVENTORY: text, "volumes.kubernetes.io/attach": "true"}
    node = msgspec.convert({"metadata": {"name": "n", "annotations": annotations}}, Node)
    assert node.metadata.annotations is None
    assert [card.uuid for card in node.cards] == ["GPU-n-0", "GPU-n-1"]
    assert node.problem == ""


def test_a_node_without_cards_says_why() -> None:
    """No daemon, an unreadable inventory or an empty one."""
    bare = msgspec.convert({"metadata": {"name": "n"}}, Node)
    assert bare.problem == "no GPU inventory (is the node daemon running?)"
    assert read_cards("{")[1].startswith(f"{keys.INVENTORY} is unreadable: ")
    assert read_cards(pods.inventory_of([])) == ((), "no GPU in the node's inventory")
