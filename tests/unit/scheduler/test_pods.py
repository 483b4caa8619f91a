"""What is kept of pods and nodes: the watch holds one object for each of the cluster's."""

import msgspec

from gpu_fraction.domain import keys
from scheduler.pods import Node, Pod
from tests.builders import pods
from tests.builders.clusters import HALF


def test_a_pod_without_gpus_sheds_everything_but_its_names() -> None:
    """There may be a hundred thousand of them."""
    whole = pods.manifest("plain", cpu="1")
    whole["metadata"]["annotations"] = {"note": "x" * 1000}
    pod = msgspec.convert(whole, Pod)
    assert not pod.holds_gpu
    assert pod.metadata.name == "plain"
    assert pod.metadata.annotations is None
    assert pod.spec.containers is None


def test_a_pod_with_gpus_keeps_its_resources_and_our_annotations() -> None:
    """Other people's annotations, such as kubectl's copy of the manifest, go."""
    whole = pods.manifest("gpu", HALF)
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


def test_a_node_keeps_its_inventory_alone() -> None:
    """Nodes carry many annotations of others."""
    annotations = {keys.INVENTORY: "{}", "volumes.kubernetes.io/attach": "true"}
    node = msgspec.convert({"metadata": {"name": "n", "annotations": annotations}}, Node)
    assert node.metadata.annotations == {keys.INVENTORY: "{}"}
    assert node.inventory() == "{}"
    assert msgspec.convert({"metadata": {"name": "n"}}, Node).inventory() is None
