"""A share from the annotation to the cards: webhook, extender, node daemon and quota together."""

from collections.abc import Mapping, Sequence

import msgspec
import pytest

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.assignment import Assignment, CardShare
from gpu_fraction.domain.backends import BackendConfig, demand
from gpu_fraction.domain.backends.native import Native
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.node_daemon.cluster import pod_feed
from gpu_fraction.node_daemon.cluster.inventory_node import desired
from gpu_fraction.node_daemon.slices.shares import asked, choose, verify
from gpu_fraction.node_daemon.state.errors import Refusal
from gpu_fraction.node_daemon.state.ledger import Usage
from gpu_fraction.scheduler.extender import Extender
from gpu_fraction.scheduler.objects import Pod
from tests.builders.clusters import state_of
from tests.builders.pods import Raw, pod, typed
from tests.property.test_admission import applied

H100 = Card(uuid="GPU-0", index=0, model="NVIDIA H100 80GB HBM3", memory_mib=81559)
H200_MIB = 143771
H200 = Card(uuid="GPU-w", index=1, model="NVIDIA H200 NVL", memory_mib=H200_MIB)


def instance(number: int, parent_memory_mib: int = H200_MIB) -> Card:
    """A seventh of an H200."""
    return Card(
        uuid=f"MIG-{number}",
        index=0,
        model="NVIDIA H200 NVL MIG 1g.18gb",
        memory_mib=16384,
        core_milli=142,
        slots=1,
        parent="GPU-p",
        parent_memory_mib=parent_memory_mib,
        isolation="mig",
        enforces_memory=True,
        enforces_compute=True,
    )


def mutated(annotations: Mapping[str, str], configured_mib: int | None) -> Raw:
    """The pod as the webhook leaves it, in a cluster whose cards are said to have that size."""
    raw = pod(annotations)
    backend = Native(BackendConfig(CardSizes(configured_mib)))
    return applied(raw, admit(typed(raw), backend, Rules()).operations)


class Node:
    """One node, whose cards the extender hands out and whose daemon checks that."""

    def __init__(self, *cards: Card) -> None:
        self.inventory = Inventory(cards=cards)
        self.state = state_of({"n": cards})
        self.used: dict[str, Usage] = {}

    def refusal(self, raw: Raw) -> str:
        """Why the extender leaves the node out."""
        info = self.state.info(msgspec.convert(raw, Pod))
        result = Extender(self.state).filter(info, ["n"])
        return {**result.failed_nodes, **result.failed_and_unresolvable_nodes}.get("n", "")

    def place(self, raw: Raw, uid: str) -> Sequence[CardShare]:
        """The cards of container main, as both choose them."""
        assert self.refusal(raw) == ""
        raw = {**raw, "metadata": {**raw["metadata"], "uid": uid}}
        info = self.state.info(msgspec.convert(raw, Pod))
        chosen = Extender(self.state).cards_for(info, "n")
        seen = pod_feed.read(msgspec.convert(raw, pod_feed.WirePod))
        assert choose(seen, self.inventory, self.used) == chosen
        verify(asked(seen)["main"], chosen["main"], self.inventory)
        self.state.pod_changed(msgspec.convert(bound(raw, chosen), Pod))
        for share in chosen["main"]:
            self.used[share.uuid] = self.used.get(share.uuid, Usage()).plus(share)
        return chosen["main"]


def bound(raw: Raw, chosen: Assignment) -> Raw:
    """The pod on the node, with its cards."""
    notes = {**raw["metadata"]["annotations"], keys.ASSIGNED: assignment.render(chosen)}
    return {
        **raw,
        "metadata": {**raw["metadata"], "annotations": notes},
        "spec": {**raw["spec"], "nodeName": "n"},
    }


@pytest.mark.parametrize("configured_mib", [None, 81920])
@pytest.mark.parametrize(
    ("share", "each_mib"), [("1", 81559), ("0.5", 40779), ("0.333", 27159), ("0.125", 10194)]
)
def test_shares_that_add_up_to_a_gpu_fit_on_one(
    configured_mib: int | None, share: str, each_mib: int
) -> None:
    """NVML says 81559 MiB of a card that is sold, and configured, as 80 GiB."""
    node = Node(H100)
    raw = mutated({"gpu-fraction": share}, configured_mib)
    count = int(1 / float(share))
    for number in range(count):
        (given,) = node.place(raw, f"u{number}")
        assert given.memory_mib == each_mib
    assert node.refusal(raw)
    capacity = int(desired(node.inventory).capacity[keys.MEMORY_MIB])
    limits = raw["spec"]["containers"][0]["resources"]["limits"]
    assert count * int(limits.get(keys.MEMORY_MIB, 0)) <= capacity


