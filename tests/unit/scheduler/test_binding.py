"""Bindings of uncertain fate, step by step."""

import asyncio
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.domain import assignment
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.placement import empty
from gpu_fraction.kube import errors
from gpu_fraction.scheduler.binding import DOUBT_S, Binder, binding
from gpu_fraction.scheduler.claims import Claim, Stage
from gpu_fraction.scheduler.extender import Extender
from gpu_fraction.scheduler.metrics import ExtenderMetrics
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.wire import BindingArgs
from tests.builders import pods
from tests.builders.clusters import HALF, WHOLE, node_cards, state_of

X = BindingArgs("x", "team", "uid-x", "a")


@dataclass
class Script:
    """An API server that answers each Binding with the next of its answers.

    Attributes:
        answers: None to accept, an error to refuse or to lose the answer.
        pods: What a read finds, by name.
        posted: The cards of each Binding.
        reached: Set when a Binding has come.
        go: What a Binding waits for, where it is to hang.
    """

    answers: list[errors.KubeError | None] = field(default_factory=list)
    pods: dict[str, Pod] = field(default_factory=dict)
    posted: list[Assignment] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event | None = None
    unreadable: bool = False

    async def bind(self, args: BindingArgs, cards: Assignment) -> None:
        """The next answer."""
        assert args.node
        self.posted.append(cards)
        self.reached.set()
        if self.go is not None:
            await self.go.wait()
        error = self.answers.pop(0)
        if error is not None:
            raise error

    async def find(self, namespace: str, name: str) -> Pod | None:
        """The pod as stored."""
        assert namespace == "team"
        if self.unreadable:
            raise errors.TransportError("down", sent=False)
        return self.pods.get(name)


LOST = errors.TransportError("reset", sent=True)
BUSY = errors.TooManyRequestsError("busy", status=429)
UNSENT = errors.TransportError("refused", sent=False)
FORBIDDEN = errors.ForbiddenError("no", status=403)
CONFLICT = errors.ConflictError("already assigned", status=409)


@dataclass
class World:
    """A state of one node with two cards, a pending pod and a binder."""

    state: ClusterState
    api: Script
    binder: Binder
    now_s: float = 0.0

    def claim(self) -> Claim | None:
        """The claim of the pod on the node."""
        return self.state.claims.get("uid-x", "a")

    def free_cards(self) -> int:
        """Cards of which nothing is given away."""
        return sum(card.untouched for card in self.state.cards("a"))


@pytest.fixture
def world() -> World:
    """Pod ``x`` asks for one of node ``a``'s two cards."""
    state = state_of({"a": node_cards("a", 2)})
    state.pod_changed(pods.scheduler_pod("x", WHOLE))
    api = Script()
    metrics = ExtenderMetrics(CollectorRegistry())
    made: World
    binder = Binder(state, Extender(state), api, metrics, lambda: made.now_s)
    made = World(state, api, binder)
    return made


def bound(name: str = "x", node: str = "a", card: int = 0, uid: str = "") -> Pod:
    """The pod, bound to a node with one whole card."""
    share = assignment.CardShare(f"GPU-{node}-{card}", 1000, 16384)
    text = assignment.render({"main": (share,)})
    return pods.scheduler_pod(name, WHOLE, uid=uid, node=node, assigned=text)


async def test_a_refusal_after_a_lost_answer_does_not_free_the_cards(world: World) -> None:
    """The first Binding may still take effect, whatever became of the second."""
    world.api.answers = [LOST, FORBIDDEN]
    assert await world.binder.bind(X)
    assert await world.binder.bind(X)
    assert world.claim() is not None
    assert world.free_cards() == 1
    assert world.api.posted[0] == world.api.posted[1]


async def test_a_plain_refusal_frees_the_cards(world: World) -> None:
    """Nothing can come of it any more."""
    world.api.answers = [FORBIDDEN]
    assert await world.binder.bind(X) == "binding to a: no"
    assert world.free_cards() == 2


