"""Pods that a backup brings back, with the cards of their earlier life in ``assigned``.

The webhook refuses such a pod at creation; these were restored while it was not there.
"""

from gpu_fraction.domain import assignment, keys
from gpu_fraction.sandbox.apiserver import ApiServer
from gpu_fraction.scheduler.extender import Extender
from tests.builders import pods
from tests.builders.clusters import HALF, WHOLE, holder, node_cards, state_of
from tests.unit.scheduler.conftest import Extend
from tests.unit.scheduler.test_app import add_pod, bind_args, stored

GONE = assignment.render({"main": (assignment.CardShare("GPU-gone-0", 500, 8192),)})


async def test_a_pod_without_a_node_is_given_cards_anew(api: ApiServer, extend: Extend) -> None:
    """Its stale cards take nothing, and the Binding replaces them."""
    args = add_pod(api, "x", HALF, assigned=GONE)
    async with extend() as extender:
        await extender.service.synced()
        _, answer = await extender.call("filter", args)
        assert answer["NodeNames"] == ["a", "b"]
        assert (await extender.call("bind", bind_args(args["Pod"], "a")))[1] == {"Error": ""}
    annotations = stored(api, "x")["metadata"]["annotations"]
    assert assignment.parse(annotations[keys.ASSIGNED]) == {
        "main": (assignment.CardShare("GPU-a-0", 500, 8192),)
    }


def test_cards_that_are_gone_take_nothing_of_the_others() -> None:
    """The node daemon starts no such pod; the node's own cards stay open for others."""
    state = state_of({"a": node_cards("a", 1)})
    state.pod_changed(pods.scheduler_pod("old", HALF, node="a", assigned=GONE))
    assert Extender(state).filter(state.info(pods.scheduler_pod("x", WHOLE)), ["a"]).node_names


def test_the_cards_of_two_pods_at_once_are_open_to_no_third() -> None:
    """A pod from before the backup and its successor may both name a card; both count."""
    state = state_of({"a": node_cards("a", 1)})
    for name in ("before", "after"):
        state.pod_changed(holder(name, "a", {0: (600, 8192)}))
    asking = state.info(pods.scheduler_pod("x", HALF))
    assert Extender(state).filter(asking, ["a"]).node_names == []
    state.pod_removed("uid-before")
    assert Extender(state).filter(asking, ["a"]).node_names == []
    state.pod_removed("uid-after")
    assert Extender(state).filter(asking, ["a"]).node_names == ["a"]
