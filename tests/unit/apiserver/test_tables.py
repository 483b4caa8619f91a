"""What ``kubectl get`` asks the sandbox's API server for."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gpu_fraction.kube.resources import Resource
from gpu_fraction.sandbox.apiserver import ApiServer, Kind

ACCEPT = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """A server."""
    async with ApiServer().serve() as api:
        yield api


async def table(api: ApiServer, path: str) -> tuple[list[str], list[list[Any]]]:
    """Titles and cells."""
    async with (
        aiohttp.ClientSession(headers=ACCEPT) as session,
        session.get(api.url + path) as answer,
    ):
        found = await answer.json()
    assert (found["kind"], found["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    names = [one["object"]["metadata"]["name"] for one in found["rows"]]
    assert all(names)
    return [one["name"] for one in found["columnDefinitions"]], [r["cells"] for r in found["rows"]]


async def test_pods_and_nodes_show_their_state(api: ApiServer) -> None:
    """A list, and one object; what is not there yet is empty or zero."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}}
    states = [{"name": "x", "ready": True}, {"name": "y", "ready": False}]
    api.add(
        pod
        | {
            "spec": {"nodeName": "n", "containers": [{"name": "x"}, {"name": "y"}]},
            "status": {"phase": "Running", "containerStatuses": states},
        },
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {}},
    )
    titles, (row,) = await table(api, "/api/v1/namespaces/default/pods")
    assert titles == ["Name", "Ready", "Status", "Node", "Age"]
    assert row[:4] == ["a", "1/2", "Running", "n"]
    assert row[4].endswith("s")
    assert (await table(api, "/api/v1/nodes/n"))[1][0][:2] == ["n", "NotReady"]


async def test_events_are_listed_by_what_they_say(api: ApiServer) -> None:
    """As kubectl shows them: the name of the Event tells nobody anything."""
    api.add(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "a.1", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": "a"},
            "type": "Warning",
            "reason": "CardFull",
            "message": "no room",
            "lastTimestamp": "2000-01-01T00:00:00Z",
        }
    )
    titles, (row,) = await table(api, "/api/v1/events")
    assert titles == ["Last Seen", "Type", "Reason", "Object", "Message"]
    assert row[0].endswith("d")
    assert row[1:] == ["Warning", "CardFull", "pod/a", "no room"]


async def test_other_kinds_show_the_columns_that_they_declare() -> None:
    """A path that leads nowhere, or to more than a value, is an empty cell."""
    widgets = Resource("example.com", "v1", "widgets", "Widget")
    columns = {"Size": "spec.size", "Spec": "spec", "None": "status.a.b"}
    server = ApiServer(kinds=[Kind(widgets, columns=columns)])
    server.add(
        {
            "apiVersion": widgets.api_version,
            "kind": widgets.kind,
            "metadata": {"name": "w", "namespace": "default"},
            "spec": {"size": 3},
        }
    )
    async with server.serve():
        titles, (row,) = await table(server, "/apis/example.com/v1/widgets")
    assert titles == ["Name", "Size", "Spec", "None", "Age"]
    assert row[:4] == ["w", 3, "", ""]