@pytest.mark.parametrize("error", [BUSY, UNSENT])
async def test_a_binding_the_server_never_began_frees_the_cards(
    world: World, error: errors.KubeError
) -> None:
    """Nothing can come of it; but an earlier one of unknown fate still may take effect."""
    world.api.answers = [error, LOST, error]
    assert await world.binder.bind(X)
    assert world.claim() is None
    assert await world.binder.bind(X)
    assert await world.binder.bind(X)
    assert world.claim() is not None


async def test_doubt_ends_with_a_read_and_not_before_the_server_must_have_finished(
    world: World,
) -> None:
    """The API server may take 34 s over a request whose client has gone."""
    world.api.answers = [LOST]
    world.api.pods["x"] = pods.scheduler_pod("x", WHOLE)
    await world.binder.bind(X)
    world.now_s = 34.0
    await world.binder.recheck()
    assert world.claim() is not None
    world.now_s = DOUBT_S
    world.api.unreadable = True
    await world.binder.recheck()
    assert world.claim() is not None
    world.api.unreadable = False
    await world.binder.recheck()
    assert world.claim() is None
    assert world.free_cards() == 2


async def test_a_binding_that_took_effect_is_kept_until_the_watch_shows_it(world: World) -> None:
    """Also with the cards that another writer chose."""
    world.api.answers = [LOST]
    world.api.pods["x"] = bound(card=1)
    await world.binder.bind(X)
    world.now_s = DOUBT_S
    await world.binder.recheck()
    claim = world.claim()
    assert claim is not None
    assert (claim.stage, claim.assignment["main"][0].uuid) == (Stage.BOUND, "GPU-a-1")
    assert world.state.cards("a")[0].untouched
    world.state.pod_changed(bound(card=1))
    assert world.state.claims.unseen() == []


async def test_a_bound_pod_that_ended_unseen_is_found_out(world: World) -> None:
    """The watch missed its whole life, so that no event will ever tell."""
    world.api.answers = [None]
    assert await world.binder.bind(X) == ""
    world.now_s = DOUBT_S
    await world.binder.recheck()
    assert world.claim() is None
    assert world.free_cards() == 2


@pytest.mark.parametrize("node", ["a", "elsewhere"])
async def test_a_successor_of_the_same_name_does_not_keep_the_cards(
    world: World, node: str
) -> None:
    """A StatefulSet's pods have names of their own; uids tell them apart."""
    world.api.answers = [None]
    world.api.pods["x"] = bound(node=node, uid="uid-successor")
    await world.binder.bind(X)
    world.now_s = DOUBT_S
    await world.binder.recheck()
    assert world.claim() is None


async def test_a_conflict_is_looked_into(world: World) -> None:
    """Bound there already is success, bound elsewhere frees the cards, unreadable keeps them."""
    world.api.answers = [CONFLICT]
    world.api.pods["x"] = bound()
    assert await world.binder.bind(X) == ""
    assert world.free_cards() == 1
    world.state.pod_removed("uid-x")

    world.state.pod_changed(pods.scheduler_pod("x", WHOLE))
    world.api.answers = [LOST, CONFLICT]
    world.api.pods["x"] = bound(node="b")
    await world.binder.bind(X)
    assert await world.binder.bind(X) == "binding to a: already assigned"
    assert world.free_cards() == 2

    world.api.answers = [CONFLICT]
    world.api.unreadable = True
    assert await world.binder.bind(X)
    claim = world.claim()
    assert claim is not None
    assert claim.in_doubt


