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
from gpu_fraction.domain.request import Refused
from gpu_fraction.domain.sizes import CardSizes
from node_daemon.cluster.pod_feed import WirePod, read
from node_daemon.slices.shares import asked, choose, verify
from node_daemon.state.errors import Reason, Refusal
from scheduler.pods import Pod
from scheduler.views import PodView, view_of
from tests.builders.pods import Raw, container, pod, typed
from tests.builders.strategies import asking_pods
from tests.property.test_admission import applied

CARD_MIB = 81920
NODE = Inventory(
    cards=tuple(
        Card(uuid=f"GPU-{at}", index=at, model="A", memory_mib=CARD_MIB) for at in range(8)
    )
)
TWO_CARDS = {keys.SLOT: "1", keys.CORE_MILLI: "2k", keys.MEMORY_MIB: "20000"}
HALF_A_CARD = {keys.SLOT: "1", keys.CORE_MILLI: "500"}


@st.composite
def bare_containers(draw: st.DrawFn, name: str) -> Raw:
    """A container with some of our resources, those that cannot be given among them."""
    choices: dict[str, list[str | None]] = {
        keys.SLOT: ["1", "1", "1", "1", None, "0", "2"],
        keys.CORE_MILLI: [None, "0", "1", "250", "500", "1k", "1500", "2k", "2500", "3k", "9E"],
        keys.MEMORY_MIB: [None, "0", "1", "1000", "4096", "20k", "24Ki", "81921"],
    }
    amounts = {key: draw(st.sampled_from(texts)) for key, texts in choices.items()}
    return container(name, {key: text for key, text in amounts.items() if text is not None})


@st.composite
def bare_pods(draw: st.DrawFn) -> Raw:
    """Pods that name our resources themselves."""
    names = draw(st.sampled_from([("a",), ("a", "b")]))
    made = [draw(bare_containers(name)) for name in names]
    sidecar = {**draw(bare_containers("side")), "restartPolicy": "Always"}
    return pod(None, *made, container("plain"), init=[sidecar] if draw(st.booleans()) else [])


@st.composite
def rendered_pods(draw: st.DrawFn) -> Raw:
    """Pods as the webhook leaves them, on clusters of known and of unknown cards."""
    raw = draw(asking_pods())
    sizes = draw(st.sampled_from([CardSizes(), CardSizes(CARD_MIB)]))
    try:
        return applied(raw, admit(typed(raw), Native(BackendConfig(sizes)), Rules()).operations)
    except Refused:
        assume(False)
        raise


pods = st.one_of(bare_pods(), rendered_pods())


def by_extender(raw: Raw) -> PodView:
    """The pod as the extender sees it."""
    return view_of(msgspec.convert(raw, Pod))


def by_daemon(raw: Raw) -> dict[str, Ask]:
    """What the node daemon reads of the pod."""
    return asked(read(msgspec.convert(raw, WirePod)))


def assigned(raw: Raw, chosen: Assignment) -> Raw:
    """The pod once its cards are chosen."""
    metadata = raw["metadata"]
    notes = {**(metadata.get("annotations") or {}), keys.ASSIGNED: assignment.render(chosen)}
    return {**raw, "metadata": {**metadata, "annotations": notes}}


def of_asks(asks: tuple[Ask, ...]) -> Demand:
    """What containers that ask this cost before cards are chosen."""
    total = ZERO
    for ask in asks:
        memory = (ask.memory_mib or 0) * ask.cards
        follows = ask.core_milli is None
        total += Demand(
            cards=ask.cards,
            core_milli=(ask.core_milli or 0) * ask.cards,
            memory_mib=memory,
            open_memory_milli=(ask.memory_milli or 0) * ask.cards,
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
    view = by_extender(raw)
    if view.problem:
        with pytest.raises(Refusal) as refused:
            by_daemon(raw)
        assert refused.value.reason is Reason.CONTAINER_UNFIT
        assert str(refused.value) == view.problem
        return
    assert tuple(by_daemon(raw).values()) == view.asks
    assert demand(typed(raw)) == of_asks(view.asks)


@given(pods)
@example(pod(None, container("main", TWO_CARDS)))
@example(pod(None, container("main", HALF_A_CARD)))
def test_what_is_chosen_is_what_is_given_and_charged(raw: Raw) -> None:
    """The daemon chooses as the extender does, accepts the choice, and the quota charges it."""
    view = by_extender(raw)
    assume(view.asks)
    cards = placement.empty(NODE.cards)
    by_scheduler = placement.choose(cards, view.asks)
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
    before = demand(typed(raw)).charged(CARD_MIB, CARD_MIB)
    assert before.maximum(demand(typed(running))) == before
