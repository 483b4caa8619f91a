"""The admission policy on a real API server, held against the webhook's own verdicts.

Each lock is installed alone, and each meets the same attempts.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.assignment import CardShare, render
from tests.cluster.harness.admission import installed
from tests.cluster.harness.api_client import StatusError
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.policy import ACCOUNTS, DENIED, Users, pod, policy_installed

RELEASED = keys.PREFIX + "released"
SYSTEM = (*keys.SYSTEM_KEYS, RELEASED)
FOREIGN = "example.com/note"
OTHERS = (keys.FRACTION, FOREIGN)
UPDATES = {"update": "", "status": "/status", "debug": "/ephemeralcontainers", "resize": "/resize"}
CREATES = ("create", "bind", "bind by the older road")
NO_ROAD = ("debug", "resize")
"""The API server itself drops what these say of annotations."""

Outcome = Literal["refused", "written", "dropped"]


class Attempt(NamedTuple):
    """One write of one annotation by one account."""

    road: str
    key: str
    change: str
    account: str


Outcomes = dict[Attempt, Outcome]
ATTEMPTS = [
    Attempt(*words)
    for words in (
        *itertools.product(CREATES, (*SYSTEM, *OTHERS), ["add"], ACCOUNTS),
        *itertools.product(UPDATES, (*SYSTEM, *OTHERS), ["add", "change", "remove"], ACCOUNTS),
    )
]
VALUES = {
    keys.FRACTION: "0.25",
    keys.ASSIGNED: render({"main": (CardShare(uuid="GPU-1", core_milli=250, memory_mib=20480),)}),
}


async def outcome(words: str, users: Users, namespace: str, attempt: Attempt) -> Outcome:
    """What comes of an attempt, on a dry run. Whoever refuses says so in these words."""
    road, key, change, account = attempt
    client = await users.named(ACCOUNTS[account])
    base = f"/api/v1/namespaces/{namespace}"
    value = None if change == "remove" else VALUES.get(key, "other")
    try:
        if road == "create":
            # A pod of ours, so that the webhook looks at it.
            made = pod("new", {keys.FRACTION: "0.25", key: str(value)}, schedulerName="")
            got = await client.create(f"{base}/pods", made, dryRun="All")
        elif road in CREATES:
            binding: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": "bare", "annotations": {key: value}},
                "target": {"kind": "Node", "name": "nowhere"},
            }
            where = f"{base}/{'pods/bare/binding' if road == 'bind' else 'bindings'}"
            await client.create(where, binding, dryRun="All")
            return "written"
        else:
            where = f"{base}/pods/{'bare' if change == 'add' else 'full'}{UPDATES[road]}"
            body = {"metadata": {"annotations": {key: value}}}
            got = await client.patch(where, body, dryRun="All")
    except StatusError as refused:
        assert words in refused.message, (attempt, refused.message)
        return "refused"
    held = got["metadata"].get("annotations", {}).get(key)
    return "written" if held == value else "dropped"


async def all_outcomes(words: str, plane: ControlPlane, namespace: str) -> Outcomes:
    """What comes of each attempt."""
    async with Users(plane) as users:
        return {a: await outcome(words, users, namespace, a) for a in ATTEMPTS}


@pytest.fixture(scope="module")
def outcomes(own_control_plane: ControlPlane) -> tuple[Outcomes, Outcomes]:
    """What the policy alone and the webhook alone make of all attempts."""
    plane = own_control_plane
    with plane.namespace() as namespace:
        full = pod("full", dict.fromkeys((*SYSTEM, *OTHERS), "0.5"))
        plane.kubectl.within(namespace).apply(pod("bare"), full)
        with policy_installed(plane):
            policy = asyncio.run(all_outcomes(DENIED, plane, namespace))
        with installed(plane):
            webhook = asyncio.run(all_outcomes('gpu-fraction.dev" denied', plane, namespace))
    return policy, webhook


def unlike(both: tuple[Outcomes, Outcomes], where: Callable[[Attempt], bool]) -> set[Attempt]:
    """The attempts that the two locks answer differently."""
    policy, webhook = both
    return {a for a in ATTEMPTS if where(a) and policy[a] != webhook[a]}


def test_both_locks_answer_alike(outcomes: tuple[Outcomes, Outcomes]) -> None:
    """System annotations: on every road, by every account, but for what is stated here."""
    stated = {
        a
        for a in ATTEMPTS
        # The webhook writes a request into its author's call. It can render the request again and
        # compare; the policy cannot.
        if (a.road == "create" and a.key == keys.REQUEST)
        # Who takes pods out of the queue (DESIGN section 2). The webhook knows no queue yet.
        or (a.key == RELEASED and a.account == "controller" and a.road not in NO_ROAD)
    }
    assert unlike(outcomes, lambda a: a.key in SYSTEM) == stated


def test_the_policy_lets_each_key_be_written_by_its_writers(
    outcomes: tuple[Outcomes, Outcomes],
) -> None:
    """The whole table once more, told without the webhook."""
    writers = {keys.ASSIGNED: {"scheduler", "node-daemon"}, RELEASED: {"controller"}}
    policy, _ = outcomes
    for attempt, came in policy.items():
        road, key, _, account = attempt
        may = (
            key in OTHERS
            or account in writers.get(key, ())
            or (road == "create" and key == keys.REQUEST)
        )
        wanted = "dropped" if road in NO_ROAD else "written" if may else "refused"
        assert came == wanted, attempt


def test_the_policy_refuses_nothing_that_the_webhook_allows(
    outcomes: tuple[Outcomes, Outcomes],
) -> None:
    """It is a second lock and no further rule; the users' own keys are the webhook's alone."""
    policy, webhook = outcomes
    refused = {a for a, came in policy.items() if came == "refused"}
    assert {webhook[a] for a in refused} == {"refused"}
    assert {a.key for a in refused} == set(SYSTEM)
    assert not unlike(outcomes, lambda a: a.key == FOREIGN and a.road != "create")
