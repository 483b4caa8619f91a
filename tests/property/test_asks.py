"""Extender, quota and node daemon read the same from every pod."""

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gpu_fraction.domain import assignment, keys, placement
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.asks import Ask
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.backends import BackendConfig, demand
from gpu_fraction.domain.backends.native import Native
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.node_daemon.cluster.pod_feed import WirePod, read
from gpu_fraction.node_daemon.slices.shares import asked, choose, verify
from gpu_fraction.node_daemon.state.errors import Reason, Refusal
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.pod_info import PodInfo, info_of
from tests.builders.pods import Raw, container, pod, typed
from tests.builders.strategies import asking_pods
from tests.property.test_admission import applied

CARD_MIB = 81920
LESS_MIB = 81559
"""What NVML says of a card of 80 GiB."""
NODE = Inventory(
    cards=(
        *(Card(uuid=f"GPU-{at}", index=at, model="A", memory_mib=CARD_MIB) for at in range(4)),
        *(Card(uuid=f"GPU-{at}", index=at, model="A", memory_mib=LESS_MIB) for at in range(4, 8)),
        *(
            Card(
                uuid=f"MIG-{at}",
                index=8,
                model="A MIG 1g.10gb",
                memory_mib=9984,
                core_milli=142,
                slots=1,
                parent="GPU-8",
                parent_memory_mib=LESS_MIB,
            )
            for at in range(2)
        ),
    )
)
TWO_CARDS = {keys.SLOT: "1", keys.CORE_MILLI: "2k", keys.MEMORY_MIB: "20000"}
HALF_A_CARD = {keys.SLOT: "1", keys.CORE_MILLI: "500"}


LARGEST = Inventory(
    cards=tuple(
        Card(uuid=f"GPU-{at}", index=at, model="A", memory_mib=Bounds().max_memory_mib)
        for at in range(Bounds().max_cards)
    )
)
"""The largest node that admission knows of."""
LARGE: dict[str, list[str]] = {
    keys.SLOT: ["1"],
    keys.CORE_MILLI: ["4k", "15999", "16k", "16001", "17k", "65536k", "65537k"],
    keys.MEMORY_MIB: ["16Mi", "17Mi", "1048576", "1048577", "9E"],
}


@st.composite
def bare_containers(draw: st.DrawFn, name: str, *, large: bool = False) -> Raw:
    """A container with some of our resources, those that cannot be given among them."""
    choices: dict[str, list[str | None]] = {
        keys.SLOT: ["1", "1", "1", "1", None, "0", "2"],
        keys.CORE_MILLI: [None, "0", "1", "250", "500", "1k", "1500", "2k", "2500", "3k", "9E"],
        keys.MEMORY_MIB: [None, "0", "1", "1000", "4096", "20k", "24Ki", "81921"],
    }
    amounts = {
        key: draw(st.sampled_from([*texts, *(LARGE[key] if large else ())]))
        for key, texts in choices.items()
    }
    return container(name, {key: text for key, text in amounts.items() if text is not None})


@st.composite
def bare_pods(draw: st.DrawFn) -> Raw:
    """Pods that name our resources themselves; large amounts in pods of one container only."""
    names = draw(st.sampled_from([("a",), ("a", "b")]))
    init = draw(st.sampled_from([[], ["side"], ["side", "setup"]])) if len(names) > 1 else []
    made = [draw(bare_containers(name, large=len(names) == 1)) for name in names]
    before = [draw(bare_containers(name)) for name in init]
    if before:
        before[0]["restartPolicy"] = "Always"
    return pod(None, *made, container("plain"), init=before)