@pytest.mark.parametrize("error", [FORBIDDEN, CONFLICT, LOST])
@pytest.mark.parametrize("seen", [True, False])
async def test_a_repeated_bind_leaves_a_bound_pod_its_cards(
    world: World, error: errors.KubeError, *, seen: bool
) -> None:
    """The scheduler missed our answer; a namespace that ends meanwhile may refuse a second one."""
    world.api.answers = [None, error]
    world.api.pods["x"] = bound()
    assert await world.binder.bind(X) == ""
    if seen:
        world.state.pod_changed(bound())
    before = world.claim()
    assert await world.binder.bind(X) == ""
    assert world.claim() == before
    assert world.free_cards() == 1
    assert len(world.api.posted) == 1


@pytest.mark.parametrize("known", ["watched", "accepted", "stored"])
async def test_a_pod_bound_elsewhere_is_refused_and_claims_nothing_here(
    world: World, known: str
) -> None:
    """A pod is bound once, so a Binding to a second node has nothing to gain."""
    world.state.node_changed("b", empty(node_cards("b", 2)))
    uid = "uid-x"
    world.api.pods["x"] = bound()
    if known == "watched":
        world.state.pod_changed(bound())
    elif known == "accepted":
        world.api.answers = [None]
        await world.binder.bind(X)
    else:
        world.state.pod_removed(uid)
    why = await world.binder.bind(BindingArgs("x", "team", uid, "b"))
    assert why == "pod x is bound to a already"
    assert world.state.claims.get(uid, "b") is None
    assert all(card.untouched for card in world.state.cards("b"))


async def test_a_conflict_does_not_undo_what_the_watch_showed_meanwhile(world: World) -> None:
    """A claim that is seen stays seen: nothing would ever show it again."""
    world.api.answers = [CONFLICT]
    world.api.pods["x"] = bound()
    world.api.go = asyncio.Event()
    call = asyncio.create_task(world.binder.bind(X), name="call")
    await world.api.reached.wait()
    world.state.pod_changed(bound())
    world.api.go.set()
    assert await call == ""
    claim = world.claim()
    assert claim is not None
    assert claim.stage is Stage.SEEN
    assert world.state.claims.unseen() == []


async def test_a_second_call_for_a_pod_on_its_way_is_turned_away(world: World) -> None:
    """It would settle the claim of a Binding that is still travelling."""
    world.api.answers = [None]
    world.api.go = asyncio.Event()
    first = asyncio.create_task(world.binder.bind(X), name="first")
    await world.api.reached.wait()
    assert await world.binder.bind(X) == "pod x is being bound by an earlier call"
    world.api.go.set()
    assert await first == ""
    assert len(world.api.posted) == 1


async def test_an_interrupted_binding_is_in_doubt(world: World) -> None:
    """The caller hung up; the Binding was on its way."""
    world.api.go = asyncio.Event()
    call = asyncio.create_task(world.binder.bind(X), name="call")
    await world.api.reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    claim = world.claim()
    assert claim is not None
    assert claim.in_doubt


async def test_a_pod_the_watch_does_not_show_yet_is_read(world: World) -> None:
    """After a restart of the scheduler the first call may be a bind."""
    world.api.answers = [None]
    world.api.pods["new"] = pods.scheduler_pod("new", HALF)
    assert await world.binder.bind(BindingArgs("new", "team", "uid-new", "a")) == ""
    assert world.state.cards("a")[0].free_core_milli == 500
    gone = BindingArgs("gone", "team", "uid-gone", "a")
    assert await world.binder.bind(gone) == "pod gone is gone"
    world.api.unreadable = True
    assert await world.binder.bind(gone) == "reading the pod: down"


def test_the_binding_names_pod_cards_and_node_in_one_object() -> None:
    """Without cards there is no annotation."""
    cards = {"main": (assignment.CardShare("GPU-1", 500, 10),)}
    assert binding(X, cards) == {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "namespace": "team",
            "name": "x",
            "uid": "uid-x",
            "annotations": {"gpu-fraction.dev/assigned": assignment.render(cards)},
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": "a"},
    }
    assert binding(X, {})["metadata"]["annotations"] == {}
