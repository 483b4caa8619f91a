"""The contract of watches, and of lists as watches."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind, Request, Selection
from gpu_fraction.kube.resources import PODS, SECRETS, Address, Resource
from tests.builders.pods import plain_pod
from tests.contract.manifests import Manifest, secret, widget

ForgetVersions = Callable[[], Awaitable[None]]


async def watch_some(
    client: Client,
    collection: Address,
    version: str,
    count: int,
    selection: Selection = requests.EVERYTHING,
) -> list[tuple[str, Manifest]]:
    """The first events of a watch, bookmarks aside: type and object."""
    request = requests.watch(collection, selection, resource_version=version, timeout_s=30)
    events: list[tuple[str, Manifest]] = []
    async with asyncio.timeout(20), client.watch(request) as lines:
        async for line in lines:
            event: Any = msgspec.json.decode(line)
            if event["type"] != "BOOKMARK":
                events.append((event["type"], event["object"]))
            if len(events) == count:
                return events
    return events


STREAMED = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}


def streamed(collection: Address, query: dict[str, str]) -> Request:
    """A watch with parameters that the product does not use."""
    whole = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "30", **query}
    return Request("watch", "GET", collection, tuple(whole.items()))


class WatchContract:
    """Watches."""

    async def test_a_watch_tells_everything_after_its_version(
        self, client: Client, namespace: str
    ) -> None:
        """In order; a deletion comes with its own version and the last state."""
        collection = SECRETS.at(namespace=namespace)
        listing = await client.list(collection, Manifest)
        at = SECRETS.at("s", namespace=namespace)
        await client.create(collection, secret("s"), Identity)
        change = {"metadata": {"labels": {"a": "1"}}}
        changed = await client.patch(at, PatchKind.MERGE, change, Manifest)
        await client.delete(at)
        events = await watch_some(
            client, collection, listing.resource_version, 3, Selection(fields="metadata.name=s")
        )
        assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
        last = events[-1][1]["metadata"]
        assert last["labels"] == {"a": "1"}
        assert "deletionTimestamp" not in last
        assert int(last["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
        versions = [int(obj["metadata"]["resourceVersion"]) for _, obj in events]
        assert versions == sorted(versions)
        assert events[0][1]["kind"] == "Secret"

    @pytest.mark.parametrize("node", ["", "n1"])
    async def test_a_pod_is_marked_before_it_goes(
        self, client: Client, namespace: str, node: str
    ) -> None:
        """Even where nothing has to be waited for; each change of the grace is told."""
        collection, at = PODS.at(namespace=namespace), PODS.at("p", namespace=namespace)
        made = await client.create(collection, plain_pod("p", node=node), Manifest)
        await client.delete(at)
        if node:
            await client.delete(at, {"gracePeriodSeconds": 0})
        events = await watch_some(
            client,
            collection,
            made["metadata"]["resourceVersion"],
            3 if node else 2,
            Selection(fields="metadata.name=p"),
        )
        kinds = [kind for kind, _ in events]
        graces = [obj["metadata"]["deletionGracePeriodSeconds"] for _, obj in events]
        assert kinds == [*["MODIFIED"] * (len(events) - 1), "DELETED"]
        assert graces == ([30, 0, 0] if node else [0, 0])
        assert {obj["metadata"]["generation"] for _, obj in events} == {2}

    async def test_a_watch_can_be_resumed(self, client: Client, namespace: str) -> None:
        """From the version of any event on."""
        collection = SECRETS.at(namespace=namespace)
        first = await client.create(collection, secret("s1", labels={"mine": ""}), Manifest)
        await client.create(collection, secret("s2", labels={"mine": ""}), Identity)
        selection = Selection(labels="mine")
        version = first["metadata"]["resourceVersion"]
        [(kind, obj)] = await watch_some(client, collection, version, 1, selection)
        assert (kind, obj["metadata"]["name"]) == ("ADDED", "s2")

    async def test_objects_enter_and_leave_a_selection(
        self, client: Client, namespace: str
    ) -> None:
        """A change that begins or ceases to match is an addition or a deletion.

        What leaves is told as it last matched, under the version of the change.
        """
        collection = PODS.at(namespace=namespace)
        at = PODS.at("p", namespace=namespace)
        made = await client.create(collection, plain_pod("p"), Manifest)
        for value in ("1", "2", "3", None):
            change = {"metadata": {"labels": {"a": value, "b": str(value)}}}
            last = await client.patch(at, PatchKind.MERGE, change, Manifest)
        events = await watch_some(
            client,
            collection,
            made["metadata"]["resourceVersion"],
            3,
            Selection(labels="a in (2,3)"),
        )
        assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
        left = events[-1][1]["metadata"]
        assert left["labels"] == {"a": "3", "b": "3"}
        assert left["resourceVersion"] == last["metadata"]["resourceVersion"]

    async def test_a_watch_without_a_version_begins_with_what_is_there(
        self, client: Client, namespace: str
    ) -> None:
        """Version 0: the present objects come as additions."""
        collection = SECRETS.at(namespace=namespace)
        await client.create(collection, secret("s1"), Identity)
        await client.create(collection, secret("s2"), Identity)
        selection = Selection(fields="metadata.name=s2")
        [(kind, obj)] = await watch_some(client, collection, "0", 1, selection)
        assert (kind, obj["metadata"]["name"]) == ("ADDED", "s2")

    @pytest.mark.parametrize(
        "query",
        [
            pytest.param({"resourceVersion": "0"}, id="version-0"),
            pytest.param({}, id="no-version"),
            pytest.param(STREAMED, id="asked"),
            pytest.param({**STREAMED, "resourceVersion": "1"}, id="asked-from-a-version"),
        ],
    )
    async def test_a_bookmark_ends_what_was_there(
        self, client: Client, namespace: str, query: dict[str, str]
    ) -> None:
        """A list as a watch, as newer client libraries read it; then come the changes."""
        collection = SECRETS.at(namespace=namespace)
        made = await client.create(collection, secret("s1", labels={"a": "1"}), Manifest)
        # Version 0 is answered from a cache, which may not have the object yet.
        await watch_some(client, collection, "0", 1)
        request = streamed(collection, {**query, "labelSelector": "a"})
        events: list[Any] = []
        async with asyncio.timeout(20), client.watch(request) as lines:
            async for line in lines:
                events.append(msgspec.json.decode(line))
                if len(events) == 2:
                    await client.create(collection, secret("s2", labels={"a": "1"}), Identity)
                if len(events) == 3:
                    break
        assert [event["type"] for event in events] == ["ADDED", "BOOKMARK", "ADDED"]
        bookmark = events[1]["object"]["metadata"]
        assert bookmark.keys() == {"resourceVersion", "annotations"}
        assert bookmark["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(bookmark["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
        assert events[2]["object"]["metadata"]["name"] == "s2"

    @pytest.mark.parametrize(
        ("query", "why"),
        [
            ({"sendInitialEvents": "true"}, "requires setting resourceVersionMatch"),
            ({"resourceVersionMatch": "NotOlderThan"}, "unless sendInitialEvents is provided"),
            ({**STREAMED, "watch": "false"}, "sendInitialEvents is forbidden for list"),
        ],
    )
    async def test_parameters_that_do_not_go_together(
        self, client: Client, namespace: str, query: dict[str, str], why: str
    ) -> None:
        """What a watch begins with is asked for in one way only."""
        with pytest.raises(errors.InvalidError, match=why):
            async with client.watch(streamed(SECRETS.at(namespace=namespace), query)):
                pass

    async def test_a_version_that_is_not_there_yet(self, client: Client, namespace: str) -> None:
        """A list is refused; a list as a watch ends with the refusal."""
        collection, version = SECRETS.at(namespace=namespace), str(2**62)
        listing = Request("list", "GET", collection, (("resourceVersion", version),))
        with pytest.raises(errors.KubeError, match="Too large resource version"):
            await client.send(listing, timeout_s=4)  # the server waits for 3 s; no second try
        request = streamed(collection, {**STREAMED, "resourceVersion": version})
        async with asyncio.timeout(20), client.watch(request) as lines:
            [event] = [msgspec.json.decode(line) async for line in lines]
        assert (event["type"], event["object"]["code"]) == ("ERROR", 504)

    async def test_a_version_that_is_too_old_is_gone(
        self, client: Client, namespace: str, widgets: Resource, forget_versions: ForgetVersions
    ) -> None:
        """As an event in the stream, with code 410."""
        collection = widgets.at(namespace=namespace)
        await client.create(collection, widget(widgets, "w", spec={}), Identity)
        await forget_versions()
        [(kind, status)] = await watch_some(client, collection, "1", 1)
        assert kind == "ERROR"
        assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")

    async def test_the_server_ends_a_watch_in_time(self, client: Client, namespace: str) -> None:
        """After timeoutSeconds the stream is over, without an error."""
        collection = SECRETS.at(namespace=namespace)
        listing = await client.list(collection, Identity)
        request = requests.watch(
            collection, resource_version=listing.resource_version, timeout_s=1
        )
        async with asyncio.timeout(20), client.watch(request) as lines:
            async for line in lines:
                event: Any = msgspec.json.decode(line)
                assert event["type"] in {"BOOKMARK", "ADDED", "MODIFIED"}