def test_a_configured_size_is_the_most_that_a_share_comes_to() -> None:
    """Scheduler and quota have counted by it, so a larger card gives no more."""
    raw = mutated({"gpu-fraction": "0.5"}, 81920)
    (given,) = Node(H200).place(raw, "u")
    assert given.memory_mib == 40960


def test_a_share_is_charged_as_configured_until_its_card_is_known() -> None:
    """Choosing a card can only lower the charge."""
    raw = mutated({"gpu-fraction": "0.5"}, 81920)
    assert demand(typed(raw)).memory_mib == 40960
    chosen = {"main": Node(H100).place(raw, "u")}
    assert demand(typed(bound(raw, chosen))).memory_mib == 40779  # type: ignore[arg-type]


@pytest.mark.parametrize("given_mib", [40780, 40960])
def test_the_daemon_takes_no_larger_amount_for_a_share(given_mib: int) -> None:
    """At most half of its card, whatever was counted at admission."""
    raw = mutated({"gpu-fraction": "0.5"}, 81920)
    ask = asked(pod_feed.read(msgspec.convert(raw, pod_feed.WirePod)))["main"]
    with pytest.raises(Refusal, match=f"40779 MiB of card GPU-0, .* gives {given_mib} MiB"):
        verify(ask, [CardShare("GPU-0", 500, given_mib)], Inventory(cards=(H100,)))


def test_a_share_that_was_assigned_on_a_smaller_size_of_the_card_still_starts() -> None:
    """Another driver or reserve can change the size; the annotation cannot change."""
    raw = mutated({"gpu-fraction": "0.5"}, 81920)
    ask = asked(pod_feed.read(msgspec.convert(raw, pod_feed.WirePod)))["main"]
    verify(ask, [CardShare("GPU-0", 500, 40779 - 8)], Inventory(cards=(H100,)))


@pytest.mark.parametrize("configured_mib", [None, 144384])
def test_a_share_is_one_amount_on_a_mig_instance_and_on_a_whole_card(
    configured_mib: int | None,
) -> None:
    """It is a share of the physical card on both."""
    node = Node(instance(0), instance(1), H200)
    raw = mutated({"gpu-fraction": "0.1"}, configured_mib)
    given = [node.place(raw, f"u{number}")[0] for number in range(3)]
    assert {share.uuid for share in given} == {"MIG-0", "MIG-1", "GPU-w"}
    assert {(share.core_milli, share.memory_mib) for share in given} == {(100, 14377)}


def test_compute_that_follows_memory_is_one_amount_too() -> None:
    """A part of the physical card's, and at most what the instance has."""
    raw = mutated({"gpu-memory": "10000Mi"}, None)
    small = Node(instance(0)).place(raw, "u")[0]
    assert (small.core_milli, small.memory_mib) == (69, 10000)
    assert Node(H200).place(raw, "u")[0].core_milli == 69
    half_memory = msgspec.structs.replace(instance(0), memory_mib=72000)
    raw = mutated({"gpu-memory": "70Gi"}, None)
    assert Node(half_memory).place(raw, "u")[0].core_milli == 142


@pytest.mark.parametrize("share", ["0.12", "0.143", "1"])
def test_a_share_larger_than_an_instance_does_not_fit_on_it(share: str) -> None:
    """By memory or by compute."""
    assert "needed" in Node(instance(0)).refusal(mutated({"gpu-fraction": share}, None))


def test_a_share_of_an_unknown_card_is_not_guessed() -> None:
    """An instance whose inventory does not tell its card's memory serves amounts only."""
    node = Node(instance(0, parent_memory_mib=0))
    why = "n: card 0: is part of a GPU of unknown memory, a share of it is needed"
    assert node.refusal(mutated({"gpu-fraction": "0.1"}, None)) == why
    assert node.refusal(mutated({"gpu-fraction": "0.1"}, H200_MIB)) == why
    seen = pod_feed.read(msgspec.convert(mutated({"gpu-fraction": "0.1"}, None), pod_feed.WirePod))
    with pytest.raises(Refusal, match="of unknown memory"):
        choose(seen, node.inventory, {})
    assert node.place(mutated({"gpu-memory": "8Gi"}, None), "u")[0].memory_mib == 8192