@st.composite
def rendered_pods(draw: st.DrawFn) -> Raw:
    """Pods as the webhook leaves them, on clusters of known and of unknown cards."""
    raw = draw(asking_pods())
    known_mib = draw(st.sampled_from([None, CARD_MIB, LESS_MIB, CARD_MIB // 2]))
    sizes = CardSizes(known_mib)
    try:
        return applied(raw, admit(typed(raw), Native(BackendConfig(sizes)), Rules()).operations)
    except Refused:
        assume(False)
        raise


pods = st.one_of(bare_pods(), rendered_pods())


def by_extender(raw: Raw) -> PodInfo:
    """The pod as the extender sees it."""
    return info_of(msgspec.convert(raw, Pod))


def by_daemon(raw: Raw) -> dict[str, Ask]:
    """What the node daemon reads of the pod."""
    return asked(read(msgspec.convert(raw, WirePod)))


def assigned(raw: Raw, chosen: Assignment) -> Raw:
    """The pod once its cards are chosen."""
    metadata = raw["metadata"]
    notes = {**(metadata.get("annotations") or {}), keys.ASSIGNED: assignment.render(chosen)}
    spec = {**raw["spec"], "nodeName": "node"}  # one Binding writes both
    return {**raw, "metadata": {**metadata, "annotations": notes}, "spec": spec}


def of_asks(asks: tuple[Ask, ...]) -> Demand:
    """What containers that ask this cost before cards are chosen."""
    total = ZERO
    for ask in asks:
        memory = (ask.memory_mib or ask.most_mib or 0) * ask.cards
        follows = ask.core_milli is None
        total += Demand(
            cards=ask.cards,
            core_milli=(ask.core_milli or 0) * ask.cards,
            memory_mib=memory,
            open_memory_milli=0 if memory else (ask.memory_milli or 0) * ask.cards,
            open_core_mib=memory if follows else 0,
            open_cards=ask.cards if follows else 0,
            open_least_mib=memory // ask.cards if follows else 0,
        )
    return total


@given(pods)
@example(pod(None, container("main", TWO_CARDS)))
@example(pod(None, container("main", HALF_A_CARD)))
def test_all_read_the_same(raw: Raw) -> None:
    """Who may not be served is refused by extender and daemon with the same words."""
    info = by_extender(raw)
    if info.problem:
        with pytest.raises(Refusal) as refused:
            by_daemon(raw)
        assert refused.value.reason is Reason.CONTAINER_UNFIT
        assert str(refused.value) == info.problem
        return
    assert tuple(by_daemon(raw).values()) == info.asks
    assert demand(typed(raw)) == of_asks(info.asks)


@given(bare_pods())
@example(pod(None, container("main", TWO_CARDS)))
@example(pod(None, container("main", HALF_A_CARD)))
def test_what_names_our_resources_is_admitted_where_it_can_start(raw: Raw) -> None:
    """Admission, extender and daemon give one answer, on a node that lacks nothing."""
    try:
        admit(typed(raw), Native(), Rules())
    except Refused:
        admitted = False
    else:
        admitted = True
    info = by_extender(raw)
    placed = None
    if info.asks:
        placed = placement.choose(placement.empty(LARGEST.cards), info.asks)
    assert admitted is (not info.problem and (placed is not None or not info.asks))
    seen = read(msgspec.convert(raw, WirePod))
    if placed is not None:
        assert choose(seen, LARGEST, {}) == placed.assignment
    elif info.asks or info.problem:
        with pytest.raises(Refusal):
            choose(seen, LARGEST, {})


@given(pods)
@example(pod(None, container("main", TWO_CARDS)))
@example(pod(None, container("main", HALF_A_CARD)))
def test_what_is_chosen_is_what_is_given_and_charged(raw: Raw) -> None:
    """The daemon chooses as the extender does, accepts the choice, and the quota charges it."""
    info = by_extender(raw)
    assume(info.asks)
    cards = placement.empty(NODE.cards)
    by_scheduler = placement.choose(cards, info.asks)
    seen = read(msgspec.convert(raw, WirePod))
    if by_scheduler is None:
        with pytest.raises(Refusal) as refused:
            choose(seen, NODE, {})
        assert refused.value.reason is Reason.NO_PLACEMENT
        return
    chosen = choose(seen, NODE, {})
    assert chosen == by_scheduler.assignment
    running = assigned(raw, chosen)
    for name, ask in by_daemon(running).items():
        verify(ask, chosen[name], NODE)
    shares = [share for given_ in chosen.values() for share in given_]
    assert demand(typed(running)) == Demand(
        cards=len(shares),
        core_milli=sum(share.core_milli for share in shares),
        memory_mib=sum(share.memory_mib for share in shares),
    )
    before = demand(typed(raw)).charged(LESS_MIB, CARD_MIB)
    assert before.maximum(demand(typed(running))) == before
